"""Guides of one perturbation that disagree: likelihoods of the share of their cells that responded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import chi2, false_discovery_control

from raptorgraph._text import counted
from raptorgraph.model._responding import response_log_ratios
from raptorgraph.screen import Setup
from raptorgraph.screen._checks import Finding, NotChecked, warning
from raptorgraph.screen._inputs import obs_column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from raptorgraph.model import RaptorGraphModel

FDR = 0.05
FEWEST = 5  # cells of a guide that is compared with others
ENDS = np.linspace(0, 1, 201)
_SHARES = 0.5 * (ENDS[1:] + ENDS[:-1])
_GUIDES = re.compile(r"(s?g_?rna|guide|protospacer)s?(_?(id|identity|name|call)s?)?", re.IGNORECASE)
_MOST_CELLS, _MOST_OF_GUIDE, _FEWEST_OF_GUIDE = 8000, 100, 10  # that are looked at in a check, of all and of a guide


def guide_column(model: RaptorGraphModel) -> str | None:
    """Column of ``obs`` with the guides of each cell; None where there is none that is known by its name.

    It is what :func:`raptorgraph.pp.assign_guides` writes, or else a column with a usual name whose values tell more
    groups of cells apart than the labels do.
    """
    obs = model.cells.data().obs
    key = Setup.of(model.setup_args).perturbation_key
    usual = [str(name) for name in obs.columns if _GUIDES.fullmatch(str(name)) and str(name) != key]
    for name in (f"{key}_guides", *usual):
        if name in obs and obs[name].notna().any() and obs[name].nunique() > obs[key].nunique():
            return name
    return None


def guides(model: RaptorGraphModel, guide_key: str | None) -> Iterator[Finding]:
    """Guides of one perturbation of which one works and another does not, on some cells of each."""
    if model.adata is None:
        raise NotChecked("it needs the cells: load(folder, adata)")
    key = guide_column(model) if guide_key is None else guide_key
    if key is None:
        raise NotChecked("no column of obs is known to have the guides: diagnose(guide_key=...)")
    names = obs_column(model.adata, key, "guide_key").astype(str).to_numpy()
    screen = model.screen
    most = int(np.clip(_MOST_CELLS / len(np.unique(names)), _FEWEST_OF_GUIDE, _MOST_OF_GUIDE))
    rng = np.random.default_rng(0)
    chosen: dict[str, list[np.ndarray]] = {}
    for label in screen.conditions:
        rows = screen.rows_by_name(label)
        each = [rows[names[rows] == guide] for guide in np.unique(names[rows])]
        each = [np.sort(rng.permutation(cells)[:most]) for cells in each if len(cells) >= FEWEST]
        if len(each) > 1:
            chosen[label] = each
    if not chosen:
        raise NotChecked(f"no perturbation has two guides of {FEWEST} cells or more (column {key})")
    used = np.sort(np.concatenate([cells for each in chosen.values() for cells in each]))
    row, _, log_ratio = response_log_ratios(model.predictor, model.cells.query(), used)
    even = np.full(len(names), np.nan)
    even[used] = 1.0
    np.multiply.at(even, row, 1 / (1 + np.exp(-np.clip(log_ratio, -30, 30))))
    ratio = ratio_of(even, screen.n_perturbed[screen.codes])
    p = [
        disagreement([ratio[cells] for cells in each], told_of(ratio[np.concatenate(each)])) for each in chosen.values()
    ]
    apart = [label for label, q in zip(chosen, false_discovery_control(p), strict=True) if q <= FDR]
    if apart:
        yield warning(
            f"Guides of {counted(len(apart), 'perturbation')} of {len(chosen):,} disagree",
            "The cells of one guide respond, those of another respond less or not at all: one of them may not work, or "
            "hit something else. The effect of the perturbation is a mean over both.",
            f"Look at their cells apart: raptorgraph.tl.responders(model, {key!r}) has the share of each guide.",
            tuple(apart),
        )


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
