"""The half ``posterior`` of the experiment ``ablation``: parts of the posterior, its intervals, ranking of pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from raptorgraph import metrics
from raptorgraph.benchmark import _variants as variants
from raptorgraph.evaluation._methods import RaptorGraphMethod
from raptorgraph.evaluation._scores import CHANCE, TYPES, interaction_scores, pair_effects
from raptorgraph.evaluation._splits import doubles_folds
from raptorgraph.tl._pair_scores import score_draws

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad

    from raptorgraph.benchmark._settings import Settings
    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.screen import Screen

    Drawn = dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]

DEFAULT = "default"
NOT_TRAINED = {"limit_train_batches": 0}  # arguments of the training
POSTERIOR: dict[str, dict[str, Any]] = {  # arguments of the posterior
    DEFAULT: {},
    "without genes that answer alone": {"independent": False},
    "effects do not follow the graph": {"graph": False},
    "without private transcripts": {"condition_specific": False},
    "without own targets": {"target_effects": False},
    "one noise for all conditions": {"excess_by_condition": False},
    "one scale for all pairs": {"scale_by_condition": False},
    "sums are not expected to overshoot": {"overshoot": False},
    "few directions are not tried": {"few_directions": False},
    "pairs move no genes by themselves": {"sparse_interactions": False},
    "shrunk for all of the noise": {"noise_fraction": 1.0},
    "not set off from the mean": {"constrained": False},
    "posterior mean": {"noise_fraction": 1.0, "constrained": False},
}
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
BY = ["half", "regime", "variant"]
COVERAGE = "coverage of {:.0%}"
_STRONGEST = 0.25  # share of the pairs that count as interacting, as in the experiment ``interactions``


def posterior_rows(screen: Screen, settings: Settings, seed: int) -> pd.DataFrame:
    """Scores of every variant of the posterior in both regimes, and of the rankings: a long table."""
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
            found.append(variants.long_part(("posterior", regime, name), scores, BY).rows)
            if drawn:
                found += _ranking(drawn, screen, regime)
    return pd.concat(found, ignore_index=True)


def _drawn(model: RaptorGraphModel, screen: Screen, test: Sequence[str], settings: Settings, seed: int) -> Drawn:
    """Predicted effects of both genes and of the pair, and the pair's scores in draws of them, by tested pair."""
    order = pd.Index(model.var_names_).get_indexer(screen.adata.var_names)
    n_draws, found = settings.option("n_draws", 50, quick=10), {}
    for label in test:
        genes = screen.genes_of[label]
        if len(genes) == 2:
            three = [*map(screen.single, genes), label]
            effects = model.predict_effects(three).to_numpy(float)[:, order]
            a, b, ab = np.moveaxis(model.sample_effects(three, n_draws, seed)[:, :, order], 1, 0)
            found[label] = effects, score_draws(a, b, ab).scores
    return found


def _ranking(drawn: Drawn, screen: Screen, regime: str) -> list[pd.DataFrame]:
    """Precision@10 of every type, by predicted score, by probability, by additive sums, and by chance."""
    pairs = list(drawn)
    predicted = np.stack([drawn[label][0] for label in pairs], 1)
    draws = {type_: np.stack([drawn[label][1][type_] for label in pairs]) for type_ in TYPES}
    a, b, ab = pair_effects(screen.effects, pairs, screen)
    true = interaction_scores(a, b, ab)
    ways = {
        "score": interaction_scores(*predicted),
        "probability": {type_: _among_strongest(values) for type_, values in draws.items()},
        variants.ADDITIVE: interaction_scores(a, b, a + b),
    }
    rows = {
        name: {type_: metrics.precision_at_k(scores[type_], true[type_], k=10) for type_ in TYPES}
        for name, scores in ways.items()
    }
    rows[CHANCE] = {type_: metrics.chance_precision(true[type_]) for type_ in TYPES}
    return [
        variants.long_part(("ranking", regime, name), {**found, "mean of all": np.mean(list(found.values()))}, BY).rows
        for name, found in rows.items()
    ]


def _among_strongest(scores: np.ndarray) -> np.ndarray:
    """The part of each pair's draws among the strongest quarter of the draws of all pairs, from pairs x draws."""
    share: np.ndarray = (scores > np.nanquantile(scores, 1 - _STRONGEST)).mean(axis=1)
    return share


def _some_cells(screen: Screen, conditions: Sequence[str], seed: int) -> ad.AnnData:
    """Nine tenths of the control cells and of those of each condition, the same for all variants."""
    rng, kept = np.random.default_rng([seed, 4]), []
    for label in [screen.control, *conditions]:
        rows = screen.rows(label)
        kept.append(rng.permutation(rows)[: max(2, round(0.9 * len(rows)))])
    return screen.adata[np.sort(np.concatenate(kept))].copy()


def _posterior_of(train: ad.AnnData, screen: Screen, options: dict[str, Any]) -> RaptorGraphModel:
    """Model with its posterior; the network, which has no part in that, is neither started from it nor trained."""
    arguments = {"effect_posterior": options, "perturbed_prior": False, "pairing": "random"}
    kwargs: dict[str, Any] = {"model_kwargs": arguments, "train_kwargs": NOT_TRAINED}
    return RaptorGraphMethod(max_epochs=1, **kwargs, **screen.setup).fit(train).model


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
        found[COVERAGE.format(level)] = (off < width * np.sqrt(sd**2 + sampling)).mean()
    found["coverage of 90%, intervals alone"] = (off < ndtri(0.95) * sd).mean()
    return found
