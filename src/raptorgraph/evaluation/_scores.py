"""The scores that every method gets, of its effects and of its cells, and the floor and ceiling of the latter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph import metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import anndata as ad

    from raptorgraph.screen import Screen

TOP_GENES = (20, 50, 100)
TYPES = ("synergy", "suppression", "neomorphism", "redundancy", "epistasis")  # of interactions
FLOOR, CEILING = "floor: real against real cells", "ceiling: control against real cells"
HALF, CHANCE = "half of the cells, for the other half", "chance"
_MOST_CELLS, _FEWEST_CELLS = 250, 10


def effect_scores(
    predicted: pd.DataFrame, measured: pd.DataFrame, screen: Screen, fitted: Sequence[str]
) -> dict[str, float]:
    """All scores of effects (:mod:`raptorgraph.metrics` has the definitions).

    Parameters
    ----------
    predicted, measured
        Effects of the same conditions, conditions x genes.
    screen
        The screen. The differential genes of a condition are those of the largest ratio of measured effect to its
        standard error.
    fitted
        Conditions whose measured effects make the centroid of perturbations.

    Returns
    -------
    Name of each score and its value.

    Examples
    --------
    >>> screen = rg.screen.Screen(adata, {"library_size_key": "total_counts"})
    >>> method = rg.evaluation.make_method("additive", screen.setup).fit(screen.cells(screen.singles))
    >>> predicted = method.predict_effects(screen.combinations)
    >>> measured = screen.effects.loc[screen.combinations]
    >>> scores = rg.evaluation.effect_scores(predicted, measured, screen, screen.singles)
    >>> bool(0 < scores["relative_mse"] < 1)
    True
    """
    p, m = predicted.to_numpy(dtype=np.float64), measured.to_numpy(dtype=np.float64)
    centroid = screen.effects.loc[list(fitted)].to_numpy()
    # rounded, so that the centroid itself differs from it by nothing, not by rounding errors
    p_centroid, m_centroid = (metrics.against_centroid(x, centroid).round(9) for x in (p, m))
    found = {
        "relative_mse": metrics.relative_mse(p, m),
        "mse": metrics.mse(p, m),
        "mae": metrics.mae(p, m),
        "pearson_delta": metrics.pearson_delta(p, m),
        "cosine_delta": metrics.cosine_delta(p, m),
        "pearson_delta_centroid": metrics.pearson_delta(p_centroid, m_centroid),
        "cosine_delta_centroid": metrics.cosine_delta(p_centroid, m_centroid),
    }
    rows = [screen.labels.index(label) for label in measured.index]
    t = screen.moments.effect[rows] / np.sqrt(screen.moments.variance[rows])
    for k in TOP_GENES:
        if k < t.shape[1]:
            top = metrics.top_genes(t, k)
            found[f"pearson_delta_top{k}"] = metrics.on_top_genes(metrics.pearson_delta, p, m, top)
            found[f"mse_top{k}"] = metrics.on_top_genes(metrics.mse, p, m, top)
    if len(p) > 1:
        for metric in ("l1", "l2", "cosine"):
            found[f"discrimination_score_{metric}"] = metrics.discrimination_score(p, m, metric)
            found[f"centroid_accuracy_{metric}"] = metrics.centroid_accuracy(p, m, metric)
    return found


def pair_effects(
    effects: pd.DataFrame, pairs: Sequence[str], screen: Screen
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Effects of each pair's first gene, of its second gene, and of the pair, each pairs x genes."""
    firsts, seconds = zip(*(map(screen.single, screen.genes_of[pair]) for pair in pairs), strict=True)
    a, b, ab = (effects.loc[list(labels)].to_numpy(float) for labels in (firsts, seconds, pairs))
    return a, b, ab


def interaction_scores(a: np.ndarray, b: np.ndarray, ab: np.ndarray) -> dict[str, np.ndarray]:
    """The paper's score of every pair for each of `TYPES`, from the arrays of :func:`pair_effects`."""
    return {type_: getattr(metrics, type_)(a, b, ab) for type_ in TYPES}


def gene_overlap(screen: Screen, label: str, drawn: np.ndarray, drift: np.ndarray) -> dict[str, float]:
    """Agreement on which genes are differential, from predicted cells tested as if they were the measured ones.

    Parameters
    ----------
    screen
        The measured cells.
    label
        A condition.
    drawn
        Predicted cells of the condition, cells x genes.
    drift
        Predicted minus measured control mean, shape (n_genes,): taken off, so that the prediction is compared with
        its own control.

    Returns
    -------
    cell-eval's ``overlap_at_50``, ``overlap_at_N``, ``precision_at_N`` and ``de_direction_match``, with Welch's test
    at the measured number of cells in place of Wilcoxon's, and differences of means in place of fold changes.
    """
    real = screen.condition_moments
    code, n = screen.labels.index(label), len(screen.rows(label))
    control = real.mean[0], real.var[0], real.n[0]
    true = metrics.welch_t(real.mean[code], real.var[code], n, *control)
    mean = drawn.mean(axis=0, dtype=np.float64) - drift
    found = metrics.welch_t(mean, drawn.var(axis=0, ddof=1, dtype=np.float64), n, *control)
    change = (mean - real.mean[0])[None], (real.mean[code] - real.mean[0])[None]
    fdr = found.fdr[None], true.fdr[None]
    return {
        "overlap_at_50": metrics.overlap_at_N(*change, *fdr, k=50),
        "overlap_at_N": metrics.overlap_at_N(*change, *fdr),
        "precision_at_N": metrics.precision_at_N(*change, *fdr),
        "de_direction_match": metrics.de_direction_match(*change, fdr[1]),
    }


