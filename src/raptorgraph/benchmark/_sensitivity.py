"""Experiment ``sensitivity``: weight of the KL and of the graph's terms (Table S9, section F.6 of the paper).

The published configuration (preset ``paper``) is trained on control and singles with other weights: beta of the KL,
mu of the graph's score, lambda1 of its sparsity. Does a larger beta collapse the posterior, and do mu and lambda1
matter? The grid is the published one, a sweep of beta at mu = 0.27, lambda1 = 0.052 and a cross of three values each.

- ``KL, mean`` and ``KL, sum``: divergence of the posterior to its prior in nats, over control cells, as a mean over
  latents and as their sum. The paper does not say which it prints; it calls 0.001 similar to SENA, whose KL is a mean
  over cells and latents, so the printed values stand beside the mean. The loss of preset ``paper`` weighs the sum.
- ``variance``: of predicted control cells (latents drawn from the posterior, decoded), as a mean over genes, and
  ``variance / data`` as a part of the same number of the measured control cells. Near 0 every cell is predicted alike.
  ``variance / data, means`` takes the means of the posterior in place of draws: what of the variance comes from the
  cell. Neither need fall with the KL, since noise decodes to variance too, which the MMD asks for, and the published
  normalization across latents brings small means back to unit size.
- ``MK-MMD`` (unbiased, bandwidth 200) of unseen combinations, between its floor and ceiling. A collapsed model that
  hits the mean can score as well as one that predicts diverse cells: read it beside the variance.
- ``edges`` of the graph that is left after its threshold. Relative MSE and Pearson are those of ``capacity``.

Printed values are of other data (Norman et al. 2019), without a spread; the first row prints 0.0181 for the KL
as well as for the variance. Nothing is chosen by these scores.

``raptorgraph benchmark sensitivity --screen FILE``; ``--set 'betas=[0, 0.4, 3]'``, ``--set 'mus=[0.1, 0.5]'`` and
``--set 'lambda1s=[0.02]'`` narrow it to the cross of the given values, at beta = 0.4, mu = 0.27 and lambda1 = 0.052
where none is given.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raptorgraph.benchmark import _variants as variants
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._report import as_text
from raptorgraph.benchmark._settings import Part, Settings, Unit, units_by_seed
from raptorgraph.pl._figure import BLUE, GRAY, ORANGE
from raptorgraph.pl._panels import shared_legend

if TYPE_CHECKING:
    from raptorgraph.benchmark._experiments import Parts, Tables
    from raptorgraph.screen import Screen

OPTIONS = ("betas", "mus", "lambda1s", "max_epochs", "n_repeats")
BETAS = (0.0, 0.1, 0.4, 0.8, 1.2, 1.6, 2.0, 2.5, 3.0)
CROSS = ((0.1, 0.4, 0.8), (0.1, 0.27, 0.5), (0.02, 0.05, 0.1))
BETA, MU, LAMBDA1 = 0.4, 0.27, 0.052  # of an option that is not given
DATA = "measured control cells"
TABLE_S9 = pd.read_csv(Path(__file__).with_name("table_s9.csv"))
_S9_METRICS = ("KL, mean", "variance", "MK-MMD")
_BY = ["source", "beta", "mu", "lambda1"]
_OURS = "this package"
# column of the table -> decimals
_SHOWN = {
    "KL, mean": 5,
    "KL, sum": 4,
    "variance": 6,
    "variance / data": 4,
    "variance / data, means": 4,
    "MK-MMD": 3,
    "edges": 1,
    "relative MSE": 3,
    "Pearson": 3,
}
_PANELS = {
    "KL, mean": "KL, mean over latents (nats)",
    "variance": "variance of predicted controls",
    "MK-MMD": "MK-MMD",
    "edges": "edges",
}


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """For each seed one unit of references, and one for each point of the grid."""
    variants.unseen_split(load_screen(settings, settings.seeds[0]))
    points = {f"beta{point[0]:g}-mu{point[1]:g}-lambda{point[2]:g}": {"point": list(point)} for point in grid(settings)}
    return units_by_seed(settings, [(variants.REFERENCE, {}), *points.items()])


def grid(settings: Settings) -> list[tuple[float, float, float]]:
    """Weights (beta, mu, lambda1) to train with; ValueError for one that is no weight.

    The published grid; with options the cross of the given values.
    """
    options = ("betas", "mus", "lambda1s")
    given = [settings.options.get(name) for name in options]
    if all(values is None for values in given):
        if settings.quick:
            return [(beta, MU, LAMBDA1) for beta in (0.0, 0.4, 3.0)]
        return sorted({*product(BETAS, [MU], [LAMBDA1]), *product(*CROSS)})
    axes = []
    for name, values, default in zip(options, given, (BETA, MU, LAMBDA1), strict=True):
        values = [default] if values is None else [values] if isinstance(values, int | float) else list(values)
        for value in values:
            # the path of mu is geometric, and starts above 0
            if not (isinstance(value, int | float) and 0 <= value < np.inf) or (name == "mus" and value == 0):
                least = "above 0" if name == "mus" else "at least 0"
                raise ValueError(f"{name}: {value!r} must be a number {least}.")
        axes.append(sorted({float(value) for value in values}))
    if not all(axes):
        raise ValueError(f"{options[axes.index([])]} is empty: name at least one value.")
    betas, mus, lambda1s = axes
    return list(product(betas, mus, lambda1s))


def work(unit: Unit, settings: Settings) -> Part:
    """Train with these weights, and look at posterior, spread, graph and predictions."""
    screen = load_screen(settings, unit.seed)
    if not unit.options:
        part = variants.reference_part(screen, settings, unit.seed, _BY[:2])
        data = variants.long_part((variants.REFERENCE, DATA), {"variance": _measured_variance(screen)}, _BY[:2])
        rows = pd.concat([part.rows, data.rows], ignore_index=True)
        return Part(rows[~rows["metric"].str.startswith("precision")].assign(mu="-", lambda1="-"))
    beta, mu, lambda1 = unit.options["point"]
    weights = {"kl_weight": beta, "mu": mu, "lambda1": lambda1}
    method = variants.variant("paper", unit.seed, settings, screen, plan_kwargs=weights)
    found = variants.fit_and_score(method, screen, settings, unit.seed)
    kl = method.model.latent_activity()["kl"].to_numpy(float)
    measured = _measured_variance(screen)
    variance = _variance(method.predict(screen.control, seed=unit.seed).X)
    means = _variance(method.reconstruct(screen.adata[screen.codes == 0].copy()))
    found |= {
        "KL, mean": kl.mean(),
        "KL, sum": kl.sum(),
        "variance": variance,
        "variance / data": variance / measured,
        "variance / data, means": means / measured,
        "edges": float(np.count_nonzero(method.model.get_dag())),
    }
    return variants.long_part((_OURS, f"{beta:g}", f"{mu:g}", f"{lambda1:g}"), found, _BY)


def _variance(cells: np.ndarray) -> float:
    """Variance over cells, as a mean over genes."""
    return float(np.var(cells, axis=0, ddof=1, dtype=np.float64).mean())


def _measured_variance(screen: Screen) -> float:
    """Variance of control cells, as a mean over genes."""
    return float(screen.condition_moments.var[0].mean())


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``sensitivity`` (to read, printed values beside) and ``sensitivity_long``."""
    printed = [
        (variants.PUBLISHED, *(f"{weight:g}" for weight in weights), metric, value)
        for (*weights, metric), value in TABLE_S9.set_index(_BY[1:]).stack().items()
    ]
    summary = variants.summarize(parts, _BY, printed)
    return {"sensitivity": _to_read(summary), "sensitivity_long": summary}


