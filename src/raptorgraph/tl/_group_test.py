"""Test whether a measured effect depends on the group of the cells, by permutation of the groups among the cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse, stats

from raptorgraph._progress import progress_bar
from raptorgraph.screen import _noise
from raptorgraph.screen._matrix import to_dense

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.screen import Screen
    from raptorgraph.screen._matrix import Matrix

_BLOCK = 50  # permutations at a time, which bounds the memory
_SHRINKAGE = 1  # cells that the variance of all groups counts for in that of one: more would blur their difference
_FLOOR = 1e-2  # smallest variance, as a part of the typical one
_FLOOR_OF_SHAPE = 0.05  # as of a gene whose expression is 0.05
_LARGEST_FOLD = 1.5  # log fold change up to which the second order will do
_SEEN = 10  # control cells that show a gene which counts
_MOST_CONTROLS = 4000  # whose residuals are permuted; of more the noise has the same shape


@dataclass(frozen=True)
class Controls:
    """Control cells by stratum, a group in a batch, on the genes that count.

    Attributes
    ----------
    genes
        Columns of the genes that enough of the cells show.
    group, batch, n
        Shape (K,), int: group and batch of each stratum, and its cells.
    mean
        K x G: means of the strata.
    sd
        S x G: standard deviation among the cells of each group, shrunk to that in all.
    slope, curvature
        S x G: first and second derivative of a group's mean by the log of the rates.
    residuals
        Cells x G, float32: differences to the mean of the stratum over the deviation of the group.
    shrink
        Size of a mean of residuals in that of all cells, of which they may be a part.
    """

    genes: np.ndarray
    group: np.ndarray
    batch: np.ndarray
    n: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray
    residuals: np.ndarray
    shrink: float

    @classmethod
    def of(cls, screen: Screen, rows: np.ndarray, members: np.ndarray, n_groups: int, seed: int) -> Controls:
        """Read the control cells among `rows` of a screen, whose cells have these groups."""
        rows = rows[screen.codes[rows] == 0]
        batch = np.zeros(len(rows), dtype=np.int64) if screen.batch is None else screen.batch[rows]
        keys, strata = np.unique(members[rows] * (batch.max() + 1) + batch, return_inverse=True)
        group, batches = np.divmod(keys, batch.max() + 1)
        n = np.bincount(strata)
        sums = screen.sums(rows, part=members)
        X, library = screen.source
        shown = X[rows]
        seen = shown.getnnz(axis=0) if sparse.issparse(shown) else np.count_nonzero(shown, axis=0)
        genes = np.flatnonzero(seen >= min(_SEEN, 0.1 * len(rows)))
        total, squares = (np.zeros((len(keys), len(genes))) for _ in range(2))
        order = np.searchsorted(keys, sums.part * (batch.max() + 1) + sums.batch)
        np.add.at(total, order, sums.total[:, genes])
        np.add.at(squares, order, sums.squares[:, genes])
        mean = total / n[:, None]
        within = np.maximum(squares - n[:, None] * mean**2, 0.0)
        one = (np.arange(n_groups)[:, None] == group).astype(np.float64)
        freedom = (one @ (n - 1.0))[:, None]
        pooled = within.sum(axis=0) / max(1, len(rows) - len(keys))
        variance = (one @ within + _SHRINKAGE * pooled) / (freedom + _SHRINKAGE)
        typical = np.median(pooled[pooled > 0]) if (pooled > 0).any() else 1.0
        sd = np.sqrt(np.maximum(variance, _FLOOR * typical))
        chosen = np.arange(len(rows))
        if len(rows) > _MOST_CONTROLS:
            chosen = np.sort(np.random.default_rng(seed).choice(chosen, _MOST_CONTROLS, replace=False))
        derivatives = fold_derivatives(X[rows[chosen]][:, genes], None if library is None else library[rows[chosen]])
        each = (members[rows[chosen]] == np.arange(n_groups)[:, None]).astype(np.float64)
        each /= np.maximum(each.sum(axis=1, keepdims=True), 1.0)
        slope, curvature = (to_dense(each @ found) for found in derivatives)
        values = to_dense(screen.expression_at(rows[chosen])[:, genes])
        residuals = (values - mean[strata[chosen]]) / sd[group[strata[chosen]]]
        # as many degrees of freedom were lost as there are strata
        grown = np.sqrt(len(rows) / max(1, len(rows) - len(keys)))
        shrink = np.sqrt(len(chosen) / len(rows)) * grown
        return cls(genes, group, batches, n, mean, sd, slope, curvature, residuals.astype(np.float32), float(shrink))

    def permuted(self, n_draws: int, rng: np.random.Generator) -> np.ndarray:
        """Means of the strata when residuals are dealt out anew, draws x K x G."""
        strata = np.repeat(np.arange(len(self.n)), self.n)[
            np.linspace(0, self.n.sum() - 1, len(self.residuals)).round().astype(int)
        ]
        found = _means(np.stack([rng.permutation(strata) for _ in range(n_draws)]), self.residuals, len(self.n))
        found *= self.shrink * self.sd[self.group]
        return found

    def reference(self, group: np.ndarray, batch: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights of the strata for each cell, and for the mean over the cells of each of the `groups`.

        A cell is compared with the controls of its group and batch, or with all of its group where there are none.
        """
        same = (self.group == group[:, None]) & (self.batch == batch[:, None])
        fallback = (self.group == group[:, None]) & ~same.any(axis=1, keepdims=True)
        weight = (same | fallback) * self.n
        weight = weight / weight.sum(axis=1, keepdims=True)
        return weight, np.stack([weight[group == value].mean(axis=0) for value in groups])


