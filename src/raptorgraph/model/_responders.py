"""Guides of one perturbation that disagree, and likelihoods of the share of their cells that responded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import chi2

from raptorgraph._text import counted
from raptorgraph.pp._guides import guides_column
from raptorgraph.screen import Setup
from raptorgraph.screen._checks import Finding, NotChecked, warning
from raptorgraph.screen._guide_effects import FEWEST, guide_effects
from raptorgraph.screen._guides import guide_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from raptorgraph.model import RaptorGraphModel

FDR = 0.05
ENDS = np.linspace(0, 1, 201)
_SHARES = 0.5 * (ENDS[1:] + ENDS[:-1])
_GUIDES = re.compile(r"(s?g_?rna|guide|protospacer)s?(_?(id|identity|name|call)s?)?", re.IGNORECASE)
_MOST_OF_GUIDE = 100  # cells that are looked at in a check


def guide_column(model: RaptorGraphModel) -> str | None:
    """Column of ``obs`` with the guides of each cell; None where there is none that is known.

    It is that of the setup, what :func:`raptorgraph.pp.assign_guides` writes, or else a column with a usual name whose
    values tell more groups of cells apart than the labels do.
    """
    obs, setup = model.cells.data().obs, Setup.of(model.setup_args)
    key = setup.perturbation_key
    known: str | None = setup.guide_key
    if known is not None and known in obs:
        return known
    usual = [str(name) for name in obs.columns if _GUIDES.fullmatch(str(name)) and str(name) != key]
    for name in (guides_column(key), *usual):
        if name in obs and obs[name].notna().any() and obs[name].nunique() > obs[key].nunique():
            return name
    return None


def guides(model: RaptorGraphModel, guide_key: str | None) -> Iterator[Finding]:
    """Guides of one perturbation of which one does something else than the others, on some cells of each."""
    if model.adata is None:
        raise NotChecked("it needs the cells: load(folder, adata)")
    key = guide_column(model) if guide_key is None else guide_key
    if key is None:
        raise NotChecked("no column of obs is known to have the guides: setup_anndata(guide_key=...)")
    table = effects_by_guide(model, guide_names(model.adata, key), most=_MOST_OF_GUIDE, n_resamples=0)
    compared = table.loc[table["p"].notna(), "perturbation"].nunique()
    if not compared:
        raise NotChecked(f"no perturbation has two guides of {FEWEST} cells or more (column {key})")
    apart = table[table["disagrees"]]
    labels = tuple(dict.fromkeys(apart["perturbation"]))
    if labels:
        yield warning(
            f"Guides of {counted(len(labels), 'perturbation')} of {compared:,} disagree",
            "The cells of one guide change less than those of the others, or otherwise: it may not work, or hit "
            "something else. The effect of the perturbation is a mean over all of its guides.",
            f"raptorgraph.tl.guides(model, {key!r}) has the effect, the agreement and the responders of each guide.",
            labels,
            tuple(f"{label} ({', '.join(apart.loc[apart['perturbation'] == label, 'guide'])})" for label in labels),
        )


def effects_by_guide(
    model: RaptorGraphModel,
    names: np.ndarray,
    *,
    most: int,
    n_resamples: int,
    level: float = 0.9,
    seed: int = 0,
) -> pd.DataFrame:
    """Effects of all guides of the model's own cells, along those that the model gives their perturbations.

    Arguments and columns are those of :func:`~raptorgraph.screen._guide_effects.guide_effects`. Of a model without a
    posterior the effects of perturbations are the measured ones.
    """
    screen, along = model.screen, None
    if model.has_posterior:
        along = model.predict_effects(screen.conditions)[list(screen.var_names)]
    return guide_effects(screen, names, along, most=most, n_resamples=n_resamples, level=level, fdr=FDR, seed=seed)


def ratio_of(even: np.ndarray, n_genes: np.ndarray) -> np.ndarray:
    """Likelihood ratio of cells that responded, from their probability where half of the cells do for each gene."""
    prior = 0.5**n_genes
    with np.errstate(divide="ignore"):
        return np.asarray(np.clip(even / (1 - even) * (1 - prior) / np.where(prior < 1, prior, 0.5), 1e-12, 1e12))


def told_of(ratio: np.ndarray) -> float:
    """How far single cells can be told apart, from 0 to 1."""
    return float(np.abs((ratio - 1) / (ratio + 1)).mean())


def disagreement(ratios: list[np.ndarray], told: float) -> float:
    """P value of the test that groups of cells, of these likelihood ratios, have the same share of responders."""
    if len(ratios) < 2:
        return np.nan
    curves = told**2 * np.array([log_likelihood(ratio) for ratio in ratios])
    gained = curves.max(1).sum() - curves.sum(0).max()
    return float(chi2.sf(2 * gained, len(ratios) - 1))


def log_likelihood(ratio: np.ndarray) -> np.ndarray:
    """Log-likelihood of each share on the grid."""
    values: np.ndarray = np.log(_SHARES * ratio[:, None] + 1 - _SHARES).sum(0)
    return values
