"""Experiment ``profile``: one combination in full, gene by gene and cell by cell (Figure 3, section 4.1).

Every method is fitted on control and singles and asked for one measured combination, which it has not seen. The genes
with the largest ratio of measured effect to its standard error show what is predicted and what is not; the cells show
whether they keep the spread of real ones or collapse to their mean, which the paper ascribes to random pairs and mends
by optimal transport: the published configuration is trained with both.

- ``profile``: those genes, their measured effect and standard error, and the effect that each method predicts;
- ``profile_cells``: error and correlation over all genes, and of the cells the ratio of their variance to that of
  measured cells (1 is right, 0 is collapse), MK-MMD and energy distance, between floor (real against real cells) and
  ceiling (control against real cells);
- ``profile_coordinates``: cells of the first seed on the first two principal components of control and measured cells.

``raptorgraph benchmark profile --screen FILE --pair A+B``; by default the combination of the largest effect.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from raptorgraph import metrics
from raptorgraph.baselines import ladder
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._methods import check_methods, chosen_methods, epochs_of, method_of, n_repeats_of
from raptorgraph.benchmark._report import all_rows, as_text, in_order, mean_and_sd, wide
from raptorgraph.benchmark._settings import Part, Settings, Unit, units_by_seed
from raptorgraph.evaluation._methods import MODELS, RaptorGraphMethod
from raptorgraph.evaluation._scores import CEILING, FLOOR, cell_references, cell_scores
from raptorgraph.pl._figure import BLUE, GRAY, ORANGE, PALETTE
from raptorgraph.screen._asked import did_you_mean
from raptorgraph.screen._labels import parse_perturbation

if TYPE_CHECKING:
    from raptorgraph.baselines import Baseline
    from raptorgraph.benchmark._experiments import Parts, Tables
    from raptorgraph.screen import Screen

OPTIONS = ("pair", "methods", "gene_sets", "max_epochs", "n_repeats", "n_genes")
WORK_OPTIONS = ("gene_sets", "max_epochs", "n_repeats")
RANDOM = "raptorgraph paper, random pairs"
METHODS = ("additive", "raptorgraph", "raptorgraph paper", RANDOM, "dVAE", "SENA")
MEASURED, ERROR = "measured", "standard error"
_N_GENES, _FEWEST, _MOST = 20, 10, 250
_OF_CELLS = {"variance_ratio": "variance ratio", "mk_mmd_200": "MK-MMD", "energy_distance": "energy distance"}
_OF_EFFECTS = ("relative MSE", "Pearson")


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """One unit for each method and seed, after a look at the combination."""
    # seeds repeat the training on one screen
    screen = load_screen(settings, settings.seeds[0])
    pair = pair_of(settings, screen)
    if len(screen.rows(pair)) < _FEWEST:
        raise ValueError(
            f"pair: {pair!r} has {len(screen.rows(pair))} cells, too few to compare: name one of {_FEWEST}."
        )
    known = [*METHODS, *_further()] if settings.options.get("methods") else METHODS
    asked = chosen_methods(settings, known)
    check_methods(asked, settings, screen.setup, screen.adata.var_names)
    same = {"pair": pair, "screen": settings.seeds[0]}
    return units_by_seed(settings, [(name, {"method": name, **same}) for name in asked])


def _further() -> list[str]:
    """Methods that are compared where they are named."""
    baselines = [name for name, baseline in ladder().items() if not baseline.needs_doubles]
    return [name for name in [*baselines, *MODELS] if name not in METHODS]


def pair_of(settings: Settings, screen: Screen) -> str:
    """Canonical label of the combination; ValueError where it was not measured, or a gene of it not alone.

    By default that of the largest measured effect, by its length.
    """
    singles = {screen.genes_of[label][0] for label in screen.singles}
    testable = [label for label in screen.combinations if singles.issuperset(screen.genes_of[label])]
    if not testable:
        raise ValueError("The screen has no combination of genes that were perturbed alone too: nothing to show.")
    asked = settings.options.get("pair")
    if asked is None:
        lengths = np.linalg.norm(screen.effects.loc[testable].to_numpy(), axis=1)
        longest: str = testable[int(lengths.argmax())]
        return longest
    label: str = screen.label(parse_perturbation(str(asked), **screen.spelling))
    if label not in testable:
        known = {gene for each in testable for gene in screen.genes_of[each]}
        hint = did_you_mean(str(asked), known, **screen.spelling)
        raise ValueError(
            f"pair: {asked!r} is no measured combination of genes that were perturbed alone too{hint or ';'} there are "
            f"{len(testable)}, such as {', '.join(testable[:3])}."
        )
    return label


def work(unit: Unit, settings: Settings) -> Part:
    """Fit the method, and predict the effect and the cells of the combination."""
    screen, name, pair = load_screen(settings, unit.options["screen"]), unit.options["method"], unit.options["pair"]
    method = _method(name, settings, screen, unit.seed).fit(screen.cells(screen.singles))
    effect = method.predict_effects([pair]).loc[pair]
    drift = method.predict_control() - screen.control_mean
    draws = _draws(settings, screen, pair, unit.seed)
    cells = method.predict([pair], n_cells=draws["n_cells"] * draws["n_repeats"], seed=unit.seed)
    scores = cell_scores(cells, screen, drift, **draws)
    rows = [(metric, value) for _, metric, value in scores.itertuples(index=False, name=None) if metric in _OF_CELLS]
    predicted, measured = effect.to_numpy(float)[None], screen.effects.loc[[pair]].to_numpy()
    rows += [
        (_OF_EFFECTS[0], metrics.relative_mse(predicted, measured)),
        (_OF_EFFECTS[1], metrics.pearson_delta(predicted, measured)),
    ]
    shown = cells[: draws["n_cells"]]
    arrays = ad.AnnData(
        np.vstack([predicted, shown.to_df().to_numpy()]).astype(np.float32),
        obs=pd.DataFrame({"what": ["effect", *["cell"] * shown.n_obs]}, index=np.arange(1 + shown.n_obs).astype(str)),
        var=pd.DataFrame(index=screen.adata.var_names),
    )
    return Part(pd.DataFrame(rows, columns=["metric", "value"]), arrays)


def _method(name: str, settings: Settings, screen: Screen, seed: int) -> Baseline:
    if name != RANDOM:
        return method_of(name, settings, screen.setup, seed)
    how: dict[str, Any] = {"seed": seed, "max_epochs": epochs_of(settings), **screen.setup}
    return RaptorGraphMethod("paper", model_kwargs={"pairing": "random"}, **how)


def _draws(settings: Settings, screen: Screen, pair: str, seed: int) -> dict[str, int]:
    """Size, number and seed of the samples of cells that are compared."""
    n_cells = min(len(screen.rows(pair)) // 2, _MOST)
    return {"n_cells": n_cells, "n_repeats": n_repeats_of(settings), "seed": seed}


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``profile`` (genes, to read), ``profile_cells``, ``profile_long`` and ``profile_coordinates``."""
    screen = load_screen(settings, settings.seeds[0])
    pair = parts[0][0].options["pair"]
    methods = list(dict.fromkeys(unit.options["method"] for unit, _ in parts))
    code = screen.labels.index(pair)
    error = pd.Series(np.sqrt(screen.moments.variance[code]), index=screen.adata.var_names)
    measured = screen.effects.loc[pair]
    n_genes = settings.options.get("n_genes", _N_GENES)
    top = (measured / error).abs().sort_values(ascending=False, kind="stable").index[:n_genes]
    rows = [(0, MEASURED, gene, measured[gene]) for gene in top] + [(0, ERROR, gene, error[gene]) for gene in top]
    for unit, part in parts:
        effect = _arrays(part, screen)[0]
        rows += [(unit.seed, unit.options["method"], gene, effect[gene]) for gene in top]
    by_gene = mean_and_sd(pd.DataFrame(rows, columns=["seed", "method", "gene", "value"]), ["method", "gene"])
    scores = all_rows(parts, "method")
    references = [
        cell_references(screen, [pair], **_draws(settings, screen, pair, seed)).assign(seed=seed)
        for seed in settings.seeds
    ]
    scores = pd.concat([scores, *references], ignore_index=True)
    scores = scores[scores["metric"].isin([*_OF_EFFECTS, *_OF_CELLS])]
    scores["metric"] = scores["metric"].replace(_OF_CELLS)
    by_method = mean_and_sd(scores, ["method", "metric"])
    order = [*methods, FLOOR, CEILING]
    by_method = in_order(by_method, method=order, metric=[*_OF_EFFECTS, *_OF_CELLS.values()])
    return {
        "profile": _to_read(by_gene, pair),
        "profile_cells": wide(by_method, ["method"]).fillna("-").assign(pair=pair),
        "profile_long": by_gene.assign(pair=pair),
        "profile_coordinates": _coordinates(parts, screen, pair, settings.seeds[0]),
    }