def _means(members: np.ndarray, values: np.ndarray, n_groups: int) -> np.ndarray:
    """Means of cells x genes values in the groups that cells have in each draw (draws x cells), draws x groups x G."""
    one = (members[:, None] == np.arange(n_groups)[:, None]).astype(np.float32)
    size = np.maximum(one.sum(axis=2), 1.0)[..., None]
    found: np.ndarray = (one.reshape(-1, members.shape[1]) @ values).reshape(*one.shape[:2], -1) / size
    return found


class _Condition:
    """Cells of one perturbation in the groups that have enough of them; its `own` targets do not count."""

    def __init__(
        self,
        screen: Screen,
        rows: np.ndarray,
        members: np.ndarray,
        controls: Controls,
        common: np.ndarray,
        own: list[int],
    ) -> None:
        self.groups, code = np.unique(members[rows], return_inverse=True)
        n = np.bincount(code)
        batch = np.zeros(len(rows), dtype=np.int64) if screen.batch is None else screen.batch[rows]
        kept = ~np.isin(controls.genes, own)
        self.kept = kept if kept.any() else np.ones_like(kept)
        genes = controls.genes[self.kept]
        weight, self.reference = controls.reference(members[rows], batch, self.groups)
        values = to_dense(screen.expression_at(rows)[:, genes]) - weight @ controls.mean[:, self.kept]
        self.sd = controls.sd[self.groups][:, self.kept]
        self.shape, self.control_factor = same_fold_change(
            controls.slope[self.groups][:, self.kept], controls.curvature[self.groups][:, self.kept], common[genes]
        )
        noise = 1 / n[:, None] + (self.reference**2 / controls.n).sum(axis=1)[:, None] * self.control_factor**2
        self.precision = 1 / (self.sd**2 * noise)
        self.common, self.code = common[genes], code
        effect = _means(code[None], values, len(n))
        self.observed = self.statistics(effect)[0]
        # what is left when the fold change is the same in all groups, each cell in units of its group
        residuals = (values - (self.shape * self._size(effect)[0])[code]) / self.sd[code]
        square = (residuals**2).sum(axis=0)
        residuals -= residuals.mean(axis=0)
        left = (residuals**2).sum(axis=0)
        self.residuals = (residuals * np.sqrt(square / np.where(left > 0, left, 1.0))).astype(np.float32)

    def _size(self, effect: np.ndarray) -> np.ndarray:
        """Effect that all groups have in common, draws x genes, in the shape of the same fold change."""
        k, h = self.precision, self.shape
        found: np.ndarray = (k * h * effect).sum(axis=1) / (k * h**2).sum(axis=0)
        return found

    def statistics(self, effect: np.ndarray) -> np.ndarray:
        """How far effects, draws x groups x genes, differ: on all genes, and along the common effect; draws x 2."""
        k, h = self.precision, self.shape
        departure = effect - h * self._size(effect)[:, None]
        broad = (k * departure**2).sum(axis=1).mean(axis=1) / max(1, len(k) - 1)
        along = (departure * (k * h * self.common)).sum(axis=2)
        size = (k * (h * self.common) ** 2).sum(axis=1)
        scale = (along**2 / np.where(size > 0, size, np.inf)).sum(axis=1)
        return np.stack([broad, scale], axis=1)

    def null(self, control: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Statistics when cells are dealt out to the groups anew, given the controls' means in each draw."""
        members = np.stack([rng.permutation(self.code) for _ in range(len(control))])
        # Their mean is 0, which in units of the groups is more than an effect common to all: a mean of such cells with
        # random signs takes its place. Where groups are alike, it is common to them, and changes nothing.
        signs = rng.choice(np.array([-1, 1], dtype=np.float32), members.shape) / members.shape[1]
        effect = (_means(members, self.residuals, len(self.groups)) + (signs @ self.residuals)[:, None]) * self.sd
        return self.statistics(effect - self.control_factor * np.matmul(self.reference, control[:, :, self.kept]))


def same_fold_change(slope: np.ndarray, curvature: np.ndarray, common: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How large an effect is in each group when the fold change is the same, up to a factor for each gene.

    A log fold change F changes the mean by ``slope * F + curvature * F**2 / 2`` (groups x genes, of
    :func:`fold_derivatives`), and F is such that this is the `common` effect over all groups. A floor lets genes that
    are hardly expressed have effects alike. The second array is by how much an error of the control mean counts, which
    is in the effect and in what is expected of it.
    """
    fold = np.clip(common / (slope.mean(axis=0) + _FLOOR_OF_SHAPE), -_LARGEST_FOLD, _LARGEST_FOLD)
    shape = np.maximum(slope + 0.5 * curvature * fold, 0.0) + _FLOOR_OF_SHAPE
    factor = 1.0 + fold * np.divide(curvature, slope + _FLOOR_OF_SHAPE)
    return shape, np.clip(factor, 0.0, 3.0)


def fold_derivatives(counts: Matrix, library: np.ndarray | None) -> tuple[Matrix, Matrix]:
    r"""First and second derivative of each cell's expression by the log of its rate, cells x genes like `counts`.

    Counts X are Poisson given their rate :math:`\lambda`, whatever the distribution of rates over cells, so that
    :math:`d E f(X) / d \log \lambda = E X (f(X) - f(X - 1))`. Here :math:`f(X) = \log(1 + s X)`, s being 1e4 over the
    `library` size. Without library sizes the values x are on that scale, and taken to be without noise.
    """
    if library is None:
        values = to_dense(counts)
        return 1.0 - np.exp(-values), np.exp(-values) * (1.0 - np.exp(-values))
    found = sparse.coo_matrix(counts)
    x, scale = found.data.astype(np.float64), 1e4 / library[found.row]

    def value(count: np.ndarray) -> np.ndarray:
        logs: np.ndarray = np.log1p(scale * np.maximum(count, 0.0))
        return logs

    first = x * (value(x) - value(x - 1))
    second = first + x * (x - 1) * (value(x) - 2 * value(x - 1) + value(x - 2))
    place = (found.row, found.col)
    return sparse.csr_matrix((first, place), found.shape), sparse.csr_matrix((second, place), found.shape)


def dependence_test(
    screen: Screen,
    rows: np.ndarray,
    members: np.ndarray,
    conditions: Sequence[int],
    common: np.ndarray,
    targets: Sequence[list[int]],
    *,
    n_groups: int,
    n_permutations: int,
    min_cells: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Statistic and p-value of each condition, NaN where fewer than two groups have `min_cells` of its cells.

    `rows` are the cells to use, `members` the group of every cell; `conditions` are codes of the screen with their
    `common` effects (conditions x genes) and the columns of their own `targets`, which do not count.
    """
    controls = Controls.of(screen, rows, members, n_groups, seed)
    found: dict[int, _Condition] = {}
    for i, code in enumerate(conditions):
        cells = rows[screen.codes[rows] == code]
        enough = np.bincount(members[cells], minlength=n_groups) >= min_cells
        if enough.sum() > 1:
            cells = cells[enough[members[cells]]]
            found[i] = _Condition(screen, cells, members, controls, common[i], targets[i])
    statistic, p = np.full(len(conditions), np.nan), np.full(len(conditions), np.nan)
    null: dict[int, list[np.ndarray]] = {i: [] for i in found}
    starts = range(0, n_permutations, _BLOCK)
    with progress_bar("Permutations", len(starts) * len(found)) as advance:
        for start in starts:
            rng = np.random.default_rng([seed, start])
            control = controls.permuted(min(_BLOCK, n_permutations - start), rng)
            for i, condition in found.items():
                null[i].append(condition.null(control, np.random.default_rng([seed, start, i])))
                advance()
    for i, condition in found.items():
        draws = np.concatenate(null[i])
        both = _surprise(np.vstack([condition.observed, draws]), draws)
        statistic[i], p[i] = both[0], _noise.tail_probability(both[:1], both[1:, None])[0]
    return statistic, p


def _surprise(values: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Sum over statistics of minus the log of their tail probability, by gamma distributions fitted to the draws."""
    total = np.zeros(len(values))
    for value, drawn in zip(values.T, draws.T, strict=True):
        mean, sd = drawn.mean(), drawn.std(ddof=1)
        if sd > 1e-12 * abs(mean):
            total -= stats.pearson3.logsf(value, max(float(stats.skew(drawn)), 0.0), mean, sd).clip(min=-1e4)
    return total
