"""Which cells responded to their perturbation, by our model, by Mixscape and by a simple mixture."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy.special import expit
from sklearn.mixture import GaussianMixture

from raptorgraph.baselines._peer_environments import installed
from raptorgraph.baselines._peer_process import CONTROL, answered, made_of
from raptorgraph.baselines._peers import PEERS
from raptorgraph.baselines.peers import mixscape_adapter
from raptorgraph.benchmark._methods import epochs_of
from raptorgraph.evaluation._methods import RaptorGraphMethod

if TYPE_CHECKING:
    from collections.abc import Callable

    from raptorgraph.benchmark._settings import Settings
    from raptorgraph.screen import Screen

OURS, MIXSCAPE, PROJECTION = "raptorgraph", "Mixscape", "projection"
_TOOL = PEERS["mixscape"]


def mixscape() -> dict[str, Any]:
    """What Mixscape is made of where it is in an environment of its own; nothing where pertpy is installed here.

    ImportError with both ways to have it where there is none, or pertpy fails beside what is installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the many packages that it imports
            import pertpy  # noqa: F401
    except ImportError as error:
        if installed(_TOOL) is None:
            raise ImportError(
                f'{MIXSCAPE} needs pertpy: pip install "raptorgraph[pertpy]", or, in an environment of its own, '
                f"raptorgraph peers install {_TOOL.name} ({error})"
            ) from error
        return made_of(_TOOL, {})
    return {}


def probabilities(name: str, screen: Screen, settings: Settings, seed: int) -> np.ndarray:
    """Probability that each cell responded, shape (n_cells,), by the method of that name; NaN for control cells."""
    methods: dict[str, Callable[[], np.ndarray]] = {
        OURS: lambda: by_ours(screen, settings, seed),
        MIXSCAPE: lambda: by_mixscape(screen, seed),
        PROJECTION: lambda: by_projection(screen, seed),
    }
    return np.where(screen.codes > 0, methods[name](), np.nan)


def by_ours(screen: Screen, settings: Settings, seed: int) -> np.ndarray:
    """Our model, fitted to the screen."""
    method = RaptorGraphMethod(seed=seed, max_epochs=epochs_of(settings), **screen.setup).fit(screen.adata)
    found: pd.Series = method.model.get_response_probability()
    return np.asarray(found.reindex(screen.adata.obs_names), dtype=np.float64)


def by_mixscape(screen: Screen, seed: int) -> np.ndarray:
    """Mixscape with its defaults, on the expression scale, its signature by batch where each has 20 control cells.

    0 for all cells of a condition in which it finds fewer than five differential genes.
    """
    apart = mixscape()
    # it takes labels apart at blanks
    obs = pd.DataFrame({"perturbation": [f"condition{code}" if code else CONTROL for code in screen.codes]})
    obs.index = obs.index.map("cell{}".format)
    if screen.batch is not None:
        obs["batch"] = screen.batch.astype(str)
    var = pd.DataFrame(index=np.asarray(screen.var_names, dtype=object))
    cells = ad.AnnData(screen.expression.copy(), obs=obs, var=var)
    if not apart:
        return mixscape_adapter.responses(cells, seed)
    threads = torch.get_num_threads()
    with answered(_TOOL, cells, {"seed": seed}, log=f"{_TOOL.name}-{os.getpid()}", threads=threads) as answer:
        found = pd.read_csv(answer.folder / "responses.csv", index_col=0)["probability"]
    return np.asarray(found.loc[obs.index], dtype=np.float64)


def by_projection(screen: Screen, seed: int) -> np.ndarray:
    """Cells projected on the measured effect of their condition, split by a mixture of two Gaussians of one width.

    The projection weighs genes by effect over variance in control cells: the linear discriminant of genes that are
    independent. The component that lies farther along the effect has the cells that responded; the mixture starts from
    the mean of control cells and the ninth decile of the condition's.
    """
    found, weights = np.full(len(screen.codes), np.nan), discriminants(screen, screen.effects.to_numpy())
    for label, weight in zip(screen.conditions, weights, strict=True):
        rows = screen.rows(label)
        score = np.asarray(screen.expression_at(rows) @ weight).ravel()
        control = np.asarray(screen.expression_at(screen.rows(screen.control)) @ weight).ravel()
        unit = control.std() or 1.0
        if len(rows) < 2 or not np.ptp(score) > 0:
            found[rows] = 0.0  # nothing to tell cells by
            continue
        score = (score - control.mean())[:, None] / unit
        start = [[0.0], [float(np.quantile(score, 0.9))]]
        mixture = GaussianMixture(2, covariance_type="tied", means_init=start, random_state=seed).fit(score)
        found[rows] = mixture.predict_proba(score)[:, mixture.means_.argmax()]
    return found


def by_truth(screen: Screen, effects: np.ndarray, escaped: float) -> np.ndarray:
    """What the true effects of the conditions, conditions x genes, and the true share of escaping cells tell.

    As :func:`by_projection`, of two Gaussians at the mean of control cells and at the true effect from there, of the
    width of control cells, without anything to be estimated from the cells.
    """
    found, codes = np.full(len(screen.codes), np.nan), screen.codes
    center = screen.control_mean
    for code, (effect, weight) in enumerate(zip(effects, discriminants(screen, effects), strict=True), start=1):
        control = np.asarray(screen.expression_at(np.flatnonzero(codes == 0)) @ weight).ravel()
        score = np.asarray(screen.expression_at(np.flatnonzero(codes == code)) @ weight).ravel()
        shift, variance = effect @ weight, control.var() or 1.0
        log_ratio = shift * (score - center @ weight - shift / 2) / variance
        stayed = 1 - (1 - escaped) ** len(screen.genes_of[screen.labels[code]])
        with np.errstate(divide="ignore"):
            found[codes == code] = expit(log_ratio + np.log(1 - stayed) - np.log(stayed))
    return found


def discriminants(screen: Screen, effects: np.ndarray) -> np.ndarray:
    """Effects over the variance of control cells, conditions x genes; 0 for genes that do not vary there."""
    variance = screen.condition_moments.var[0]
    weight: np.ndarray = np.divide(effects, variance, out=np.zeros_like(effects, dtype=float), where=variance > 0)
    return weight


def signal_to_noise(screen: Screen, effects: np.ndarray) -> np.ndarray:
    """Norm over genes of each effect in standard deviations of a control cell, shape (n_conditions,).

    Genes that do not vary among control cells are left out.
    """
    return np.asarray(np.sqrt((effects * discriminants(screen, effects)).sum(axis=1)))
