"""From guides to labels: the perturbation that the guides of a cell make together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
from scipy import sparse

from raptorgraph._arguments import check_text, settings_of
from raptorgraph._docs import docs
from raptorgraph.pp._guide_counts import GuideSettings, call_guides, read_guides
from raptorgraph.screen._label_hints import likely_controls, warn_of_controls
from raptorgraph.screen._labels import format_perturbation, parse_perturbation
from raptorgraph.screen._modalities import drop_cells, modality, refresh
from raptorgraph.screen._screen import design_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData

GUIDES_KEY = "raptorgraph_guides"
"""Key of ``uns`` under which :func:`assign_guides` notes how guides were called."""

_ACTIONS = {None: "no label", "drop": "dropped", "control": "labeled as control", "top": "labeled by top guides"}


class GuideReport(NamedTuple):
    """What :func:`assign_guides` found.

    Attributes
    ----------
    outcomes
        One row for each of ``"control"``, ``"1 gene"``, ``"2 genes"``, ..., ``"no guide"`` and ``"too many genes"``:
        ``n_cells``, ``share`` of all cells, and ``action``, what became of them.
    guides
        One row for each guide: ``target`` (its perturbation), ``threshold`` (the smallest count that calls it; missing
        for assignments), ``n_cells`` that carry it, and ``n_alone`` of them with no other guide.

    Examples
    --------
    >>> import anndata as ad
    >>> cells = ad.AnnData(np.ones((3, 2)), obs=pd.DataFrame(index=["x", "y", "z"]))
    >>> cells.obsm["guides"] = pd.DataFrame({"KLF1_1": [30, 0, 0], "NT_1": [0, 20, 0]}, index=cells.obs_names)
    >>> targets = {"KLF1_1": "KLF1", "NT_1": "NT"}
    >>> report = rg.pp.assign_guides(cells, "guides", targets, non_targeting="NT", no_guide="drop")
    >>> report.guides["n_cells"].to_dict()
    {'KLF1_1': 1, 'NT_1': 1}
    """

    outcomes: pd.DataFrame
    guides: pd.DataFrame


@dataclass(frozen=True)
class Assignment:
    """What is to be written: `labels` and names of `guides` of every cell, and which cells are `dropped`."""

    labels: pd.Categorical
    guides: list[str]
    dropped: np.ndarray
    report: GuideReport
    note: dict[str, str | int | float]


@docs.dedent
def assign_guides(
    data: AnnData | MuData,
    guides: str | None = None,
    targets: str | Mapping[str, str] | pd.Series = "target",
    *,
    expression: str | None = None,
    guide_names: str | Sequence[str] | None = None,
    layer: str | None = None,
    calls: str | None = None,
    calls_delimiter: str = "|",
    non_targeting: str | Sequence[str] = "non-targeting",
    control: str = "control",
    delimiter: str = "+",
    method: str = "threshold",
    min_counts: int = 5,
    min_fraction: float = 0.05,
    max_genes: int = 2,
    no_guide: str | None = None,
    too_many: str | None = None,
    key_added: str = "perturbation",
) -> GuideReport:
    """Call the guides of each cell, and write the label of the perturbation that they make.

    A cell carries a guide with at least `min_counts` counts that are at least `min_fraction` of all its guide counts.
    The genes of its guides together are its perturbation: two guides of one gene are that single, guides of two genes
    the double ``A+B``, and non-targeting guides add nothing. Cells without a guide, and cells with more than
    `max_genes` genes, get no label until `no_guide` and `too_many` say what they are.

    Parameters
    ----------
    data
        MuData with expression and guides in two modalities, whose cells are matched by name; or AnnData with guide
        counts in ``obsm`` or calls in ``obs``.
    guides
        Modality of the MuData, or key of ``obsm`` with cells x guides. An AnnData with `calls` needs none.
    targets
        Gene of each guide: column of the guides' ``var`` (of an AnnData: key of ``uns`` with one target for each of
        `guide_names`), or a mapping or Series from guide to gene. A guide of several genes names them joined by the
        delimiter.
    expression
        Modality of the MuData that gets the labels.
    guide_names
        Names of the columns of ``obsm`` where it is no table: a list, or a key of ``uns``.
    layer
        Layer of the guides' modality; default ``X``.
    calls
        Column of ``obs`` (of the guides' modality) with the names of each cell's guides, in place of counts; empty or
        missing where it has none. Cell Ranger writes it as ``feature_call``. Thresholds do not apply.
    calls_delimiter
        Text between the names in `calls`.
    non_targeting
        Target, or targets, of guides that perturb nothing.
    control
        Label of control cells; as a target it means the same as `non_targeting`.
    %(delimiter)s
    method
        ``"threshold"``: `min_counts` and `min_fraction` alone. ``"mixture"``: a count must also belong to the upper of
        two normal components of equal variance of the guide's log counts, so that each guide has its own threshold
        (guides with counts in fewer than 20 cells have none). ``"assigned"``: the matrix holds assignments, and every
        value above 0 is a guide of the cell.
    min_counts
        Smallest count (UMIs) of a guide that a cell carries.
    min_fraction
        Smallest share of the cell's guide counts, from 0 to 1. Ambient guides grow with the depth of a cell, which
        `min_counts` does not follow.
    max_genes
        Largest number of genes of a perturbation.
    no_guide
        What becomes of cells without a guide: ``"control"`` labels them as control cells, ``"drop"`` removes them from
        `data`. None leaves them without a label.
    too_many
        What becomes of cells with more than `max_genes` genes: ``"top"`` keeps their guides with the most counts, one
        after another, while there are no more genes than that; ``"drop"`` removes the cells from `data`. None leaves
        them without a label.
    key_added
        Column of ``obs`` to write.

    Returns
    -------
    GuideReport: the tables ``outcomes`` and ``guides``. Writes, to the AnnData or to the modality `expression`,

    - ``obs[key_added]``: labels, categorical, the control first; missing where a cell has none, and such cells are
      refused by :meth:`raptorgraph.RaptorGraphModel.setup_anndata`;
    - ``obs[f"{key_added}_guides"]``: names of the cell's guides, joined by ``"|"``, categorical;
    - ``uns["raptorgraph_guides"]``: how they were called.

    Raises
    ------
    KeyError
        If a modality, layer, column or key is not there.
    TypeError
        If `data` is neither an AnnData nor a MuData.
    ValueError
        If ``obs[key_added]`` is there and this function did not write it; if a guide has no target or none is
        non-targeting; if counts are not whole numbers; if an argument is out of its range.

    Examples
    --------
    >>> import anndata as ad
    >>> cells = ad.AnnData(np.ones((4, 3)), obs=pd.DataFrame(index=["w", "x", "y", "z"]))
    >>> cells.obsm["guides"] = pd.DataFrame(
    ...     {"KLF1_1": [30, 20, 0, 0], "KLF1_2": [25, 0, 0, 1], "BAK1_1": [0, 40, 0, 0], "NT_1": [0, 0, 9, 0]},
    ...     index=cells.obs_names,
    ... )
    >>> targets = {"KLF1_1": "KLF1", "KLF1_2": "KLF1", "BAK1_1": "BAK1", "NT_1": "NT"}
    >>> report = rg.pp.assign_guides(cells, "guides", targets, non_targeting="NT", no_guide="drop")
    >>> cells.obs["perturbation"].tolist()
    ['KLF1', 'BAK1+KLF1', 'control']
    >>> report.outcomes["n_cells"].to_dict()
    {'control': 1, '1 gene': 1, '2 genes': 1, 'no guide': 1, 'too many genes': 0}
    """
    settings = settings_of(GuideSettings, locals())
    assignment = plan_assignment(data, settings, expression=expression, key_added=key_added)
    write_assignment(data, assignment, expression=expression, key_added=key_added)
    return assignment.report


def plan_assignment(
    data: AnnData | MuData, settings: GuideSettings, *, expression: str | None, key_added: str
) -> Assignment:
    """Find what :func:`assign_guides` writes, and write nothing."""
    check_text("key_added", key_added, "the name of a column of obs")
    cells, holder = _cells_and_holder(data, settings, expression)
    if key_added in cells.obs and cells.uns.get(GUIDES_KEY, {}).get("key") != key_added:
        raise ValueError(
            f"obs[{key_added!r}] is there already and does not come from assign_guides. Write another column (here "
            f"key_added={key_added + '_by_guides'!r}), or delete it first: del adata.obs[{key_added!r}]."
        )
    counts, targets = read_guides(holder, settings, is_modality=holder is not cells)
    sets = _gene_sets(targets, settings)
    counts = _rows_of(counts, holder, cells)
    carried, thresholds = call_guides(counts, settings)
    genes = sorted(set().union(*sets))
    of_guide = sparse.csr_matrix(design_matrix(sets, genes))

    n_genes = np.diff((carried @ of_guide).tocsr().indptr)
    without, beyond = np.diff(carried.indptr) == 0, n_genes > settings.max_genes
    report = GuideReport(
        _outcomes(n_genes, without, beyond, settings),
        _guide_table(targets.index, sets, carried, thresholds, settings),
    )
    if settings.too_many == "top":
        carried = _top_guides(carried, counts, sets, beyond, settings.max_genes)
    labels = _labels((carried @ of_guide).tocsr(), genes, settings)
    undecided = (without & (settings.no_guide != "control")) | (beyond & (settings.too_many != "top"))
    labels[undecided] = None
    others = sorted({label for label in labels if label is not None} - {settings.control})
    names = targets.index.to_numpy()
    method = settings.method if settings.has_counts else "assigned"
    note: dict[str, str | int | float] = {"key": key_added, "method": method, "max_genes": int(settings.max_genes)}
    if settings.has_counts:
        note |= {"min_counts": int(settings.min_counts), "min_fraction": float(settings.min_fraction)}
    return Assignment(
        labels=pd.Categorical(labels, categories=[settings.control, *others]),
        guides=[
            "|".join(names[carried.indices[a:b]]) for a, b in zip(carried.indptr, carried.indptr[1:], strict=False)
        ],
        dropped=(without & (settings.no_guide == "drop")) | (beyond & (settings.too_many == "drop")),
        report=report,
        note=note,
    )


def guides_column(key_added: str) -> str:
    """Column of ``obs`` with the names of each cell's guides, beside that of the labels."""
    return f"{key_added}_guides"


def write_assignment(data: AnnData | MuData, assignment: Assignment, *, expression: str | None, key_added: str) -> None:
    """Write labels and names of guides, and remove the cells that are to be dropped."""
    cells = data if expression is None else data.mod[expression]
    cells.obs[key_added] = assignment.labels
    cells.obs[guides_column(key_added)] = pd.Categorical(assignment.guides)
    cells.uns[GUIDES_KEY] = assignment.note
    if assignment.dropped.any():
        drop_cells(data, cells.obs_names[assignment.dropped])
    if cells is not data:
        refresh(data)


def _cells_and_holder(
    data: AnnData | MuData, settings: GuideSettings, expression: str | None
) -> tuple[AnnData, AnnData]:
    """The AnnData whose cells get labels, and the one that holds their guides."""
    if isinstance(data, ad.AnnData):
        if expression is not None:
            raise ValueError(f"expression={expression!r} names a modality, and data is an AnnData: leave it out.")
        if data.is_view:
            raise ValueError("adata is a view of another AnnData; pass a copy: adata = adata.copy().")
        cells = holder = data
    elif isinstance(data, md.MuData):
        if expression is None or settings.guides is None:
            raise ValueError(
                f"Name the two modalities of the MuData, out of {list(data.mod)}: guides=... and expression=..."
            )
        cells, holder = modality(data, expression, "expression"), modality(data, settings.guides, "guides")
        if cells is holder:
            raise ValueError(f"guides and expression name the same modality, {expression!r}.")
        if settings.guide_names is not None:
            raise ValueError("guide_names belong to an AnnData; the guides' modality has its own var_names.")
    else:
        raise TypeError(f"data must be an AnnData or a MuData, not {type(data).__name__}.")
    for part in (cells, holder):
        if not part.obs_names.is_unique:
            raise ValueError("obs_names are not unique; use obs_names_make_unique() in each modality.")
    return cells, holder


def _gene_sets(targets: pd.Series, settings: GuideSettings) -> list[tuple[str, ...]]:
    """Genes of each guide; ValueError where none is non-targeting or one has too many genes."""
    sets = [parse_perturbation(label, control=settings.controls, delimiter=settings.delimiter) for label in targets]
    if all(sets):
        likely = likely_controls(targets)
        hint = f" These look like controls: non_targeting={likely[:10]!r}." if likely else ""
        raise ValueError(
            f"No guide is non-targeting: none of {list(settings.controls)} is among the targets, such as "
            f"{sorted(set(targets))[:10]}.{hint}"
        )
    largest = max(sets, key=len)
    if len(largest) > settings.max_genes:
        guide = targets.index[sets.index(largest)]
        raise ValueError(f"Guide {guide!r} alone has {len(largest)} genes, more than max_genes={settings.max_genes}.")
    warn_of_controls({gene for members in sets for gene in members}, "non_targeting")
    return sets


def _rows_of(counts: sparse.csr_matrix, holder: AnnData, cells: AnnData) -> sparse.csr_matrix:
    """Rows of the guides in the order of the cells; a cell that the guides lack has none."""
    if holder is cells:
        return counts
    rows = holder.obs_names.get_indexer(cells.obs_names)
    if (rows < 0).all():
        raise ValueError(
            f"No cell is in both modalities: their names are like {cells.obs_names[0]!r} and {holder.obs_names[0]!r}."
        )
    empty = sparse.csr_matrix((1, counts.shape[1]), dtype=counts.dtype)
    return sparse.vstack([counts, empty], format="csr")[rows]  # -1 is the last row, which is empty


def _top_guides(
    carried: sparse.csr_matrix, counts: sparse.csr_matrix, sets: list[tuple[str, ...]], rows: np.ndarray, max_genes: int
) -> sparse.csr_matrix:
    """Keep the guides with the most counts, in the given rows, while there are at most `max_genes` genes."""
    kept = carried.copy()
    for i in np.flatnonzero(rows):
        start, end = carried.indptr[i], carried.indptr[i + 1]
        guides = carried.indices[start:end]
        order = np.argsort(-counts[i, guides].toarray().ravel(), kind="stable")
        genes: set[str] = set()
        for n, position in enumerate(order):
            genes |= set(sets[guides[position]])
            if len(genes) > max_genes:
                kept.data[start + order[n:]] = 0
                break
    kept.eliminate_zeros()
    return kept


def _labels(perturbed: sparse.csr_matrix, genes: list[str], settings: GuideSettings) -> np.ndarray:
    """Label of each cell from the genes that its guides perturb."""
    perturbed.sort_indices()
    spelled: dict[bytes, str] = {}
    labels = np.empty(perturbed.shape[0], dtype=object)
    for i, (a, b) in enumerate(zip(perturbed.indptr, perturbed.indptr[1:], strict=False)):
        found = perturbed.indices[a:b]
        key = found.tobytes()
        if key not in spelled:
            named = [genes[k] for k in found]
            spelled[key] = format_perturbation(named, control=settings.control, delimiter=settings.delimiter)
        labels[i] = spelled[key]
    return labels


def _outcomes(n_genes: np.ndarray, without: np.ndarray, beyond: np.ndarray, settings: GuideSettings) -> pd.DataFrame:
    """Numbers of cells by outcome, and what becomes of them."""
    labeled = n_genes[~without & ~beyond]
    rows = {"control": ((labeled == 0).sum(), "labeled")}
    for n in range(1, int(settings.max_genes) + 1):
        rows[f"{n} gene{'s' if n > 1 else ''}"] = ((labeled == n).sum(), "labeled")
    rows["no guide"] = (without.sum(), _ACTIONS[settings.no_guide])
    rows["too many genes"] = (beyond.sum(), _ACTIONS[settings.too_many])
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["n_cells", "action"])
    table.insert(1, "share", table["n_cells"] / max(len(n_genes), 1))
    return table.rename_axis("outcome")


def _guide_table(
    names: pd.Index,
    sets: list[tuple[str, ...]],
    carried: sparse.csr_matrix,
    thresholds: np.ndarray | None,
    settings: GuideSettings,
) -> pd.DataFrame:
    """Target, threshold and numbers of cells of each guide."""
    alone = carried[np.diff(carried.indptr) == 1]
    return pd.DataFrame(
        {
            "target": [
                format_perturbation(members, control=settings.control, delimiter=settings.delimiter) for members in sets
            ],
            "threshold": np.nan if thresholds is None else thresholds.astype(float),
            "n_cells": np.asarray(carried.sum(0)).ravel().astype(int),
            "n_alone": np.asarray(alone.sum(0)).ravel().astype(int),
        },
        index=pd.Index(names, name="guide"),
    )
