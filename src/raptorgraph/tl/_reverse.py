"""Reverse search: which perturbations would a model expect behind an observed profile (paper, section D.5)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from raptorgraph._arguments import check_choice, check_integer
from raptorgraph._docs import docs
from raptorgraph._progress import progress_argument, progress_bar
from raptorgraph.screen._asked import meant_label
from raptorgraph.screen._cell_labels import parse_obs
from raptorgraph.screen._effects import measured_effects
from raptorgraph.screen._inputs import expression_source
from raptorgraph.screen._moments import condition_moments
from raptorgraph.screen._names import gene_names, stripped
from raptorgraph.screen._setup import Setup
from raptorgraph.screen._stored import with_columns
from raptorgraph.tl._strongest_pairs import SPARE, TIMES, PairMeans

if TYPE_CHECKING:
    from raptorgraph.model import RaptorGraphModel

_FEW_SETS = 5000  # of more only those are predicted that can be among the nearest
_MOST_DRAWN = 20_000_000  # drawn values at a time, which bounds the memory
_METRICS = {"euclidean": "euclidean", "cosine": "cosine", "pearson": "correlation"}


@progress_argument()
@docs.dedent
def reverse(
    model: RaptorGraphModel,
    query: pd.DataFrame | AnnData,
    *,
    max_genes: int = 2,
    min_genes: int = 1,
    candidates: Sequence[str] | None = None,
    by: Literal["effect", "profile"] = "effect",
    metric: Literal["euclidean", "cosine", "pearson"] = "euclidean",
    exclude_targets: bool = True,
    top: int | None = None,
    chunk_size: int = 256,
    n_draws: int = 0,
    seed: int | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    r"""Rank perturbations by how near their predicted effect comes to a query.

    The model predicts every set of `min_genes` to `max_genes` candidate genes, measured or not, and these are ranked
    by their distance to each query q (RAPTORGraph paper, Eq. S17 and Eq. S18),

    .. math::
        \lVert q - \hat x \rVert_2, \qquad 1 - \cos(q, \hat x) \quad \text{or} \quad 1 - r(q, \hat x),

    over the genes that model and query share.

    Parameters
    ----------
    model
        A trained model, or a fitted baseline.
    query
        Queries x genes, on the expression scale: effects (perturbed minus control) or mean profiles, as `by` says.
        Or cells: each label among them is a query, all cells one query named ``"query"`` where the label column is
        missing. The effect of cells is taken against the control cells among them, or else those of the model.
    max_genes, min_genes
        Largest and smallest number of genes in a perturbation. The paper searches pairs only (2 and 2).
    candidates
        Genes that may have been perturbed; default all perturbed genes of the model.
    by
        ``"effect"`` compares effects, ``"profile"`` compares profiles: the predicted one is the predicted control
        plus the predicted effect, so that an error of the predicted control counts.
    metric
        Distance.
    exclude_targets
        Leave the genes of all candidates out of the distance, so that the readout of the target itself does not
        give the answer away.
    top
        Number of perturbations to list for each query; default all. Where more than 5,000 perturbations of one or two
        genes are searched and the model has a posterior, only those are predicted that can be among them: all single
        genes, all measured pairs, and the pairs that are nearest by approximate predictions in closed form (as in
        :func:`raptorgraph.tl.interactions` with `top`), four times as many as are asked for and at least 500 more.
        Memory is then that of these, and draws are ranked among these.
    chunk_size
        Number of perturbations predicted at a time, which bounds the memory. Beyond it only the distances, queries x
        perturbations, are held (with `n_draws`, draws x queries x perturbations).
    n_draws
        Joint draws of the effects of all perturbations from the posterior
        (:meth:`raptorgraph.RaptorGraphModel.sample_effects`), from which ranks get intervals; 0 for none. They take
        most of the time.
    seed
        Seed of the draws; by default ``scvi.settings.seed``.
    %(progress)s

    Returns
    -------
    pandas.DataFrame
        One row for each query and listed perturbation, the nearest first:

        - ``query``: name of the query;
        - ``perturbation``: canonical label; ``genes``: tuple of its genes, sorted;
        - ``rank``: from 1; perturbations at the same distance share their mean rank, and stay in sorted order;
        - ``distance``: NaN, and ranked last, where it is undefined: a zero effect has no cosine.

        With `n_draws` every draw ranks all perturbations, and the table is a summary of these ranks: ``rank`` and
        ``distance`` are medians over draws, rows are in the order of ``rank`` and then ``distance``, and there are

        - ``rank_low``, ``rank_high``: 5 and 95 % quantiles of the rank;
        - ``best_probability``: the part of the draws in which no other perturbation is nearer.

    Raises
    ------
    KeyError
        If a candidate is not among the perturbed genes, or cells lack genes of the model or a column.
    TypeError
        If the query is neither a table nor an AnnData.
    ValueError
        If there is no perturbation or no query, a query has missing or infinite values, fewer than two genes are
        left for the distance, there are no control cells to compare with, an argument is out of range, or draws are
        asked of a model without a posterior.

    Notes
    -----
    Without draws the question is which prediction lies nearest to the query, which is how the paper looks for the
    perturbation behind a profile. With draws it is which *true* effect does. An effect that was measured is known
    better than one that was not, so that its draws lie less far off: of a measured and an unmeasured perturbation whose
    predictions are as near, the measured one has the lower median distance.

    Examples
    --------
    Which perturbation brought the cells of one condition to their state?

    >>> gene = model.perturbed_genes[0]
    >>> cells = adata[adata.obs["perturbation"] == gene].copy()
    >>> ranked = rg.tl.reverse(model, cells, max_genes=1)
    >>> len(ranked) == len(model.perturbed_genes)
    True

    How sure is that?

    >>> ranked = rg.tl.reverse(model, cells, max_genes=1, n_draws=50, seed=0)
    >>> bool(ranked["rank"].between(ranked["rank_low"], ranked["rank_high"]).all())
    True
    >>> float(round(ranked["best_probability"].sum(), 6))
    1.0
    """
    check_choice("by", by, ("effect", "profile"))
    check_choice("metric", metric, _METRICS)
    check_integer("chunk_size", chunk_size, 1)
    if check_integer("n_draws", n_draws, 0, hint=", and 0 for none"):
        check_draws(model, ", or use n_draws=0")
    if top is not None:
        check_integer("top", top, 1)
    setup = Setup.of(model.setup_args)
    names = _candidate_genes(model.perturbed_genes, candidates, min_genes, max_genes, setup)

    panel = model.predict_effects([setup.label(names[:1])]).columns
    table = query_table(model, setup, query, panel, by)
    excluded = set(names) if exclude_targets else set()
    shared = [gene for gene in panel if gene in table.columns and gene not in excluded]
    if len(shared) < 2:
        raise ValueError(
            f"{len(shared)} genes are left for the distance, of {len(panel)} of the model and {table.shape[1]} of the "
            f"query without {len(excluded)} targets: the columns of the query must be gene names of the model."
        )
    queries = table[shared].to_numpy(dtype=np.float64)
    offset = _predicted_control(model, panel)[shared].to_numpy() if by == "profile" else 0.0

    sizes = range(min_genes, max_genes + 1)
    few = sum(math.comb(len(names), size) for size in sizes) <= _FEW_SETS
    if top is None or few or max_genes != 2 or not getattr(model, "has_posterior", False):
        sets = [chosen for size in sizes for chosen in combinations(names, size)]
    else:
        means = PairMeans.of(model, names, panel.get_indexer(shared))
        near = means.nearest(queries, metric, max(TIMES * top, top + SPARE), offset)
        known = {
            genes for genes in map(setup.genes, model.conditions) if len(genes) == 2 and set(names).issuperset(genes)
        }
        alone = [(name,) for name in names] if min_genes == 1 else []
        sets = [*alone, *sorted(known | {(names[i], names[j]) for i, j in near})]
    labels = [setup.label(genes) for genes in sets]
    extra: dict[str, np.ndarray] = {}
    if n_draws:
        drawn = _drawn_distances(model, labels, shared, queries, offset, metric, n_draws, seed, chunk_size)
        distances, ranks, extra = _summary(drawn)
    else:
        distances = _distances(model, labels, shared, queries, offset, metric, chunk_size)
        ranks = _ranks(distances)
    order = np.lexsort((distances, ranks), axis=1)[:, :top]  # the nearest first, NaN last
    genes = np.empty(len(sets), dtype=object)
    genes[:] = sets

    def listed(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, order, axis=1).ravel()

    return pd.DataFrame(
        {
            "query": np.repeat(table.index.to_numpy(), order.shape[1]),
            "perturbation": np.array(labels, dtype=object)[order].ravel(),
            "genes": genes[order].ravel(),
            "rank": listed(ranks),
            "distance": listed(distances),
            **{name: listed(values) for name, values in extra.items()},
        }
    )


def check_draws(model: Any, instead: str = "") -> None:
    """ValueError where the model has no posterior to draw effects from; `instead` says what else can be done."""
    if not getattr(model, "is_trained", True):
        raise ValueError("The model is not trained: call model.train() first.")
    if not getattr(model, "has_posterior", hasattr(model, "sample_effects")):
        raise ValueError(
            f"{type(model).__name__} has no posterior of the effects to draw from: train a model with "
            f"effect_posterior=True{instead}."
        )


def _distances(
    model: RaptorGraphModel,
    labels: list[str],
    genes: list[str],
    queries: np.ndarray,
    offset: np.ndarray | float,
    metric: str,
    chunk_size: int,
) -> np.ndarray:
    """Distances of the predictions to the queries, queries x perturbations."""
    found = np.empty((len(queries), len(labels)))
    with progress_bar("Perturbations", -(-len(labels) // chunk_size)) as advance:
        for start in range(0, len(labels), chunk_size):
            part = slice(start, start + chunk_size)
            predicted = model.predict_effects(labels[part])[genes].to_numpy(dtype=np.float64) + offset
            found[:, part] = cdist(queries, predicted, metric=_METRICS[metric])
            advance()
    return found


def _drawn_distances(
    model: RaptorGraphModel,
    labels: list[str],
    genes: list[str],
    queries: np.ndarray,
    offset: np.ndarray | float,
    metric: str,
    n_draws: int,
    seed: int | None,
    chunk_size: int,
) -> np.ndarray:
    """Distances of drawn effects to the queries, draws x queries x perturbations.

    The same seed gives the same draw of a perturbation in each call, so that the draws of all chunks are joint.
    """
    panel = model.predict_effects(labels[:1]).columns
    columns = panel.get_indexer(genes)
    chunk_size = max(1, min(chunk_size, _MOST_DRAWN // (n_draws * len(panel))))
    found = np.empty((n_draws, len(queries), len(labels)))
    with progress_bar("Draws", -(-len(labels) // chunk_size)) as advance:
        for start in range(0, len(labels), chunk_size):
            part = slice(start, start + chunk_size)
            drawn = model.sample_effects(labels[part], n_draws, seed)[:, :, columns] + offset
            for row, effects in zip(found, drawn, strict=True):
                row[:, part] = cdist(queries, effects, metric=_METRICS[metric])
            advance()
    return found


def _ranks(distances: np.ndarray) -> np.ndarray:
    """Ranks along the last axis, from 1; ties share their mean rank, NaN come last."""
    return np.asarray(rankdata(np.where(np.isnan(distances), np.inf, distances), axis=-1))


def _summary(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Medians of distances and ranks, the interval of the rank, and how often each perturbation is the nearest."""
    ranks = _ranks(drawn)
    nearest = ranks == ranks.min(axis=2, keepdims=True)
    best = (nearest / nearest.sum(axis=2, keepdims=True)).mean(axis=0)
    low, middle, high = np.quantile(ranks, [0.05, 0.5, 0.95], axis=0)
    return np.median(drawn, axis=0), middle, {"rank_low": low, "rank_high": high, "best_probability": best}


