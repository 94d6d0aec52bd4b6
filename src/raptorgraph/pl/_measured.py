"""Measured and predicted effects, with their standard errors and deviations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph.pl._cells import screen_of
from raptorgraph.screen._screen import Screen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from raptorgraph.model import RaptorGraphModel


def measured_with_error(
    model: RaptorGraphModel, perturbations: Sequence[str] | None = None, adata: AnnData | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measured effects and their standard errors, perturbations x genes of the model, on the expression scale.

    `perturbations` are canonical labels, by default all but the control; those that the cells lack are left out. The
    model says how `adata` is read, which has control cells, too, and is by default the model's data. Standard errors
    follow from the numbers of perturbed and of control cells. KeyError if a gene of the model is not in `adata`,
    ValueError if there are no data.
    """
    screen = screen_of(model, ", or give the measured cells.") if adata is None else Screen(adata, model.setup_args)
    genes, index = screen.var_names, pd.Index(screen.labels, name="perturbation")
    missing = [gene for gene in model.var_names_ if gene not in genes]
    if missing:
        raise KeyError(f"{len(missing)} genes of the model are not in the measured cells, first {missing[0]!r}.")
    rows = index[1:] if perturbations is None else index[1:][index[1:].isin(perturbations)]
    moments = screen.moments
    tables = [pd.DataFrame(x, index, genes) for x in (moments.effect, np.sqrt(moments.variance))]
    effects, errors = (table.loc[rows, list(model.var_names_)] for table in tables)
    return effects, errors


def one_measured(
    model: RaptorGraphModel, label: str, measured: AnnData | pd.Series | None
) -> tuple[pd.Series | None, pd.Series | None]:
    """Measured effect of one perturbation and its standard error, each None where it is not known.

    `label` is canonical. `measured` holds cells with the perturbation, or its effect by gene, and is by default the
    model's data. Raises ValueError if given cells lack the perturbation.
    """
    if isinstance(measured, pd.Series):
        return measured, None
    if measured is None and (model.adata is None or label not in model.conditions):
        return None, None
    effects, errors = measured_with_error(model, [label], measured)
    if label not in effects.index:
        raise ValueError(f"The measured cells have no {label!r}: give cells with that perturbation, and control cells.")
    return effects.loc[label], errors.loc[label]


def predicted_with_sd(model: RaptorGraphModel, labels: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Predicted effects, and their standard deviations where the model has a posterior of them."""
    if getattr(model, "has_posterior", False):
        mean, sd = model.predict_effects(labels, return_sd=True)
        return mean, sd
    return model.predict_effects(labels), None
