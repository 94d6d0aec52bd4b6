"""Experiment ``ablation``: each part of the default switched off in turn, and how often its intervals cover.

Three tables, since the default has two halves:

- ``posterior``: parts of the hierarchical posterior that predicts mean effects. It is fitted to nine tenths of the
  cells of every condition (drawn anew for each seed, which is what the spread shows) and asked for combinations that
  it has not seen, in the regimes ``singles`` and ``doubles`` of ``prediction``. Coverage is the part of the measured
  effects that lie within an interval, that of the prediction and the sampling error of the measured effect together;
  "intervals alone" leaves the latter out.
- ``ranking``: what the default's intervals are worth for finding interacting pairs, with the half ``posterior``:
  Precision@10 of the paper's five types where pairs are ranked by the scores of the predicted effects, by the
  probability that :func:`raptorgraph.tl.interactions` gives, and by the scores of the sums of the measured singles.
- ``network``: parts of the network that predicts cells, in the regime ``singles``. ``decoder`` scores are of its own
  effects, without the posterior; MK-MMD (bandwidth 200, with floor and ceiling) and ratio of variances are of cells
  with it. ``response SD / mean`` says how much the effect of measured singles differs between control cells: norm over
  genes of its standard deviation, over that of its mean. 0 is mean collapse.

``raptorgraph benchmark ablation --screen FILE --seeds 5``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import ndtri

from raptorgraph import metrics
from raptorgraph.benchmark import _variants as variants
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._methods import epochs_of
from raptorgraph.benchmark._report import all_rows, mean_and_sd, wide
from raptorgraph.benchmark._settings import Part, Settings, Unit, chosen, units_by_seed
from raptorgraph.evaluation._methods import RaptorGraphMethod
from raptorgraph.evaluation._scores import CHANCE, TYPES, interaction_scores, pair_effects
from raptorgraph.evaluation._splits import doubles_folds
from raptorgraph.nn import GraphPathwayEncoder
from raptorgraph.pl._figure import BLUE, GRAY, ORANGE
from raptorgraph.pl._panels import dots, name_rows, shared_legend
from raptorgraph.tl._interactions import drawn_scores, probabilities

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad

    from raptorgraph.benchmark._experiments import Parts, Tables
    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.screen import Screen

    Drawn = dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]

OPTIONS = ("halves", "max_epochs", "n_repeats", "n_folds", "n_draws")
DEFAULT, PAPER = "default", "paper"
POSTERIOR: dict[str, dict[str, Any]] = {  # arguments of the posterior
    DEFAULT: {},
    "without genes that answer alone": {"independent": False},
    "effects do not follow the graph": {"graph": False},
    "without private transcripts": {"condition_specific": False},
    "without own targets": {"target_effects": False},
    "one noise for all conditions": {"excess_by_condition": False},
    "sums are not expected to overshoot": {"overshoot": False},
    "shrunk for all of the noise": {"noise_fraction": 1.0},
    "not set off from the mean": {"constrained": False},
    "posterior mean": {"noise_fraction": 1.0, "constrained": False},
}
NETWORK: dict[str, dict[str, Any]] = {  # arguments of the method
    DEFAULT: {},
    "without graph": {"model_kwargs": {"graph": "fixed"}},
    "graph by DAGMA": {"model_kwargs": {"graph": "dagma"}},
    "without preconditioning": {},
    "random pairing": {"model_kwargs": {"pairing": "random"}},
    "shift starts at 1 SD": {"model_kwargs": {"init_strength": 1.0}},
    "no linear path": {"model_kwargs": {"linear_decoder": False}},
    "no shift loss": {"plan_kwargs": {"shift_weight": 0.0}},
    "no KL": {"plan_kwargs": {"kl_weight": 0.0}},
    "noise drawn anew": {"noise": "new"},
    "no posterior": {"model_kwargs": {"effect_posterior": False}},
    PAPER: {"preset": "paper"},
}
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_BY = ["half", "regime", "variant"]
_COVERAGE = "coverage of {:.0%}"
_NETWORK_SCORES = (
    "decoder, relative MSE",
    "decoder, Pearson",
    "MK-MMD",
    "variance ratio",
    "response SD / mean",
    "active latents",
    "edges",
)


class WithoutPreconditioning(RaptorGraphMethod):
    """The model with an encoder in which every gene reaches every latent."""

    def prepare(self, model: RaptorGraphModel) -> None:
        """Replace the encoder."""
        layer = model.module.encoder.preconditioned
        n_genes = layer.n_targets + layer.weight.shape[1]
        model.module.encoder = GraphPathwayEncoder(n_genes, layer.n_latent, 0, layer.n_subgraphs)


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """For each seed one unit of all variants of the posterior, one of references, and one for each of the network."""
    screen = load_screen(settings, settings.seeds[0])
    variants.unseen_split(screen)
    of_half: dict[str, list[str | None]] = {"posterior": [None], "network": [None, *NETWORK]}
    found = [
        (f"{half}{i}", {"half": half, "variant": name})
        for half in chosen(settings, "halves", list(of_half))
        for i, name in enumerate(of_half[half])
    ]
    return units_by_seed(settings, found)


def work(unit: Unit, settings: Settings) -> Part:
    """Fit the variants of the unit and score them."""
    screen, name = load_screen(settings, unit.seed), unit.options["variant"]
    if unit.options["half"] == "posterior":
        return Part(pd.concat(_posterior(screen, settings, unit.seed), ignore_index=True))
    if name is None:
        rows = variants.reference_part(screen, settings, unit.seed, _BY[1:]).rows
        return Part(rows.assign(half="network"))
    return variants.long_part(("network", "singles", name), _network(name, screen, settings, unit.seed), _BY)


def _posterior(screen: Screen, settings: Settings, seed: int) -> list[pd.DataFrame]:
    splits = {"singles": [variants.unseen_split(screen)]}
    n_folds = settings.option("n_folds", 5, quick=2)
    if len(splits["singles"][0].test) >= n_folds:
        splits["doubles"] = doubles_folds(screen.conditions, n_folds=n_folds, seed=seed, **screen.spelling)
    found = []
    for regime, folds in splits.items():
        for name, options in POSTERIOR.items():
            effects, sds = [], []
            drawn: Drawn = {}
            for split in folds:
                model = _posterior_of(_some_cells(screen, split.refit, seed), screen, options)
                frames = model.predict_effects(list(split.test), return_sd=True)
                effect, sd = (frame[screen.adata.var_names].astype(float) for frame in frames)
                effects.append(effect)
                sds.append(sd)
                if name == DEFAULT:
                    drawn |= _drawn(model, screen, split.test, settings, seed)
            scores = _effect_scores(pd.concat(effects), pd.concat(sds), screen)
            found.append(variants.long_part(("posterior", regime, name), scores, _BY).rows)
            if drawn:
                found += _ranking(drawn, screen, regime)
    return found


def _drawn(model: RaptorGraphModel, screen: Screen, test: Sequence[str], settings: Settings, seed: int) -> Drawn:
    """Predicted effects of both genes and of the pair, and the pair's scores in draws of them, by tested pair."""
    order = pd.Index(model.var_names_).get_indexer(screen.adata.var_names)
    n_draws, found = settings.option("n_draws", 50, quick=10), {}
    for label in test:
        genes = screen.genes_of[label]
        if len(genes) == 2:
            three = [*map(screen.single, genes), label]
            effects = model.predict_effects(three).to_numpy(float)[:, order]
            found[label] = effects, drawn_scores(model.sample_effects(three, n_draws, seed)[:, :, order])
    return found


