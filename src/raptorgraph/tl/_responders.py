"""Shares of cells that responded to their perturbation, and guides of one perturbation that disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph._arguments import check_number
from raptorgraph._docs import docs
from raptorgraph.model._responders import ENDS, FDR, disagreement, log_likelihood, ratio_of, told_of
from raptorgraph.screen._cell_labels import parse_obs
from raptorgraph.screen._guide_effects import FEWEST
from raptorgraph.screen._guides import guide_names
from raptorgraph.screen._noise import false_discovery_rates
from raptorgraph.screen._setup import Setup

if TYPE_CHECKING:
    from raptorgraph.model import RaptorGraphModel


@docs.dedent
def responders(model: RaptorGraphModel, guide_key: str | None = None, *, level: float = 0.9) -> pd.DataFrame:
    r"""Share of cells that responded, by perturbation and by guide.

    Each cell i has a likelihood ratio :math:`r_i` of having responded to having escaped, with
    :math:`p_i = r_i / (r_i + 1)`, and the log-likelihood of a share s of responders among some cells is
    :math:`\sum_i \log(s r_i + 1 - s)`. It is weighed by the square of how far cells can be told apart, the mean of
    :math:`|2 p_i - 1|`: where that is little, scores that are a bit off would otherwise pass for knowledge. Intervals
    are those of a uniform prior. Guides of a perturbation disagree if shares of their own explain their cells better
    than one share does, by a likelihood ratio test at a false discovery rate of 5 %.

    Parameters
    ----------
    %(model)s
    guide_key
        Column of ``obs`` with the guide of each cell, by default that of the setup: adds a row for each guide, and the
        test.
    level
        Probability of the intervals.

    Returns
    -------
    pandas.DataFrame
        One row for each perturbation, and with a column of guides one more for each of its guides, below it:

        - ``perturbation``, ``guide``: label, and guide (None in rows of all guides);
        - ``n_cells``: number of cells;
        - ``share``: mean of :meth:`~raptorgraph.RaptorGraphModel.get_response_probability`, for guides with that of
          each guide; of a combination the share of cells in which all of its genes responded;
        - ``low``, ``high``: ends of the interval, which is widened to hold the share;
        - ``told``: how far single cells can be told apart, from 0 (not at all: the share says nothing) to 1;
        - ``p``, ``q``: of the test that all guides of the perturbation have the same share, in its own row; NaN where
          fewer than two guides have five cells;
        - ``disagree``: whether q is at most 0.05.

        Without a column of guides the last three and ``guide`` are left out.

    Raises
    ------
    KeyError
        If `guide_key` is no column.
    ValueError
        If `level` is not between 0 and 1, and in a model that was loaded without data.

    Examples
    --------
    >>> found = rg.tl.responders(model)
    >>> found.columns.tolist()
    ['perturbation', 'n_cells', 'share', 'low', 'high', 'told']
    >>> bool((found["share"] > 0.9).all())  # in this screen no cell escaped
    True
    """
    check_number("level", level, 0, 1, above=True)
    if model.adata is None:
        raise ValueError("The model was loaded without data: load(folder, adata) gives it cells.")
    setup = Setup.of(model.setup_args)
    guide_key = setup.guide_key if guide_key is None else guide_key
    guides = None if guide_key is None else guide_names(model.adata, guide_key)
    parsed = parse_obs(model.adata, setup.perturbation_key, **setup.spelling)
    labels = np.array([setup.label(genes) for genes in parsed.conditions], dtype=object)[parsed.codes]
    even = model.get_response_probability(share=0.5).to_numpy()
    ratio = ratio_of(even, np.array([len(genes) for genes in parsed.conditions])[parsed.codes])
    probability = model.get_response_probability().to_numpy()
    by_guide = None if guides is None else model.get_response_probability(guide_key=guide_key).to_numpy()
    found = []
    for label in model.conditions:
        rows = np.flatnonzero(labels == label)
        told = told_of(ratio[rows])
        whole = _row(probability[rows], ratio[rows], told, level)
        if guides is None or by_guide is None:
            found.append({"perturbation": label, **whole})
            continue
        each = {guide: rows[guides[rows] == guide] for guide in sorted(set(guides[rows]) - {None})}
        p = disagreement([ratio[cells] for cells in each.values() if len(cells) >= FEWEST], told)
        found.append({"perturbation": label, "guide": None, **whole, "p": p})
        for guide, cells in each.items():
            of_guide = _row(by_guide[cells], ratio[cells], told, level)
            found.append({"perturbation": label, "guide": guide, **of_guide, "p": np.nan})
    table = pd.DataFrame(found)
    if guides is not None:
        table["q"] = false_discovery_rates(table["p"].to_numpy(dtype=float))
        table["disagree"] = table["q"] <= FDR
    return table


def _row(probability: np.ndarray, ratio: np.ndarray, told: float, level: float) -> dict[str, float]:
    """Number of cells, share, and the shortest interval of the share that holds `level` of its posterior."""
    log_density = told**2 * log_likelihood(ratio)
    density = np.exp(log_density - log_density.max())
    order = np.argsort(-density, kind="stable")
    inside = order[: 1 + np.searchsorted(np.cumsum(density[order]), level * density.sum())]
    share, low, high = float(probability.mean()), ENDS[inside.min()], ENDS[inside.max() + 1]
    return {"n_cells": len(ratio), "share": share, "low": min(low, share), "high": max(high, share), "told": told}
