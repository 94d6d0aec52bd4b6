"""Experiment ``pairing``: does it matter how control and perturbed cells are paired? (sections 4.1, E.4, F.3, F.5)

Two questions for each of the five ways of :func:`raptorgraph.pp.pair_cells`.

*The plan* (table ``pairing_plan``), for all conditions of the screen at given principal components:

- ``cost``: mean squared distance of a cell to its partners. ``nearest`` is the smallest there can be for the controls
  at hand, ``emd`` the smallest that uses all of these controls evenly;
- ``controls used``: distinct controls with a part in the plan of a condition, and ``effective``: the number of evenly
  used controls that would be as diverse, (sum w)^2 / sum w^2 over the weights w of the controls. Few mean that the same
  controls stand for many cells;
- ``partners of a cell``: the same number for the partners of one cell;
- ``variance, sampled`` and ``variance, averaged``: variance (summed over genes) of the partners of the cells of a
  condition, as a part of that of all control cells, when each cell's partner is drawn from the plan, as this package
  does in training, and when the partners are averaged (barycentric projection), which shrinks what the model reads;
- seconds and memory of the pairing, and seconds of the components, which ``random`` does not need.

*The model* (table ``pairing``), trained on control and singles and asked for unseen combinations. The default pairs no
cells, so its losses are left for the published ones (``perturbed_prior=False``). What the pairs enter in differs. The
shift of ``controls alone are encoded`` and the MMD of ``paper`` compare means and samples of a condition's cells in a
batch, so that a pairing only chooses which control cells a condition meets (``random`` draws them uniformly). With
``pair loss`` (``pair_weight`` = 1) each control is also decoded under the perturbation and scored by the likelihood of
its partner. References and metrics are those of ``capacity``; a variance ratio far below 1 is the collapse that the
paper ascribes to random pairs. Printed values: Table S8 (optimal transport is taken for ``emd``) and the later
revision, on other data. Nothing is chosen by these scores.

``raptorgraph benchmark pairing --screen FILE``; ``--methods emd,random`` and ``--set 'presets=["paper"]'`` narrow it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import sparse

from raptorgraph.benchmark import _variants as variants
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._measure import Measured
from raptorgraph.benchmark._report import wide
from raptorgraph.benchmark._settings import Part, Settings, Unit, chosen, units_by_seed
from raptorgraph.pl._figure import BLUE, GRAY, ORANGE
from raptorgraph.pl._panels import dots, name_rows, shared_legend
from raptorgraph.pp import pair_cells
from raptorgraph.pp._pairing import principal_components

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from raptorgraph.benchmark._experiments import Parts, Tables

OPTIONS = ("methods", "presets", "max_epochs", "n_repeats")
METHODS = ("emd", "sinkhorn", "hungarian", "nearest", "random")
PLAN = "plan"
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {  # preset, and arguments of the training plan
    "controls alone are encoded": ("default", {}),
    "controls alone are encoded, pair loss": ("default", {"pair_weight": 1.0}),
    "paper": ("paper", {}),
}
# Table S8: Precision@10 of random pairs and of optimal transport
_TABLE_S8 = {
    "neomorphism": (0.4, 0.4),
    "redundancy": (0.7, 0.8),
    "epistasis": (0.8, 0.9),
    "synergy": (0.5, 0.4),
    "suppression": (0.2, 0.3),
}
# Later revision of the paper: unbiased MK-MMD, seven seeds
_REVISION = {"nearest": 0.124, "hungarian": 0.466, "sinkhorn": 0.116}
_BY = ["preset", "pairing"]
_LIGHT = "#56B4E9"  # a second blue, for the loss on pairs
_COORDINATES = "X_components"
_PLAN_PANELS = {  # title, and what is drawn under which name
    "seconds of the plan": {"seconds": "plan"},
    "squared distance of a pair": {"cost": "plan"},
    "controls used, effective": {"controls used, effective": "plan"},
    "variance of partners / controls": {
        "variance, averaged": "plan, partners averaged",
        "variance, sampled": "plan",
    },
}
_PLAN_STYLES: dict[str, dict[str, Any]] = {
    "plan": {"color": "black", "fmt": "D"},
    "plan, partners averaged": {"color": GRAY, "fmt": "D", "markersize": 7, "markerfacecolor": "none"},
}
_MODEL_PANELS = ("relative MSE", "Pearson", "MK-MMD", *variants.PRECISION.values())


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """For each seed one unit of references, one for each plan, and one for each variant of the model and pairing."""
    variants.unseen_split(load_screen(settings, settings.seeds[0]))
    methods, kinds = chosen(settings, "methods", METHODS), [PLAN, *chosen(settings, "presets", list(VARIANTS))]
    groups = [(variants.REFERENCE, ""), *((kind, name) for kind in kinds for name in methods)]
    return units_by_seed(settings, [(f"{kind}-{name}", {"kind": kind, "pairing": name}) for kind, name in groups])


def work(unit: Unit, settings: Settings) -> Part:
    """Pair the cells and describe the plan, or train with a pairing and score the unseen combinations."""
    screen, kind, pairing = load_screen(settings, unit.seed), unit.options["kind"], unit.options["pairing"]
    if kind == variants.REFERENCE:
        return variants.reference_part(screen, settings, unit.seed, _BY)
    if kind != PLAN:
        preset, plan = VARIANTS[kind]
        method = variants.variant(
            preset,
            unit.seed,
            settings,
            screen,
            model_kwargs={"pairing": pairing, "perturbed_prior": False},
            plan_kwargs=plan,
        )
        return variants.long_part((kind, pairing), variants.fit_and_score(method, screen, settings, unit.seed), _BY)
    with Measured() as components:
        Z = principal_components(screen.expression, seed=unit.seed)
    screen.adata.obsm[_COORDINATES] = Z
    with Measured() as pair:
        pair_cells(screen.adata, method=pairing, use_rep=_COORDINATES, seed=unit.seed, **screen.setup)
    found = plan_facts(screen.adata.obsp["raptorgraph_pairing"], Z, screen.expression, screen.codes)
    found |= {"seconds": pair.seconds, "memory, MB": pair.megabytes, "seconds, components": components.seconds}
    return variants.long_part((kind, pairing), found, _BY)


def plan_facts(
    plan: sparse.csr_matrix, Z: np.ndarray, expression: sparse.spmatrix | np.ndarray, codes: np.ndarray
) -> dict[str, float]:
    r"""Describe a pairing plan, each number as a mean over conditions (the cost: over cells).

    With :math:`p_{ij}` the probability of control j to be the partner of cell i, and
    :math:`w_j = \frac{1}{n} \sum_i p_{ij}` over the n cells of a condition, the partners that are drawn have the
    variance :math:`\sum_j w_j x_j^2 - (\sum_j w_j x_j)^2`, and the averages
    :math:`b_i = \sum_j p_{ij} x_j` of each cell's partners have :math:`\frac{1}{n} \sum_i b_i^2 - (\sum_j w_j x_j)^2`.

    Parameters
    ----------
    plan
        Cells x cells; rows of perturbed cells sum to 1, from :func:`raptorgraph.pp.pair_cells`.
    Z
        Cells x dimensions, the coordinates in which cells were paired.
    expression
        Cells x genes, sparse or dense, of which the variances are taken.
    codes
        Shape (n_cells,): condition of each cell, 0 for control.

    Returns
    -------
    ``cost`` (squared distance in Z), ``controls used``, ``controls used, effective``, ``partners of a cell``,
    ``variance, sampled`` and ``variance, averaged`` (sums over genes, as a part of that of all control cells).
    """
    plan, X = plan.tocsr().astype(np.float64), sparse.csr_matrix(expression, dtype=np.float64)
    Z = np.asarray(Z, dtype=np.float64)
    control = X[codes == 0]
    spread = control.multiply(control).sum() / control.shape[0] - (np.asarray(control.mean(axis=0)) ** 2).sum()
    perturbed = np.flatnonzero(codes != 0)
    size, P = (Z**2).sum(axis=1), plan[perturbed]
    cost = size[perturbed] + P @ size - 2 * (Z[perturbed] * (P @ Z)).sum(axis=1)
    found = []
    for code in np.unique(codes[perturbed]):
        rows = plan[codes == code]
        weight = np.asarray(rows.mean(axis=0)).ravel()
        used = np.flatnonzero(weight)
        partners = X[used]
        mean = weight[used] @ partners
        averaged = rows[:, used] @ partners
        found.append(
            {
                "controls used": len(used),
                "controls used, effective": weight.sum() ** 2 / (weight**2).sum(),
                "partners of a cell": (1 / np.asarray(rows.multiply(rows).sum(axis=1)).ravel()).mean(),
                "variance, sampled": (weight[used] @ partners.multiply(partners)).sum() - (mean**2).sum(),
                "variance, averaged": averaged.multiply(averaged).sum() / rows.shape[0] - (mean**2).sum(),
            }
        )
    facts = pd.DataFrame(found).mean().to_dict()
    for name in ("variance, sampled", "variance, averaged"):
        facts[name] = facts[name] / spread if spread > 0 else float("nan")
    return {"cost": float(cost.mean()), **facts}


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``pairing`` (scores of the model), ``pairing_plan`` (the plans) and ``pairing_long`` (both)."""
    printed = [(variants.PUBLISHED, name, "MK-MMD", value) for name, value in _REVISION.items()]
    for k, name in enumerate(("random", "emd")):
        printed += [
            (variants.PUBLISHED, name, variants.PRECISION[type_], values[k]) for type_, values in _TABLE_S8.items()
        ]
    summary = variants.summarize(parts, _BY, printed)
    is_plan = summary["preset"] == PLAN
    return {
        "pairing": wide(summary[~is_plan], _BY).fillna("-"),
        "pairing_plan": wide(summary[is_plan], ["pairing"]),
        "pairing_long": summary,
    }