def _arrays(part: Part, screen: Screen) -> tuple[pd.Series, pd.DataFrame]:
    """Effect and cells of a part, in the screen's order of genes."""
    assert part.arrays is not None
    table = part.arrays[:, screen.adata.var_names].to_df()
    return table.iloc[0].astype(float), table.iloc[1:]


def _to_read(by_gene: pd.DataFrame, pair: str) -> pd.DataFrame:
    """Genes in rows, the measured effect with its standard error and every method in columns."""
    means = by_gene.pivot(index="gene", columns="method", values="value_mean")
    spread = by_gene.pivot(index="gene", columns="method", values="value_sd")
    genes = list(dict.fromkeys(by_gene["gene"]))
    methods = [name for name in dict.fromkeys(by_gene["method"]) if name not in (MEASURED, ERROR)]
    found = pd.DataFrame({"gene": genes})
    found[f"{pair}, {MEASURED} +- {ERROR}"] = [as_text(means.at[g, MEASURED], means.at[g, ERROR]) for g in genes]
    for name in methods:
        found[name] = [as_text(means.at[g, name], spread.at[g, name]) for g in genes]
    return found


def _coordinates(parts: Parts, screen: Screen, pair: str, seed: int) -> pd.DataFrame:
    """Control, measured and predicted cells on two principal components of the former two together."""
    rng = np.random.default_rng([seed, 5])
    rows = {"control": screen.rows(screen.control), MEASURED: screen.rows(pair)}
    real = {
        name: screen.expression[np.sort(rng.choice(each, min(len(each), _MOST), replace=False))].toarray()
        for name, each in rows.items()
    }
    pca = PCA(n_components=2, svd_solver="full").fit(np.concatenate(list(real.values())))
    predicted = {unit.options["method"]: _arrays(part, screen)[1] for unit, part in parts if unit.seed == seed}
    found = []
    for name, cells in {**real, **{key: table.to_numpy() for key, table in predicted.items()}}.items():
        place = pca.transform(np.asarray(cells, dtype=np.float64))
        found.append(pd.DataFrame({"cells": name, "PC1": place[:, 0], "PC2": place[:, 1]}))
    return pd.concat(found, ignore_index=True)


