"""Experiment ``unseen-genes``: what does an embedding of genes say of genes that nobody perturbed?

Genes that were perturbed alone and have a row in the embedding are divided into folds; of the genes of a fold all
conditions are left out, the others are fitted, and the single effects of the fold are predicted, by

- ``raptorgraph``: :class:`raptorgraph.inference.EffectPosterior` with the embedding;
- ``neighbors``: mean of the ten genes with the most similar rows (cosine), and ``ridge``: ridge regression on the rows,
  its penalty by leave-one-out among the genes that are fitted;
- each of these ``, shuffled``: with the rows of other genes.

``error`` is the sum of squared errors over that of the mean of the fitted single effects. ``held``: share of measured
effects within ``prediction +- 1.645 sqrt(SD^2 + sampling variance)``; ``SD``: mean standard deviation. Columns of
perturbed genes are left out of all. The network is not needed and not trained.

``raptorgraph benchmark unseen-genes --screen FILE --set 'embedding="FILE"'``; the embedding is a ``.csv``, ``.npz`` or
``.gmt`` file as for ``setup_anndata``. A screen may also be a table of effects, ``.npz`` with ``genes``, ``effect``
(genes x readouts) and, if it is known, ``variance``. Simulated screens have an embedding of their own: noisy principal
components of the true effects.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from sklearn.linear_model import RidgeCV

from raptorgraph._arguments import check_integer
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._report import all_rows, in_order, mean_and_sd, wide
from raptorgraph.benchmark._settings import Part, Settings, Unit, units_by_seed
from raptorgraph.inference import EffectPosterior
from raptorgraph.model._gene_embedding import FEWEST, GeneEmbedding
from raptorgraph.pl._panels import dot_panel

if TYPE_CHECKING:
    from raptorgraph.benchmark._experiments import Parts, Tables

OPTIONS = ("embedding", "n_folds")
OURS, NEIGHBORS, RIDGE = "raptorgraph", "neighbors", "ridge"
METHODS = (OURS, NEIGHBORS, RIDGE)
SHUFFLED = ", shuffled"
ERROR, HELD, SD, SHARE = "error", "held", "SD", "share of the embedding"
_Z, _N_NEIGHBORS = 1.645, 10
_LARGE, _N_FIT = 600, 1000  # conditions that are a large table, and those that its prior is learned from
_NOISE = 1 / 30  # of the variance between rows, in tables without their sampling variance
_LATENT_NOISE = 0.3  # SD of the noise of simulated embeddings, over that of their components


@dataclass(frozen=True)
class _Data:
    """Measured effects of conditions and what is known of their genes."""

    genes: list[str]  # perturbed, k
    design: np.ndarray  # conditions x k
    effect: np.ndarray  # conditions x G
    variance: np.ndarray  # conditions x G: sampling variance
    n: np.ndarray  # cells of each condition
    n_controls: int
    targets: np.ndarray  # column of each gene, -1 where it has none
    control_mean: np.ndarray | None
    rows: np.ndarray  # k x features, NaN where a gene has none

    @property
    def testable(self) -> np.ndarray:
        """Genes that were perturbed alone and have a row."""
        alone = self.design[self.design.sum(1) == 1].sum(0) > 0
        return np.flatnonzero(alone & np.isfinite(self.rows).all(1))

    def singles(self, genes: np.ndarray) -> np.ndarray:
        """Conditions in which these genes are perturbed alone, in their order."""
        alone = self.design * (self.design.sum(1) == 1)[:, None]
        return np.asarray(alone[:, genes].argmax(0))


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """One unit for each seed, fold, and kind of embedding."""
    n_folds = check_integer("n_folds", settings.option("n_folds", 10, quick=3), 2)
    data = _load(settings, settings.seeds[0])
    n = len(data.testable)
    if n < n_folds or n - -(-n // n_folds) < FEWEST:
        raise ValueError(
            f"{n} genes were perturbed alone and have a row in the embedding: too few for {n_folds} folds that leave "
            f"{FEWEST} or more to fit; choose another n_folds, or bring both to the same names."
        )
    pieces = [
        (f"fold{fold}{suffix}", {"fold": fold, "suffix": suffix})
        for fold in range(n_folds)
        for suffix in ("", SHUFFLED)
    ]
    return units_by_seed(settings, pieces)


def work(unit: Unit, settings: Settings) -> Part:
    """Leave the genes of a fold out, predict them by every method, and add up squared errors."""
    data, n_folds = _load(settings, unit.seed), settings.option("n_folds", 10, quick=3)
    rng = np.random.default_rng(unit.seed)
    testable = data.testable
    fold = rng.permutation(len(testable)) % n_folds
    rows = data.rows.copy()
    if unit.options["suffix"]:
        rows[testable] = rows[rng.permutation(testable)]
    test = testable[fold == unit.options["fold"]]
    out = data.singles(test)
    columns = np.setdiff1d(np.arange(data.effect.shape[1]), data.targets[data.targets >= 0])
    kept = data.design[:, test].sum(1) == 0
    fitted = np.intersect1d(testable, np.flatnonzero(data.design[kept].sum(0)))
    measured = data.effect[data.singles(fitted)]
    true = data.effect[out][:, columns]
    (mean, sd), share = _by_ours(data, rows, kept, test)
    found = {
        OURS: mean,
        NEIGHBORS: _by_neighbors(rows[fitted], measured, rows[test]),
        RIDGE: RidgeCV(np.logspace(-3, 3, 13)).fit(rows[fitted], measured).predict(rows[test]),
    }
    all_singles = kept & (data.design.sum(1) == 1)
    base = ((data.effect[all_singles].mean(0)[columns] - true) ** 2).sum()
    sums = [(name, ERROR, float(((value[:, columns] - true) ** 2).sum()), float(base)) for name, value in found.items()]
    spread = np.sqrt(sd**2 + data.variance[out])[:, columns]
    covered = np.abs(mean[:, columns] - true) < _Z * spread
    sums += [(OURS, HELD, float(covered.sum()), covered.size), (OURS, SD, float(sd[:, columns].sum()), covered.size)]
    sums += [(OURS, SHARE, share, 1.0)]
    table = pd.DataFrame(sums, columns=["method", "metric", "value", "of"])
    table["method"] += unit.options["suffix"]
    return Part(table)


def _by_ours(
    data: _Data, rows: np.ndarray, kept: np.ndarray, test: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], float]:
    """Mean and SD of the single effects of the genes that are left out, and the share of the embedding."""
    inside = np.flatnonzero(data.design[kept].sum(0))
    design = data.design[kept][:, inside]
    posterior = EffectPosterior()
    control_mean = None if data.control_mean is None else torch.as_tensor(data.control_mean)
    posterior.fit(
        *(torch.as_tensor(values) for values in (design, data.effect[kept], data.variance[kept], data.n[kept])),
        data.n_controls,
        control_mean=control_mean,
        targets=torch.as_tensor(data.targets[inside]),
        embedding=torch.as_tensor(rows[inside]),
        n_fit_conditions=_N_FIT if len(design) > _LARGE else None,
    )
    more = posterior.with_genes(torch.as_tensor(rows[test]), torch.as_tensor(data.targets[test]))
    asked = torch.zeros(len(test), len(inside) + len(test))
    asked[:, len(inside) :] = torch.eye(len(test))
    mean, sd = more.mean_and_sd(asked)
    return (mean.numpy(), sd.numpy()), posterior.embedding_share


def _by_neighbors(rows: np.ndarray, effect: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mean effect of the genes whose rows are most similar, others x G."""
    first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (others, rows))
    nearest = np.argsort(-first @ second.T, axis=1, kind="stable")[:, :_N_NEIGHBORS]
    return np.asarray(effect[nearest].mean(1))