def _candidate_genes(
    perturbed: Sequence[str],
    candidates: Sequence[str] | None,
    min_genes: int,
    max_genes: int,
    setup: Setup,
) -> list[str]:
    """Candidate genes, sorted, of which there are enough for a set."""
    candidates = perturbed if candidates is None else candidates
    if isinstance(candidates, (str, Mapping)) or not isinstance(candidates, Iterable):
        raise TypeError(f"candidates must be a list of genes, not {candidates!r}.")
    candidates = list(candidates)
    wrong = [gene for gene in candidates if not isinstance(gene, str)]
    if wrong:
        raise TypeError(f"candidates must be a list of genes, of which sets are made; {wrong[0]!r} is no gene.")
    genes = sorted({str(gene).strip() for gene in candidates})
    unknown = sorted(set(genes) - set(perturbed))
    if unknown:
        label = meant_label(unknown[0], perturbed, **setup.spelling)
        meant = setup.genes(label) if label else ()  # none, too, where the label is that of the control
        hint = f"; did you mean {', '.join(map(repr, meant))}?" if meant else ""
        raise KeyError(
            f"{unknown[0]!r} is not a perturbed gene of the model; these are {sorted(perturbed)[:20]}{hint or '.'}"
        )
    if check_integer("min_genes", min_genes, 1) > check_integer("max_genes", max_genes, 1):
        raise ValueError(f"min_genes={min_genes!r} and max_genes={max_genes!r} must be min_genes <= max_genes.")
    if len(genes) < min_genes:
        raise ValueError(f"There is no set of {min_genes} genes or more among the {len(genes)} candidates {genes}.")
    return genes