def _ranking(drawn: Drawn, screen: Screen, regime: str) -> list[pd.DataFrame]:
    """Precision@10 of every type, by predicted score, by probability, by additive sums, and by chance."""
    pairs = list(drawn)
    predicted = np.stack([drawn[label][0] for label in pairs], 1)
    probability = probabilities({type_: np.stack([drawn[label][1][type_] for label in pairs]) for type_ in TYPES})
    a, b, ab = pair_effects(screen.effects, pairs, screen)
    true = interaction_scores(a, b, ab)
    ways = {
        "score": interaction_scores(*predicted),
        "probability": {type_: probability[f"{type_}_probability"].to_numpy() for type_ in TYPES},
        variants.ADDITIVE: interaction_scores(a, b, a + b),
    }
    rows = {
        name: {type_: metrics.precision_at_k(scores[type_], true[type_], k=10) for type_ in TYPES}
        for name, scores in ways.items()
    }
    rows[CHANCE] = {type_: metrics.chance_precision(true[type_]) for type_ in TYPES}
    return [
        variants.long_part(("ranking", regime, name), {**found, "mean of all": np.mean(list(found.values()))}, _BY).rows
        for name, found in rows.items()
    ]


def _some_cells(screen: Screen, conditions: Sequence[str], seed: int) -> ad.AnnData:
    """Nine tenths of the control cells and of those of each condition, the same for all variants."""
    rng, kept = np.random.default_rng([seed, 4]), []
    for label in [screen.control, *conditions]:
        rows = screen.rows(label)
        kept.append(rng.permutation(rows)[: max(2, round(0.9 * len(rows)))])
    return screen.adata[np.sort(np.concatenate(kept))].copy()