# -- data ------------------------------------------------------------------------------------------------------------
def _load(settings: Settings, seed: int) -> _Data:
    """Effects of a screen or a table, with the rows of their genes."""
    given = settings.options.get("embedding")
    if str(settings.screen).endswith(".npz"):
        return _table(Path(str(settings.screen)), _embedding(given))
    screen = load_screen(settings, seed)
    if given is None and "simulation" not in screen.adata.uns:
        raise ValueError("unseen-genes needs an embedding: --set 'embedding=\"FILE\"' (.csv, .npz or .gmt).")
    genes, moments = list(screen.perturbed_genes), screen.moments
    embedding = _simulated(screen.adata.uns["simulation"]["effects"], seed) if given is None else _embedding(given)
    column = {name: i for i, name in enumerate(screen.adata.var_names)}
    return _Data(
        genes,
        screen.design[1:],
        np.asarray(moments.effect[1:], dtype=float),
        np.asarray(moments.variance[1:], dtype=float),
        np.asarray(moments.n[1:], dtype=float),
        int(moments.n[0]),
        np.array([column.get(gene, -1) for gene in genes]),
        screen.control_mean,
        embedding.rows(genes).astype(float),
    )


def _table(path: Path, embedding: GeneEmbedding) -> _Data:
    with np.load(path) as arrays:
        missing = [name for name in ("genes", "effect") if name not in arrays]
        if missing:
            raise ValueError(f"{str(path)!r} has no array {missing[0]!r}: a table needs 'genes' and 'effect'.")
        genes, effect = [str(name) for name in arrays["genes"]], np.asarray(arrays["effect"], dtype=float)
        noise = np.broadcast_to(_NOISE * effect.var(0), effect.shape)
        variance = np.asarray(arrays["variance"], dtype=float) if "variance" in arrays else noise
    none = np.full(len(genes), -1)
    n = np.full(len(genes), 100.0)  # with controls without noise: the variance is that of each effect alone
    rows = embedding.rows(genes).astype(float)
    return _Data(genes, np.eye(len(genes)), effect, variance.copy(), n, 10**9, none, None, rows)