def query_table(
    model: RaptorGraphModel, setup: Setup, query: pd.DataFrame | AnnData, panel: pd.Index, by: str
) -> pd.DataFrame:
    """Queries x genes, of a table or of cells."""
    table = _from_cells(model, setup, query, panel, by) if isinstance(query, AnnData) else query
    _check_queries(table)
    return table.set_axis(stripped(table.columns, "Genes of the query"), axis=1)


def _check_queries(table: pd.DataFrame) -> None:
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"query must be a table of queries x genes or an AnnData, not {type(table).__name__}.")
    if table.empty:
        raise ValueError(f"The query of shape {table.shape} has no rows or no genes.")
    for axis, names in {"Query": table.index, "Gene": table.columns}.items():
        if not names.is_unique:
            raise ValueError(f"{axis} {names[names.duplicated()][0]!r} is there twice.")
    bad = table.index[~np.isfinite(table.to_numpy(dtype=np.float64)).all(axis=1)]
    if len(bad):
        raise ValueError(f"Query {bad[0]!r} has missing or infinite values: drop the genes or fill them.")


def _from_cells(model: RaptorGraphModel, setup: Setup, adata: AnnData, panel: pd.Index, by: str) -> pd.DataFrame:
    """Effects or mean profiles of the labels in `adata`, without the control, labels x genes of the model."""
    names = gene_names(adata)
    if not names.is_unique:
        raise ValueError("var_names of the query are not unique; use adata.var_names_make_unique().")
    missing = panel.difference(names)
    if len(missing):
        raise KeyError(f"{len(missing)} of the model's {len(panel)} genes are not in the query, first {missing[0]!r}.")
    adata = with_columns(adata, names.get_indexer(panel))
    means, control = _mean_profiles(adata, setup), setup.label(())
    profiles = means.drop(index=control, errors="ignore")
    if profiles.empty:
        raise ValueError("All cells of the query are control cells: there is no perturbed profile to explain.")
    if by == "profile":
        return profiles
    if control in means.index:
        keys = ("perturbation_key", "control", "delimiter", "layer", "library_size_key", "batch_key")
        return measured_effects(adata, **{key: setup[key] for key in keys})
    if getattr(model, "adata", None) is None:
        raise ValueError("Neither the query nor the model has control cells: add some to the query, or use effects.")
    return profiles - _mean_profiles(model.adata, setup).loc[control, panel]


