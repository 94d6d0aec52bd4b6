"""Measured effects beside predictions: where they come from, and how far sampling alone moves them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph.pp import format_perturbation, parse_perturbation
from raptorgraph.screen._cell_labels import parse_obs
from raptorgraph.screen._inputs import batch_codes, expression_source
from raptorgraph.screen._moments import effect_moments
from raptorgraph.screen._names import gene_names

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from anndata import AnnData

    from raptorgraph.model import RaptorGraphModel


def spelling(model: RaptorGraphModel) -> dict[str, str | list[str]]:
    """How the labels of the model's screen are written."""
    return {key: model.setup_args[key] for key in ("control", "delimiter")}


def canonical(model: RaptorGraphModel, perturbation: str | Collection[str]) -> str:
    """The label as the model writes it, of one label or the genes of one perturbation."""
    names = spelling(model)
    return format_perturbation(parse_perturbation(perturbation, **names), **names)


def measured_with_error(
    model: RaptorGraphModel, perturbations: Sequence[str] | None = None, adata: AnnData | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measured effects and their standard errors, perturbations x genes of the model.

    Parameters
    ----------
    model
        Says how `adata` is to be read.
    perturbations
        Canonical labels; default all but the control.
    adata
        Cells with labels, control cells among them; default the model's data.

    Returns
    -------
    Two tables of the perturbations that `adata` has, on the expression scale: effects, and the standard errors that
    the numbers of cells, perturbed and control, leave.

    Raises
    ------
    KeyError
        If a gene of the model is not in `adata`.
    ValueError
        If there are no data.
    """
    source = model.adata if adata is None else adata
    if source is None:
        raise ValueError("The model was loaded without data: load it with adata=..., or give the measured cells.")
    setup, names = model.setup_args, spelling(model)
    parsed = parse_obs(source, setup["perturbation_key"], **names, require_control=True)
    labels = [format_perturbation(genes, **names) for genes in parsed.conditions]
    wanted = labels[1:] if perturbations is None else [label for label in labels[1:] if label in set(perturbations)]
    code = np.full(len(labels), -1)
    code[[0, *(labels.index(label) for label in wanted)]] = np.arange(len(wanted) + 1)
    codes = code[parsed.codes]

    X, library = expression_source(source, setup.get("layer"), setup.get("library_size_key"))
    moments = effect_moments(
        X,
        np.maximum(codes, 0),
        len(wanted) + 1,
        library=library,
        batch=batch_codes(source, setup.get("batch_key")),
        rows=np.flatnonzero(codes >= 0),
    )
    index, genes = pd.Index(wanted, name="perturbation"), list(gene_names(source))
    tables = [pd.DataFrame(x[1:], index, genes) for x in (moments.effect, np.sqrt(moments.variance))]
    missing = [gene for gene in model.var_names_ if gene not in tables[0]]
    if missing:
        raise KeyError(f"{len(missing)} genes of the model are not in the measured cells, first {missing[0]!r}.")
    return tables[0][list(model.var_names_)], tables[1][list(model.var_names_)]


def one_measured(
    model: RaptorGraphModel, label: str, measured: AnnData | pd.Series | None
) -> tuple[pd.Series | None, pd.Series | None]:
    """Measured effect of one perturbation and its standard error, each None where it is not known.

    Parameters
    ----------
    model
        A trained model.
    label
        Canonical label.
    measured
        Cells that have the perturbation, or its effect by gene; default the model's data.

    Raises
    ------
    ValueError
        If given cells lack the perturbation.
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
        return model.predict_effects(labels, return_sd=True)
    return model.predict_effects(labels), None