def _embedding(given: Any) -> GeneEmbedding:
    if given is None:
        raise ValueError("unseen-genes needs an embedding: --set 'embedding=\"FILE\"' (.csv, .npz or .gmt).")
    return GeneEmbedding.of(Path(given) if isinstance(given, str) else given)


def _simulated(effects: pd.DataFrame, seed: int) -> GeneEmbedding:
    """Principal components of the true effects of perturbations, with noise."""
    rng = np.random.default_rng([seed, 2])
    left, size, _ = np.linalg.svd(effects.to_numpy(dtype=float), full_matrices=False)
    components = left[:, :5] * size[:5]
    components += _LATENT_NOISE * components.std() * rng.normal(size=components.shape)
    return GeneEmbedding.of_table(pd.DataFrame(components, index=effects.index))


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``unseen-genes`` (to read) and ``unseen-genes_long``: sums over folds, then mean and SD over seeds."""
    sums = all_rows(parts).groupby(["method", "metric", "seed"], sort=False)[["value", "of"]].sum().reset_index()
    rows = sums.assign(value=sums["value"] / sums["of"])
    methods = [name + suffix for name in METHODS for suffix in ("", SHUFFLED)]
    summary = in_order(mean_and_sd(rows, ["method", "metric"]), method=methods, metric=[ERROR, HELD, SD, SHARE])
    return {"unseen-genes": wide(summary, ["method"]).fillna("-"), "unseen-genes_long": summary}


def draw(tables: Tables) -> Figure:
    """Errors relative to the mean single, of the embedding and of the shuffled one."""
    long = tables["unseen-genes_long"]
    values = long[long["metric"] == ERROR].set_index("method")
    figure = Figure(figsize=(5, 3), layout="constrained")
    methods = list(values.index)
    dot_panel(
        figure.subplots(), values, methods, {"mean single": 1.0}, title="error over that of the mean", labels=True
    )
    return figure


UNSEEN_GENES = Experiment(
    "unseen-genes", "Effects of genes that nobody perturbed, from an embedding", OPTIONS, units, work, tables, draw
)