def _to_read(summary: pd.DataFrame) -> pd.DataFrame:
    """One row for each trained point of the grid and each reference, printed values in columns of their own."""
    summary = summary[summary["metric"].isin(_SHOWN)]
    text = [
        as_text(mean, sd, _SHOWN[metric])
        for mean, sd, metric in summary[["value_mean", "value_sd", "metric"]].itertuples(index=False)
    ]
    columns = summary["metric"] + np.where(summary["source"] == variants.PUBLISHED, ", published", "")
    points = _BY[1:]
    cells = summary[points].assign(column=columns, text=text)
    shown = summary.loc[summary["source"] != variants.PUBLISHED, points].drop_duplicates()
    order = []
    for metric in _SHOWN:
        order += [metric, f"{metric}, published"] if metric in _S9_METRICS else [metric]
    table = (
        cells.pivot(index=points, columns="column", values="text").fillna("-").reindex(columns=order, fill_value="-")
    )
    return shown.merge(table, left_on=points, right_index=True).reset_index(drop=True)


def draw(tables: Tables) -> Figure:
    """KL, spread, MK-MMD and edges against beta: all points of the grid, ours beside the printed ones."""
    summary = tables["sensitivity_long"]
    figure = Figure(figsize=(11, 7), layout="constrained")
    sources = {_OURS: (BLUE, "o", _OURS), variants.PUBLISHED: (ORANGE, "x", "published, other data")}
    for ax, (metric, title) in zip(figure.subplots(2, 2).ravel(), _PANELS.items(), strict=True):
        here = summary[summary["metric"] == metric]
        for source, (color, marker, label) in sources.items():
            points = here[here["source"] == source]
            if len(points):
                style = {"linestyle": "none", "marker": marker, "color": color, "markersize": 5, "label": label}
                variants.draw_points(ax, points, "beta", **style)
        variants.draw_references(ax, summary, metric, horizontal=True)
        for value in here.loc[here["beta"] == DATA, "value_mean"]:
            ax.axhline(value, color=GRAY, linewidth=1.3, label=DATA, zorder=0)
        if metric in ("KL, mean", "variance"):
            ax.set_yscale("log", nonpositive="clip")
        if metric == "edges":
            ax.set_ylim(-0.5, max(1.0, ax.get_ylim()[1]))
        ax.set(xlabel="beta", ylabel=title)
    shared_legend(figure)
    return figure


SENSITIVITY = Experiment(
    "sensitivity",
    "Sensitivity of the published configuration to the weights of the KL and the graph",
    OPTIONS,
    units,
    work,
    tables,
    draw,
)
