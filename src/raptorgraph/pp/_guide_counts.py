"""The guides of cells, read from counts, assignments or calls, and which of them a cell carries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from raptorgraph._arguments import check_choice, check_integer, check_number, check_text
from raptorgraph.screen._inputs import matrix, obs_column
from raptorgraph.screen._matrix import as_matrix
from raptorgraph.screen._names import means_missing, stripped

if TYPE_CHECKING:
    from anndata import AnnData

METHODS = ("threshold", "mixture", "assigned")
_CHOICES = {"no_guide": ("control", "drop"), "too_many": ("top", "drop")}
_MIN_CELLS = 20  # with counts of a guide, for a mixture of two components to be fitted


@dataclass(frozen=True)
class GuideSettings:
    """Arguments of :func:`raptorgraph.pp.assign_guides`, checked as far as that is possible without the data."""

    guides: str | None = None
    targets: str | Mapping[str, str] | pd.Series = "target"
    guide_names: str | Sequence[str] | None = None
    layer: str | None = None
    calls: str | None = None
    calls_delimiter: str = "|"
    non_targeting: str | Sequence[str] = "non-targeting"
    control: str = "control"
    delimiter: str = "+"
    method: str = "threshold"
    min_counts: int = 5
    min_fraction: float = 0.05
    max_genes: int = 2
    no_guide: str | None = None
    too_many: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.control, str):
            object.__setattr__(self, "control", self.control.strip())
        check_choice("method", self.method, METHODS)
        check_integer("min_counts", self.min_counts, 1)
        check_integer("max_genes", self.max_genes, 1)
        check_number("min_fraction", self.min_fraction, 0, 1)
        check_text("control", self.control, "the label of control cells")
        check_text("delimiter", self.delimiter, "what stands between the genes of a combination")
        check_text("calls_delimiter", self.calls_delimiter, "what stands between the names of guides")
        for name in ("guides", "layer", "calls"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name), "a name")
        names = self.non_targeting if isinstance(self.non_targeting, Iterable) else [None]
        if not all(isinstance(name, str) for name in names):
            raise TypeError(f"non_targeting={self.non_targeting!r} must be a target or a list of targets, all strings.")
        if not isinstance(self.guide_names, str | Sized | None):
            raise TypeError(f"guide_names={self.guide_names!r} must be a list of names or a key of uns.")
        if not isinstance(self.targets, str | Mapping | pd.Series):
            raise TypeError(
                f"targets={self.targets!r} must be the name of a column, or a mapping or Series from guide to gene."
            )
        for name, choices in _CHOICES.items():
            if getattr(self, name) is not None:
                check_choice(name, getattr(self, name), choices)
        if self.too_many == "top" and not self.has_counts:
            raise ValueError("too_many='top' needs the counts of guides, and these are assignments: use 'drop'.")

    @property
    def has_counts(self) -> bool:
        """Whether guides are counted, and not assigned already."""
        return self.calls is None and self.method != "assigned"

    @property
    def controls(self) -> tuple[str, ...]:
        """Every spelling of the control among the targets, the label of the cells first."""
        others = (self.non_targeting,) if isinstance(self.non_targeting, str) else tuple(self.non_targeting)
        return (self.control, *others)


def read_guides(holder: AnnData, settings: GuideSettings, *, is_modality: bool) -> tuple[sparse.csr_matrix, pd.Series]:
    """Counts (or 0 and 1) of each guide in each cell of `holder`, and the target of each guide, indexed by its name."""
    names: Iterable[str]
    if settings.calls is not None:
        known = {} if isinstance(settings.targets, str) else settings.targets
        column = obs_column(holder, settings.calls, "calls")
        counts, names = _read_calls(column, settings.calls_delimiter, {str(name).strip() for name in known})
    elif is_modality:
        counts, names = _whole_numbers(matrix(holder, settings.layer), "The guides' modality"), holder.var_names
    else:
        counts, names = _read_obsm(holder, settings)
    guides = stripped(names, "Names of guides")
    if not guides.is_unique:
        raise ValueError(f"Names of guides are not unique: {list(guides[guides.duplicated()][:5])}.")
    if settings.has_counts and counts.nnz and counts.max() <= 1:
        raise ValueError("No guide has more than 1 count: these are assignments, not counts; use method='assigned'.")
    return counts, _targets(holder, settings, guides, is_modality=is_modality)


def call_guides(counts: sparse.csr_matrix, settings: GuideSettings) -> tuple[sparse.csr_matrix, np.ndarray | None]:
    """Which guides each cell carries (cells x guides, 0 and 1), and the smallest count that calls each guide."""
    carried, thresholds = counts.copy(), None
    if settings.has_counts:
        thresholds = np.full(counts.shape[1], settings.min_counts)
        if settings.method == "mixture":
            thresholds = np.maximum(thresholds, _mixture_thresholds(counts.tocsc()))
        total = np.repeat(np.asarray(counts.sum(1)).ravel(), np.diff(counts.indptr))
        carried.data *= (counts.data >= thresholds[counts.indices]) & (counts.data >= settings.min_fraction * total)
        carried.eliminate_zeros()
    carried.data[:] = 1
    return carried, thresholds


def _read_calls(column: pd.Series, delimiter: str, known: set[str]) -> tuple[sparse.csr_matrix, list[str]]:
    """Cells x guides, 0 and 1, from the names of each cell's guides; ``None`` and the like only where it is known."""
    text = column.astype(object).where(column.notna(), "").astype(str)
    cells, names = [], []
    for i, entry in enumerate(text):
        parts = [part.strip() for part in ([entry] if means_missing(entry) else entry.split(delimiter))]
        found = [part for part in parts if part in known or not means_missing(part)]
        cells += [i] * len(found)
        names += found
    if not names:
        raise ValueError(f"obs[{column.name!r}] names no guide.")
    codes, distinct = pd.factorize(np.asarray(names, dtype=object), sort=True)
    table = sparse.csr_matrix((np.ones(len(cells)), (cells, codes)), shape=(len(column), len(distinct)))
    table.data[:] = 1  # a guide that is named twice
    return table, list(distinct)


