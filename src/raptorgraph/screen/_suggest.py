"""Find the labels of a screen, whichever convention it follows, and say how they would be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from raptorgraph.screen._expression import library_sizes
from raptorgraph.screen._label_hints import likely_controls
from raptorgraph.screen._labels import ParsedLabels, parse_labels
from raptorgraph.screen._names import gene_names, means_missing
from raptorgraph.screen._other_names import text_columns, texts
from raptorgraph.screen._other_values import counts_layer, kind_of
from raptorgraph.screen._setup import Setup
from raptorgraph.screen._setup_hints import label_hints

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from anndata import AnnData

# Names that pertpy, scPerturb, GEARS, CPA and Cell Ranger give to labels of genes, and to those of guides.
_GENE_COLUMNS = (
    "perturbation", "condition", "gene", "perturbation_name", "gene_target", "target_gene", "target", "gene_name",
    "perturbation_1", "assignment", "label",
)  # fmt: skip
_GUIDE_COLUMNS = (
    "guide_ids", "guide_id", "guide_identity", "guide_ID", "guide", "guides", "sgRNA", "sgrna", "grna_id", "grna",
    "assigned_guide", "feature_call",
)  # fmt: skip
_DELIMITERS = ("+", "_", ",", ";", "|", "&", "/")
_LIBRARY_COLUMNS = ("total_counts", "ncounts", "n_counts", "nCount_RNA", "UMI_count", "n_umis")
_MAX_LABELS = 50_000  # more distinct values are no labels


@dataclass
class _Candidate:
    """One column, read in the best way that was found."""

    setup: Setup
    parsed: ParsedLabels
    in_var: float  # part of the perturbed genes that is among the genes
    level: int  # 2: named like labels of genes, 1: named otherwise, 0: named like those of guides
    position: int
    agrees: bool  # with nperts

    @property
    def n_perturbations(self) -> int:
        return len(self.parsed.conditions) - 1

    @property
    def n_combinations(self) -> int:
        return sum(len(condition) > 1 for condition in self.parsed.conditions)

    @property
    def rank(self) -> tuple[bool, bool, int, float, int]:
        """Order of preference; a column with one perturbation only says which cells were perturbed."""
        return (self.n_perturbations > 1, self.agrees, self.level, self.in_var, -self.position)


def suggest_setup(adata: AnnData) -> pd.DataFrame:
    """Suggest how the labels of a screen are to be read, with the reasons.

    Looks for the names that pertpy's and scPerturb's data sets use (``perturbation``, ``gene``, ``condition``,
    ``guide_ids``, ``nperts``...), for usual names of controls (``control``, ``ctrl``, ``non-targeting``, ``NT``...),
    and for what separates the genes of combinations. Suggestions were tried on the data; check them all the same.

    Parameters
    ----------
    adata
        Cells x genes.

    Returns
    -------
    One row for each argument of :meth:`raptorgraph.RaptorGraphModel.setup_anndata` that the data ask for, with the
    columns ``value`` and ``reason``: ``perturbation_key``, ``control``, ``delimiter``; ``layer`` if a layer holds
    counts and ``X`` none; ``library_size_key`` if a column holds more counts than the rows. As arguments:
    ``suggest_setup(adata)["value"].to_dict()``.

    Raises
    ------
    ValueError
        If no column of ``obs`` can be read as labels with control cells.

    Examples
    --------
    >>> adata.obs = adata.obs.rename(columns={"perturbation": "condition"})
    >>> adata.obs["condition"] = adata.obs["condition"].astype(object).replace("control", "ctrl")
    >>> suggestion = rg.pp.suggest_setup(adata)
    >>> suggestion["value"].to_dict()
    {'perturbation_key': 'condition', 'control': 'ctrl', 'delimiter': '+'}
    >>> rg.RaptorGraphModel.setup_anndata(adata, **suggestion["value"].to_dict())
    """
    found = _candidates(adata)
    if not found:
        raise ValueError(
            "No column of obs has labels of perturbations with control cells among them; it has "
            f"{[str(column) for column in adata.obs][:20]}.{_blank_controls(adata)} Write the labels to a column, with "
            "one label for all control cells, or see raptorgraph.pp.assign_guides for counts of guides."
        )
    best = max(found, key=lambda candidate: candidate.rank)
    rows = _label_rows(adata, best, found) | _value_rows(adata)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "reason"]).rename_axis("argument")


def advice(adata: AnnData, key: str | None = None) -> str:
    """A sentence with the call of ``setup_anndata`` that would work, or an empty text; of one column if it is named."""
    found = _candidates(adata)
    if not found:
        return _blank_controls(adata)
    same = [candidate for candidate in found if candidate.setup.perturbation_key == key]
    best = max(same or found, key=lambda candidate: candidate.rank).setup
    arguments = ", ".join(f"{name}={best[name]!r}" for name in ("perturbation_key", "control", "delimiter"))
    return (
        f" This would work: RaptorGraphModel.setup_anndata(adata, {arguments}); raptorgraph.pp.suggest_setup(adata) "
        "says why."
    )


def other_delimiter(labels: Sequence[str], controls: Sequence[str], delimiter: str) -> tuple[str, str] | None:
    """Another delimiter that makes combinations of the labels, and an example, where no label has the given one."""
    if any(delimiter in label and label.strip() not in controls for label in labels):
        return None
    for other in _DELIMITERS:
        supported = _combinations(labels, controls, other, known=())
        if len(supported) > 0.5 * sum(other in label and label.strip() not in controls for label in labels):
            return other, min(supported)
    return None


def _combinations(labels: Iterable[str], controls: Sequence[str], delimiter: str, known: Iterable[str]) -> list[str]:
    """Labels whose parts, at least two, are all labels on their own, controls or known names."""
    alone = {label.strip() for label in labels} | set(controls) | set(known)
    split = {label: [part.strip() for part in label.split(delimiter)] for label in labels}
    return [
        label
        for label, parts in split.items()
        if len(parts) > 1 and label.strip() not in controls and all(part in alone for part in parts)
    ]


def _candidates(adata: AnnData) -> list[_Candidate]:
    var_names = set(gene_names(adata))
    known = var_names.union(*(texts(adata, column) for column in text_columns(adata)))
    found = (_read(adata, str(key), var_names, known) for key in adata.obs.columns)
    return [candidate for candidate in found if candidate is not None]


def _read(adata: AnnData, key: str, var_names: set[str], known: set[str]) -> _Candidate | None:
    """Read one column of ``obs`` as labels; None where that does not work."""
    column = adata.obs[key]
    if not (isinstance(column.dtype, pd.CategoricalDtype) or pd.api.types.is_string_dtype(column.dtype)):
        return None
    column = column.astype(object)
    counts = column.value_counts()
    if column.isna().any() or not 1 < len(counts) <= _MAX_LABELS or not all(isinstance(x, str) for x in counts.index):
        return None
    labels = sorted(counts.index, key=lambda label: (-counts[label], label))
    n_parts = adata.obs["nperts"].to_numpy() if "nperts" in adata.obs else None
    delimiter, agrees = _delimiter(column, labels, known, n_parts)
    # The most frequent first; then those inside of combinations, as in "KLF1+ctrl", that no cell has for itself.
    likely = set(likely_controls(labels))
    controls = [label for label in labels if label in likely]
    others = [label for label in labels if label not in likely]
    controls += likely_controls({part.strip() for label in others for part in label.split(delimiter)} - likely)
    named = [label for label in controls if not means_missing(label)]
    controls = named or controls  # beside another control, "None" is a missing label until the user says otherwise
    if not controls:
        return None
    try:
        setup = Setup(key, controls[0] if len(controls) == 1 else controls, delimiter)
        parsed = parse_labels(column, **setup.spelling, require_control=True)
    except ValueError:
        return None
    name = key.lower()
    level = 2 if name in _GENE_COLUMNS else 0 if name in {guide.lower() for guide in _GUIDE_COLUMNS} else 1
    genes = set(parsed.genes)
    if not genes or (level == 1 and len(known & genes) < 0.1 * len(genes)):  # any column with a "none" in it
        return None
    order = _GENE_COLUMNS if level == 2 else tuple(adata.obs.columns.astype(str).str.lower())
    return _Candidate(
        setup=setup,
        parsed=parsed,
        in_var=len(var_names & genes) / len(genes),
        level=level,
        position=order.index(name) if name in order else len(order),
        agrees=agrees,
    )


def _delimiter(column: pd.Series, labels: list[str], genes: set[str], n_parts: np.ndarray | None) -> tuple[str, bool]:
    """Delimiter of the genes in a column, and whether ``nperts`` says the same."""
    controls = likely_controls(labels)
    if n_parts is not None:
        for delimiter in _DELIMITERS:
            counted = column.map({x: 0 if x in controls else x.count(delimiter) + 1 for x in labels}).to_numpy()
            if (counted == n_parts).all():
                return delimiter, True
    inside = likely_controls({part for delimiter in _DELIMITERS for x in labels for part in x.split(delimiter)})
    for delimiter in _DELIMITERS:
        supported = _combinations(labels, controls, delimiter, [*genes, *inside])
        if len(supported) > 0.5 * sum(delimiter in label and label not in controls for label in labels):
            return delimiter, False
    return "+", False


def _blank_controls(adata: AnnData) -> str:
    """How to name control cells that have an empty label; an empty text where none has."""
    for key in (*_GENE_COLUMNS, *_GUIDE_COLUMNS):
        if key not in adata.obs:
            continue
        column = adata.obs[key]
        texts = sorted(text for text in column.dropna().unique() if isinstance(text, str) and means_missing(text))
        blank = (column.isna() | column.isin(texts)).to_numpy()
        if not 0 < blank.sum() < len(blank):
            continue
        if "nperts" in adata.obs and (adata.obs["nperts"].to_numpy()[blank] != 0).any():
            continue
        spelled = f" ({', '.join(map(repr, texts[:5]))})" if any(map(str.strip, texts)) else ""
        return (
            f" In obs[{key!r}], {blank.sum()} cells have an empty label{spelled}: if they are controls, name them "
            f"first, adata.obs[{key!r}] = adata.obs[{key!r}].astype(object).fillna('')"
            f".replace({sorted({'', *texts})!r}, 'control'). If they are not, drop them."
        )
    return ""


def _label_rows(adata: AnnData, best: _Candidate, found: list[_Candidate]) -> dict[str, tuple[Any, str]]:
    others = [candidate.setup.perturbation_key for candidate in found if candidate is not best]
    named = {2: "a usual name of labels", 1: "no usual name", 0: "a usual name of guides"}[best.level]
    hints, _ = label_hints(adata, best.parsed, best.setup)
    reason = (
        f"{named}; {best.n_perturbations} perturbations, {best.in_var:.0%} of their genes are in var_names"
        + ("; the number of genes is that of nperts" if best.agrees else "")
        + (f"; also possible: {', '.join(others)}" if others else "")
        + (f". But note: {' '.join(hints)}" if hints else "")
    )
    if best.n_combinations:
        separates = f"separates the genes of {best.n_combinations} combinations"
    else:
        separates = "there are no combinations: the default"
    return {
        "perturbation_key": (best.setup.perturbation_key, reason),
        "control": (best.setup["control"], "usual names of controls among the labels"),
        "delimiter": (best.setup.delimiter, separates),
    }


def _value_rows(adata: AnnData) -> dict[str, tuple[Any, str]]:
    """Layer and column of library sizes, where the data show that they are needed."""
    rows: dict[str, tuple[Any, str]] = {}
    X, kind = adata.X, kind_of(adata.X)
    layer = None if kind == "counts" else counts_layer(adata)
    if layer is not None:
        held = "their logarithms" if kind == "log" else "neither counts nor log-normalized values"
        rows["layer"] = (layer, f"counts, while X holds {held}")
        X, kind = adata.layers[layer], "counts"
    if kind == "counts":
        sums = library_sizes(X)
        for key in _LIBRARY_COLUMNS:
            if key not in adata.obs or not pd.api.types.is_numeric_dtype(adata.obs[key]):
                continue
            total = adata.obs[key].to_numpy(dtype=float)
            if (total >= sums).all() and (total > sums).mean() > 0.5:
                rows["library_size_key"] = (key, "more counts than in these genes alone: totals over all genes")
                break
    return rows