def cell_scores(
    cells: ad.AnnData,
    screen: Screen,
    drift: np.ndarray,
    *,
    n_cells: int | None = None,
    n_repeats: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Scores of predicted cells beside measured ones.

    Parameters
    ----------
    cells
        Predicted cells on the expression scale, with labels in ``obs["perturbation"]``. Conditions with too few
        measured cells for two samples are skipped.
    screen
        The measured cells.
    drift
        Predicted minus measured control mean, shape (n_genes,).
    n_cells, n_repeats
        Size and number of the samples that are compared; the size is by default half of the smallest combination, from
        10 to 250 cells.
    seed
        Seed of the draws.

    Returns
    -------
    One row for each score: ``condition``, ``metric``, ``value``.

    Examples
    --------
    >>> screen = rg.screen.Screen(adata, {"library_size_key": "total_counts"})
    >>> method = rg.evaluation.make_method("additive", screen.setup).fit(screen.cells(screen.singles))
    >>> cells = method.predict(screen.combinations, n_cells=100)
    >>> scores = rg.evaluation.cell_scores(cells, screen, method.predict_control() - screen.control_mean)
    >>> scores.columns.tolist(), scores["condition"].unique().tolist() == screen.combinations
    (['condition', 'metric', 'value'], True)
    """
    n_cells = sample_size(screen) if n_cells is None else n_cells
    labels = cells.obs["perturbation"].astype("category")
    rows: list[tuple[str, str, float]] = []
    for label in large_enough(screen, labels.cat.categories, n_cells):
        real = screen.expression_of(label)
        drawn = cells[(labels == label).to_numpy()].to_df().to_numpy()
        scores = metrics.sampled_scores(
            drawn, real, n_cells=n_cells, n_repeats=n_repeats, seed=draw_seed(seed, screen, label)
        )
        found = scores.drop(columns="repeat").mean().to_dict()
        found |= {"variance_ratio": metrics.variance_ratio(drawn, real), **gene_overlap(screen, label, drawn, drift)}
        rows += [(label, metric, value) for metric, value in found.items()]
    return pd.DataFrame(rows, columns=["condition", "metric", "value"])


def cell_references(
    screen: Screen, conditions: Iterable[str], *, n_cells: int | None = None, n_repeats: int = 5, seed: int = 0
) -> pd.DataFrame:
    """Floor and ceiling of the scores of cells: real cells, and control cells, beside real cells of a condition.

    Parameters
    ----------
    screen
        The measured cells.
    conditions
        Conditions to score; those with too few cells for two samples are skipped.
    n_cells, n_repeats, seed
        As in :func:`cell_scores`.

    Returns
    -------
    One row for each score: ``method`` (which of the two), ``condition``, ``metric``, ``value``.

    Examples
    --------
    >>> screen = rg.screen.Screen(adata, {"library_size_key": "total_counts"})
    >>> scores = rg.evaluation.cell_references(screen, screen.combinations)
    >>> floor, ceiling = scores[scores["metric"] == "energy_distance"].groupby("method", sort=False)["value"].mean()
    >>> bool(floor < ceiling)
    True
    """
    n_cells = sample_size(screen) if n_cells is None else n_cells
    control, rows = screen.expression_of(screen.control), []
    for label in large_enough(screen, conditions, n_cells):
        found = metrics.floor_and_ceiling(
            screen.expression_of(label),
            control,
            n_cells=n_cells,
            n_repeats=n_repeats,
            seed=draw_seed(seed, screen, label),
        )
        for name, kind in ((FLOOR, "floor"), (CEILING, "ceiling")):
            scores = found[found["reference"] == kind].drop(columns=["reference", "repeat"]).mean()
            rows += [(name, label, metric, value) for metric, value in scores.items()]
    return pd.DataFrame(rows, columns=["method", "condition", "metric", "value"])


def sample_size(screen: Screen) -> int:
    """Number of cells at which cells are compared, the same for all methods and conditions of a screen.

    Half of the smallest combination (so that it has two halves to compare), at least 10 and at most 250; combinations
    of fewer than twice as many cells get no scores of cells.
    """
    return size_of_half(len(screen.rows(label)) for label in screen.combinations or screen.conditions)


def size_of_half(n_cells: Iterable[int]) -> int:
    """Half of the smallest number of cells, at least 10 and at most 250."""
    return int(np.clip(min(n_cells) // 2, _FEWEST_CELLS, _MOST_CELLS))


def large_enough(screen: Screen, labels: Iterable[str], n_cells: int) -> list[str]:
    """Conditions with cells for two samples of that size."""
    return [label for label in labels if len(screen.rows(label)) >= 2 * n_cells]


def draw_seed(seed: int, screen: Screen, label: str) -> int:
    """Seed of the draws of a condition, the same for all methods: each condition draws anew."""
    return int(np.random.SeedSequence([seed, screen.labels.index(label)]).generate_state(1)[0])