def _posterior_of(train: ad.AnnData, screen: Screen, options: dict[str, Any]) -> RaptorGraphModel:
    """Model with its posterior; the network, which has no part in that, is hardly trained."""
    kwargs = {"pairing": "random", "effect_posterior": options}
    return RaptorGraphMethod(max_epochs=1, model_kwargs=kwargs, **screen.setup).fit(train).model


def _effect_scores(effect: pd.DataFrame, sd: pd.DataFrame, screen: Screen) -> dict[str, float]:
    measured = screen.effects.loc[effect.index].to_numpy()
    sampling = screen.moments.variance[[screen.labels.index(label) for label in effect.index]]
    predicted, sd = effect.to_numpy(), sd.to_numpy()
    off = np.abs(predicted - measured)
    found = {
        "relative MSE": metrics.relative_mse(predicted, measured),
        "Pearson": metrics.pearson_delta(predicted, measured),
    }
    if len(predicted) > 1:
        found["discrimination"] = metrics.centroid_accuracy(predicted, measured, "cosine")
    for level in LEVELS:
        width = ndtri(0.5 + level / 2)
        found[_COVERAGE.format(level)] = (off < width * np.sqrt(sd**2 + sampling)).mean()
    found["coverage of 90%, intervals alone"] = (off < ndtri(0.95) * sd).mean()
    return found