def _mean_profiles(adata: AnnData, setup: Setup) -> pd.DataFrame:
    """Mean expression of each label, labels x genes; of all cells as ``"query"`` where there is no label column."""
    if setup.perturbation_key in adata.obs:
        parsed = parse_obs(adata, setup.perturbation_key, **setup.spelling)
        codes, names = parsed.codes, [setup.label(genes) for genes in parsed.conditions]
    else:
        codes, names = np.zeros(adata.n_obs, dtype=np.int64), ["query"]
    X, library = expression_source(adata, setup.layer, setup.library_size_key)
    moments = condition_moments(X, codes, len(names), library=library)
    return pd.DataFrame(moments.mean, index=names, columns=gene_names(adata))[moments.n > 0]


def _predicted_control(model: RaptorGraphModel, panel: pd.Index) -> pd.Series:
    """Mean control profile as the model predicts it, on the expression scale."""
    if hasattr(model, "predict_control"):
        return pd.Series(model.predict_control(), index=panel)
    if model.adata is None:
        raise ValueError("The model was loaded without data: load it with adata=..., or use by='effect'.")
    screen = model.screen
    rows = screen.rows(screen.control)
    total = np.zeros(len(panel))
    for start in range(0, len(rows), 4096):
        cells = screen.adata[rows[start : start + 4096]]
        total += model.get_counterfactual((), cells).sum(axis=0, dtype=np.float64)
    return pd.Series(total / len(rows), index=panel)