def draw(tables: Tables) -> Figure:
    """The plans in the first row; below, the scores of every variant with the references as lines."""
    summary = tables["pairing_long"]
    present = set(summary.loc[summary["preset"] == PLAN, "pairing"])
    methods = [name for name in METHODS if name in present][::-1]
    figure = Figure(figsize=(13, 4 + 0.55 * len(methods)), layout="constrained")
    axes = figure.subplots(3, 4, sharey=True).ravel()
    for ax, (title, shown) in zip(axes, _PLAN_PANELS.items(), strict=False):
        for metric, label in shown.items():
            _dots(ax, summary, PLAN, metric, methods, label=label, **_PLAN_STYLES[label])
        ax.set(title=title, xlim=(0, None))
    styles = {
        f"model, {name}": (name, "o", color) for name, color in zip(VARIANTS, (BLUE, _LIGHT, ORANGE), strict=True)
    }
    styles["published, other data"] = (variants.PUBLISHED, "x", "black")
    for ax, metric in zip(axes[len(_PLAN_PANELS) :], _MODEL_PANELS, strict=True):
        for k, (label, (name, marker, color)) in enumerate(styles.items()):
            _dots(ax, summary, name, metric, methods, 0.3 - 0.2 * k, fmt=marker, color=color, label=label)
        variants.draw_references(ax, summary, metric, horizontal=False)
        ax.set_title(metric)
        if metric in variants.PRECISION.values():
            ax.set_xlim(-0.05, 1.05)
    name_rows(axes, methods)
    for ax in axes:
        ax.title.set_fontsize(10)
    shared_legend(figure)
    return figure


def _dots(
    ax: Axes, summary: pd.DataFrame, preset: str, metric: str, methods: list[str], shift: float = 0.0, **style: Any
) -> None:
    here = summary[(summary["preset"] == preset) & (summary["metric"] == metric)].set_index("pairing")
    if here.index.isin(methods).any():  # else its label would stand in the legend
        dots(ax, here, methods, shift, **style)


PAIRING = Experiment("pairing", "Pairing of control and perturbed cells", OPTIONS, units, work, tables, draw)