def _network(name: str, screen: Screen, settings: Settings, seed: int) -> dict[str, float]:
    arguments = {"preset": "default", "seed": seed, "max_epochs": epochs_of(settings), **NETWORK[name], **screen.setup}
    kind = WithoutPreconditioning if name == "without preconditioning" else RaptorGraphMethod
    method = kind(**arguments)
    split = variants.unseen_split(screen)
    method.fit(screen.cells(split.refit))
    test, genes = list(split.test), screen.adata.var_names
    decoded = method.model.predict_effects(test, kind="decoder")[genes].astype(float)
    measured = screen.effects.loc[test]
    found = {
        "decoder, relative MSE": metrics.relative_mse(decoded, measured),
        "decoder, Pearson": metrics.pearson_delta(decoded, measured),
    }
    found |= variants.cell_scores(method, screen, settings, seed)
    controls = screen.adata[screen.rows(screen.control)[:200]].copy()
    factual = method.model.get_counterfactual(screen.control, controls)
    spreads = []
    for label in screen.singles[:5]:
        response = method.model.get_counterfactual(label, controls) - factual
        spreads.append(np.linalg.norm(response.std(0)) / np.linalg.norm(response.mean(0)))
    return found | {
        "response SD / mean": float(np.mean(spreads)),
        "active latents": float(method.model.latent_activity()["active"].mean()),
        "edges": float(np.count_nonzero(method.model.get_dag())),
    }


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``ablation``, ``ablation_ranking``, ``ablation_network``, and as long tables ``_calibration`` and ``_long``."""
    summary = mean_and_sd(all_rows(parts), [*_BY, "metric"])
    found = {"ablation_long": summary}
    posterior = summary[summary["half"] == "posterior"]
    if len(posterior):
        covered = posterior["metric"].str.startswith("coverage of")
        shown = posterior[~covered | posterior["metric"].str.startswith("coverage of 90%")]
        found["ablation"] = wide(shown, _BY[1:]).fillna("-")
        found["ablation_calibration"] = posterior[covered & (posterior["variant"] == DEFAULT)]
    ranking = summary[summary["half"] == "ranking"]
    if len(ranking):
        found["ablation_ranking"] = wide(ranking.rename(columns={"variant": "ranked by"}), ["regime", "ranked by"])
    network = summary[summary["half"] == "network"]
    if len(network):
        found["ablation_network"] = wide(network[network["metric"].isin(_NETWORK_SCORES)], ["variant"]).fillna("-")
    return found


# -- figures ---------------------------------------------------------------------------------------------------------
def draw(tables: Tables) -> dict[str, Figure]:
    """What each part adds, and the calibration of the intervals."""
    figures, summary = {}, tables["ablation_long"]
    for half, panels in {
        "posterior": ("relative MSE", "Pearson", "discrimination"),
        "network": ("decoder, relative MSE", "MK-MMD", "variance ratio", "response SD / mean"),
    }.items():
        here = summary[(summary["half"] == half) & (summary["regime"] != variants.REFERENCE)]
        if len(here):
            figures["ablation" if half == "posterior" else "ablation_network"] = _panels(here, panels)
    if "ablation_calibration" in tables:
        figures["ablation_calibration"] = _calibration(tables["ablation_calibration"])
    return figures


def _panels(here: pd.DataFrame, panels: Sequence[str]) -> Figure:
    names = list(dict.fromkeys(here["variant"]))[::-1]
    regimes = list(dict.fromkeys(here["regime"]))
    figure = Figure(figsize=(3 + 2.6 * len(panels), 1.2 + 0.3 * len(names)), layout="constrained")
    for ax, metric in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        for i, regime in enumerate(regimes):
            values = here[(here["metric"] == metric) & (here["regime"] == regime)].set_index("variant")
            dots(ax, values, names, 0.12 * (len(regimes) - 1 - 2 * i), color=(BLUE, ORANGE)[i], label=regime)
            if DEFAULT in values.index:
                ax.axvline(values["value_mean"][DEFAULT], color=(BLUE, ORANGE)[i], linestyle=":", linewidth=0.8)
        ax.set_xlabel(metric)
    name_rows(figure.axes, names)
    if len(regimes) > 1:
        shared_legend(figure)
    return figure


def _calibration(covered: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    ax = figure.subplots()
    ax.plot([0.45, 1], [0.45, 1], color=GRAY, linestyle="--", label="ideal")
    names = [_COVERAGE.format(level) for level in LEVELS]
    for (regime, values), color in zip(covered.groupby("regime", sort=False), (BLUE, ORANGE), strict=False):
        values = values.set_index("metric").reindex(names)
        style = {"fmt": "o-", "color": color, "markersize": 4, "label": regime}
        ax.errorbar(LEVELS, values["value_mean"], yerr=values["value_sd"].fillna(0), **style)
    ax.set_xlabel("level of the interval")
    ax.set_ylabel("measured effects within it")
    ax.legend(frameon=False)
    return figure


ABLATION = Experiment("ablation", "What each part of the default adds", OPTIONS, units, work, tables, draw)