# -- figure ----------------------------------------------------------------------------------------------------------
def draw(tables: Tables) -> Figure:
    """The genes with their measured and predicted effects, and below the cells of every method."""
    by_gene, places = tables["profile_long"], tables["profile_coordinates"]
    methods = [name for name in dict.fromkeys(by_gene["method"]) if name not in (MEASURED, ERROR)]
    genes = list(dict.fromkeys(by_gene["gene"]))
    n_columns = min(len(methods), 4)
    n_rows = -(-len(methods) // n_columns)
    figure = Figure(figsize=(max(2.8 * n_columns, 9), 4.2 + 2.8 * n_rows), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(4.2, 2.8 * n_rows))
    upper, lower = (figure.add_subfigure(grid[row]) for row in range(2))
    _draw_genes(upper.subplots(), by_gene, methods, genes)
    axes = lower.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True).ravel()
    for ax in axes[len(methods) :]:
        ax.remove()
    for ax, name in zip(axes, methods, strict=False):
        for kind, color in (("control", GRAY), (MEASURED, BLUE), (name, ORANGE)):
            here = places[places["cells"] == kind]
            label = "predicted" if kind == name else kind
            ax.scatter(here["PC1"], here["PC2"], s=6, color=color, alpha=0.5, linewidths=0, label=label)
        ax.set_title(name, fontsize=9)
        ax.tick_params(labelsize=7)
    axes[0].legend(fontsize=7, frameon=False)
    lower.supxlabel("PC1 of control and measured cells", fontsize=9)
    lower.supylabel("PC2", fontsize=9)
    return figure


def _draw_genes(ax: Any, by_gene: pd.DataFrame, methods: list[str], genes: list[str]) -> None:
    """Measured effects with 95 % intervals, and beside them those of every method with their SD over seeds."""
    table = partial(by_gene.pivot, index="gene", columns="method")
    means, spread = table(values="value_mean").loc[genes], table(values="value_sd").loc[genes].fillna(0.0)
    x = np.arange(len(genes))
    ax.errorbar(x, means[MEASURED], yerr=1.96 * means[ERROR], fmt="_", color="black", markersize=9, label=MEASURED)
    for k, name in enumerate(methods):
        shift = (k + 1) * 0.7 / (len(methods) + 1) - 0.35
        color = PALETTE[k % len(PALETTE)]
        ax.errorbar(x + shift, means[name], yerr=spread[name], fmt="o", markersize=3, color=color, label=name)
    ax.axhline(0.0, color=GRAY, linewidth=0.8)
    ax.set_xticks(x, genes, rotation=60, ha="right", fontsize=8)
    ax.set_ylabel("effect, log-normalized", fontsize=9)
    ax.set_title(f"{by_gene['pair'].iloc[0]}, not seen in training", fontsize=10)
    ax.legend(fontsize=7, frameon=False, ncols=2)


PROFILE = Experiment(
    "profile", "One unseen combination, by genes and by cells", OPTIONS, units, work, tables, draw, WORK_OPTIONS
)
