"""Checks of the predicted effects: against what was measured, and against adding effects up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from raptorgraph._text import counted
from raptorgraph.screen import Screen
from raptorgraph.screen._checks import NOTE, WARNING, Finding, NotChecked, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.model._types import Data

_MISFIT = 1.5  # mean square of standardized effects, of which 1 is expected at most
_FEWEST = 3  # combinations from which a standard error comes
_MUCH_WORSE = 0.1  # of the squared size of the effects, where there are fewer


# -- predictive checks -------------------------------------------------------------------------------------------------
def posterior(model: RaptorGraphModel, screen: Screen | None) -> Iterator[Finding]:
    """Measured effects that the posterior does not expect."""
    if not model.has_posterior:
        raise NotChecked("the model has no posterior of the effects (effect_posterior=False, preset 'paper')")
    misfit = standardized(model, screen)
    bad = misfit[misfit > _MISFIT].sort_values(ascending=False, kind="stable")
    if len(bad):
        yield Finding(
            WARNING if len(bad) > len(misfit) / 10 else NOTE,
            f"{counted(len(bad), 'perturbation')} whose measured effect the posterior does not expect",
            "Over all genes, the measured effect is farther from the predicted one than the standard deviations and "
            "the noise of sampling cells allow; intervals of these perturbations are too narrow.",
            "Look at the cells: they may be mislabeled, of several kinds, or of another experiment than those that the "
            "model was trained on.",
            tuple(bad.index),
            tuple(f"{label} ({np.sqrt(value):.1f} standard deviations)" for label, value in bad.items()),
        )


def standardized(model: RaptorGraphModel, screen: Screen | None) -> pd.Series:
    """Mean square over genes of the measured effect less the predicted one, in standard deviations of both together.

    Measured are the effects in `screen`, or without one those that the posterior was fitted to. The posterior has seen
    them, so that values are below 1 where it fits.
    """
    effects = model.module.effects
    assert effects is not None
    if screen is None:
        measured = effects.fitted.measured
        design, effect, conditions = measured.design, measured.effect, None
        of_batches = measured.control_loadings.square().sum(1)
        noise = torch.outer(measured.condition_noise + measured.control_noise + of_batches, measured.gene_noise)
    else:
        found = screen.moments
        columns = screen.var_names.get_indexer(model.cells.var_names)
        design, conditions = torch.as_tensor(_masks(model, screen, screen.conditions)), screen.conditions
        effect, noise = (torch.as_tensor(x[1:][:, columns]) for x in (found.effect, found.variance))
    if conditions is None:
        setup, genes = model.cells.setup, np.asarray(model.perturbed_genes)
        conditions = [setup.label(genes[row > 0]) for row in design.numpy()]
    mean, sd = effects.mean_and_sd(design)
    square = ((effect - mean) ** 2 / (sd**2 + noise).clamp_min(1e-300)).mean(1)
    return pd.Series(square.numpy(), index=pd.Index(conditions, name="perturbation"))


def _masks(model: RaptorGraphModel, screen: Screen, labels: list[str]) -> np.ndarray:
    """Perturbed genes of some conditions in the order of the model, 0 or 1."""
    place = {gene: j for j, gene in enumerate(model.perturbed_genes)}
    masks = np.zeros((len(labels), len(place)))
    for row, label in zip(masks, labels, strict=True):
        row[[place[gene] for gene in screen.genes_of[label]]] = 1.0
    return masks


# -- held-out combinations ---------------------------------------------------------------------------------------------
def held_out_predictions(model: RaptorGraphModel, held_out: Data | None) -> Iterator[Finding]:
    """Combinations that were not trained on, and that adding up predicts better."""
    errors = held_out_errors(model, held_out)
    difference = errors["model"] - errors["sum"]
    se = float(difference.std() / np.sqrt(len(errors))) if len(errors) >= _FEWEST else _MUCH_WORSE / 2
    if difference.mean() > 2 * se:
        worse = difference[difference > 0].sort_values(ascending=False, kind="stable")
        yield warning(
            f"Adding effects up predicts {counted(len(errors), 'combination')} that the fit had not seen better",
            f"The relative squared error of the model is {errors['model'].mean():.2f}, that of the sum of measured "
            f"single effects {errors['sum'].mean():.2f}.",
            "Prefer the sum for combinations in this screen: raptorgraph.baselines.",
            tuple(worse.index),
        )


def held_out_errors(model: RaptorGraphModel, held_out: Data | None) -> pd.DataFrame:
    """Relative squared errors of predictions and of sums of single effects, of combinations that the fit had not seen.

    They are combinations whose genes were trained on alone: in `held_out`, or else in the model's own data, of which
    all cells were left out of the training. :class:`NotChecked` where there are none.
    """
    trained = _trained_rows(model)
    screen = model.screen if model.adata is not None else None
    known = set(model.conditions)
    if screen is not None and trained is not None:
        known = {screen.labels[code] for code in np.unique(screen.codes[trained])}
    if held_out is not None:
        cells = Screen(model.cells.data(held_out, labels=True), model.cells.setup)
    elif screen is not None:
        cells = screen
    else:
        raise NotChecked("it needs cells of combinations that were left out of the training: diagnose(held_out=...)")
    single = {gene: model.cells.setup.label([gene]) for gene in model.perturbed_genes}
    labels = [
        label
        for label in cells.combinations
        if label not in known and all(single.get(gene) in known for gene in cells.genes_of[label])
    ]
    if not labels:
        raise NotChecked("no combination of genes that were perturbed alone was left out of the training")
    names = list(model.cells.var_names)
    truth = cells.effects.loc[labels, names].to_numpy()
    predicted = model.predict_effects(labels).to_numpy(dtype=float)
    singles = _single_effects(model, screen, trained)
    added = np.array([singles.loc[[single[gene] for gene in cells.genes_of[label]]].sum() for label in labels])
    size = np.maximum((truth**2).sum(1), 1e-300)
    return pd.DataFrame(
        {name: ((x - truth) ** 2).sum(1) / size for name, x in (("model", predicted), ("sum", added))},
        index=pd.Index(labels, name="perturbation"),
    )


def _trained_rows(model: RaptorGraphModel) -> np.ndarray | None:
    """Rows of the cells that were used in training; None where that is not known, and for all."""
    left = model.test_indices_
    if model.adata is None or left is None or not len(left):
        return None
    return np.setdiff1d(np.arange(model.adata.n_obs), np.asarray(left))


def _single_effects(model: RaptorGraphModel, screen: Screen | None, trained: np.ndarray | None) -> pd.DataFrame:
    """Measured effects of the conditions that were trained on, conditions x genes of the model."""
    names = list(model.cells.var_names)
    if screen is not None:
        return (screen.effects if trained is None else screen.effects_of(trained))[names]
    if not model.has_posterior:
        raise NotChecked("it needs the effects of single perturbations: load the model with its data")
    measured = model.module.effects.fitted.measured
    setup, genes = model.cells.setup, np.asarray(model.perturbed_genes)
    labels = [setup.label(genes[row > 0]) for row in measured.design.numpy()]
    return pd.DataFrame(measured.effect.numpy(), index=labels, columns=names)