def _read_obsm(adata: AnnData, settings: GuideSettings) -> tuple[sparse.csr_matrix, Sequence[str]]:
    """Counts and names of the guides in ``adata.obsm``."""
    key, names = settings.guides, settings.guide_names
    if key is None:
        raise ValueError("Name the key of obsm that holds the guide counts (guides=...), or the column of obs with the "
                         "guides of each cell (calls=...).")  # fmt: skip
    if settings.layer is not None:
        raise ValueError("layer belongs to the guides' modality of a MuData; an AnnData has its guides in obsm.")
    if key not in adata.obsm:
        raise KeyError(f"guides={key!r} is not a key of adata.obsm, which has {list(adata.obsm)}.")
    table = adata.obsm[key]
    if isinstance(names, str):
        if names not in adata.uns:
            raise KeyError(f"guide_names={names!r} is not a key of adata.uns, which has {list(adata.uns)}.")
        names = adata.uns[names]
    elif names is None:
        if not isinstance(table, pd.DataFrame):
            raise ValueError(f"obsm[{key!r}] has no names of guides: give guide_names (a list or a key of uns).")
        names = table.columns
    table = _whole_numbers(table, f"obsm[{key!r}]")
    if len(names) != table.shape[1]:
        raise ValueError(f"{len(names)} guide_names were given for the {table.shape[1]} columns of obsm[{key!r}].")
    return table, names


def _whole_numbers(table: pd.DataFrame | np.ndarray | sparse.csr_matrix, where: str) -> sparse.csr_matrix:
    """The table as float64; ValueError where it holds something else than whole numbers from 0."""
    if isinstance(table, pd.DataFrame):
        try:
            table = table.to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where} must hold counts of guides, whole numbers from 0: {error}.") from error
    counts = sparse.csr_matrix(as_matrix(table), dtype=np.float64, copy=True)
    bad = counts.data[~(np.isfinite(counts.data) & (counts.data >= 0) & (counts.data == np.floor(counts.data)))]
    if bad.size:
        raise ValueError(f"{where} must hold counts of guides, whole numbers from 0; it has {bad[0]:g}.")
    return counts


def _targets(holder: AnnData, settings: GuideSettings, names: pd.Index, *, is_modality: bool) -> pd.Series:
    """Target of each guide, as text, indexed by guide."""
    targets = settings.targets
    if isinstance(targets, str) and is_modality:
        if targets not in holder.var:
            raise KeyError(f"targets={targets!r} is not a column of the guides' var, which has {list(holder.var)}; "
                           "name the column with each guide's gene, or give a dict from guide to gene.")  # fmt: skip
        found = holder.var[targets]
    elif isinstance(targets, str):
        if settings.calls is not None:
            raise ValueError(f"targets={targets!r}: with calls of an AnnData, give a dict from guide to gene.")
        if targets not in holder.uns:
            raise KeyError(f"targets={targets!r} is not a key of adata.uns, which has {list(holder.uns)}; name it, or "
                           "give a dict from guide to gene.")  # fmt: skip
        found = np.asarray(holder.uns[targets])
        if len(found) != len(names):
            raise ValueError(f"uns[{targets!r}] has {len(found)} targets for {len(names)} guides.")
        found = pd.Series(found, index=names)
    else:
        found = pd.Series(targets, dtype=object)
    found = found.astype(object).set_axis(found.index.astype(str).str.strip())
    if not found.index.is_unique:
        raise ValueError(f"targets names guides twice: {list(found.index[found.index.duplicated()][:5])}.")
    without = [name for name in names if name not in found.index or _no_target(found[name], settings)]
    if without:
        raise ValueError(f"{len(without)} of {len(names)} guides have no target: {', '.join(without[:10])}.")
    return found[names].astype(str).str.strip()


def _no_target(target: object, settings: GuideSettings) -> bool:
    """Whether the target is missing; text such as ``None`` may be the name of a control."""
    controls = {label.strip() for label in settings.controls}
    return bool(pd.isna(target)) or (str(target).strip() not in controls and means_missing(str(target)))


def _mixture_thresholds(counts: sparse.csc_matrix) -> np.ndarray:
    """Smallest count of each guide that more likely belongs to the upper of two normal components of its log counts."""
    from sklearn.mixture import GaussianMixture

    thresholds = np.ones(counts.shape[1])
    for j in range(counts.shape[1]):
        values = np.log2(counts.data[counts.indptr[j] : counts.indptr[j + 1]])
        low, high = np.quantile(values, [0.1, 0.95]) if len(values) >= _MIN_CELLS else (0.0, 0.0)
        if high - low < 1:  # less than twofold: there is nothing to tell apart
            continue
        mixture = GaussianMixture(2, covariance_type="tied", means_init=[[low], [high]], max_iter=1000, random_state=0)
        mixture.fit(values[:, None])
        upper = mixture.means_.ravel().argmax()
        grid = np.arange(np.floor(2 ** mixture.means_.min()), np.ceil(2 ** mixture.means_.max()) + 1)
        above = mixture.predict(np.log2(grid)[:, None]) == upper
        thresholds[j] = grid[above][0] if above.any() else grid[-1]
    return thresholds
