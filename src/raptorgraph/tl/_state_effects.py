"""Which effects depend on the state of the cells, and in which state they are how large."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import norm

from raptorgraph._arguments import check_integer
from raptorgraph._docs import docs
from raptorgraph.model._group_effects import infer_groups
from raptorgraph.screen import Setup
from raptorgraph.screen._noise import false_discovery_rates
from raptorgraph.tl._group_test import dependence_test

if TYPE_CHECKING:
    from collections.abc import Iterable

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.model._types import Perturbations

_MIN_CELLS = 3  # of a perturbation in a group that takes part in the test
_NINE_TENTHS = norm.ppf(0.95)


@docs.dedent
def state_effects(
    model: RaptorGraphModel,
    groupby: str,
    perturbations: Perturbations | None = None,
    *,
    n_permutations: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Test whether effects depend on the group of the cells, and estimate how large they are in each.

    Parameters
    ----------
    %(model)s
    groupby
        Column of ``model.adata.obs`` with groups of cells, such as a state, a cell type or a donor.
    perturbations
        Measured perturbations, labels or tuples of genes; by default all.
    n_permutations
        Permutations of the test, at least 20.
    seed
        Seed of the permutations.

    Returns
    -------
    pandas.DataFrame
        One row for each perturbation; ``attrs["groupby"]`` and ``attrs["groups"]`` name the groups.

        - ``perturbation``: its label;
        - ``statistic``, ``p_value``, ``FDR``: the test, with rates of Benjamini and Hochberg over the table; NaN where
          fewer than two groups have three cells of the perturbation;
        - ``dependence``, ``dependence_low``, ``dependence_high``: share of the squared length of the effects that
          differs between groups, from 0 for one effect in all groups, with a 90 % interval. An effect that is there
          in one of two groups alone has a half;
        - for each group ``scale_<group>``, ``scale_<group>_low``, ``scale_<group>_high``: size of the effect there, as
          a multiple of the effect in all groups, with a 90 % interval; ``n_cells_<group>``: its perturbed cells.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If the model has no data or no posterior of the effects, a perturbation was not measured, or the column has
        missing or continuous values, groups with fewer than two controls, or names by which two columns of the table
        would be the same.

    Notes
    -----
    Dependence and scales are those of :func:`raptorgraph.inference.infer_group_effects`, with which
    ``model.predict_effects(..., groupby=...)`` gives the effects themselves.

    The test does not use them. States differ without any perturbation, so each cell is compared with the controls of
    its own group (and batch, where there are controls in it). The hypothesis is that the fold change is the same in all
    groups, which on the expression scale makes less of a difference where a gene is expressed less (by slope and
    curvature of the mean of the controls' counts). Under it what is left of a cell after its group's controls and that
    effect, in units of the standard deviation of the group's controls, has the same distribution in every group: it is
    dealt out to the groups anew, and so are the controls' residuals, whose noise is in every comparison. Two statistics
    are compared with these permutations: the mean over genes of the squared difference between groups in units of its
    variance, which sees any difference, and the same along the common effect, which sees from few cells an effect that
    is larger in one group than in another. ``statistic`` is the sum of minus the logarithms of their tail
    probabilities, and the p-value that of this sum among the permutations (beyond the largest, of a gamma distribution
    fitted to them). The perturbed genes themselves do not count.

    Dependence and scales are of effects on the expression scale, on which the same fold change is larger where a gene
    is expressed more.

    Examples
    --------
    >>> model.adata.obs["half"] = np.resize(["first", "second"], model.adata.n_obs)
    >>> table = rg.tl.state_effects(model, "half", ["P01", "P02"], n_permutations=50)
    >>> table[["perturbation", "n_cells_first", "n_cells_second"]].to_numpy().tolist()
    [['P01', 36, 44], ['P02', 35, 45]]
    """
    check_integer("n_permutations", n_permutations, 20)
    check_integer("seed", seed, 0)
    if model.adata is None:
        raise ValueError("The model was loaded without data: load it with adata=...")
    labels = _measured(model, perturbations)
    found = infer_groups(model.predictor, groupby)
    _check_columns(groupby, found.groups)
    row = {label: i for i, label in enumerate(found.screen.conditions)}
    rows = [row[label] for label in labels]
    column = dict(zip(model.perturbed_genes, model.target_columns.tolist(), strict=True))
    effects = found.effects
    statistic, p = dependence_test(
        found.screen,
        found.rows,
        found.members,
        [i + 1 for i in rows],
        effects.center[rows],
        [[column[gene] for gene in found.screen.genes_of[label]] for label in labels],
        n_groups=len(found.groups),
        n_permutations=n_permutations,
        min_cells=_MIN_CELLS,
        seed=seed,
    )
    columns = {
        "perturbation": labels,
        "statistic": statistic,
        "p_value": p,
        "FDR": false_discovery_rates(p),
        "dependence": effects.dependence[rows],
        "dependence_low": effects.dependence_low[rows],
        "dependence_high": effects.dependence_high[rows],
    }
    for s, group in enumerate(found.groups):
        scale, half = effects.scale[rows, s], _NINE_TENTHS * effects.scale_sd[rows, s]
        columns |= {
            f"scale_{group}": scale,
            f"scale_{group}_low": scale - half,
            f"scale_{group}_high": scale + half,
            f"n_cells_{group}": found.measured.n_cells[rows, s].astype(np.int64),
        }
    table = pd.DataFrame(columns)
    table.attrs = {"groupby": groupby, "groups": [str(group) for group in found.groups]}
    return table


def _check_columns(groupby: str, groups: Iterable[object]) -> None:
    """ValueError where a column of one group would have the name of one of another."""
    known: dict[str, object] = {}
    for group in groups:
        for name in (f"{group}", f"{group}_low", f"{group}_high"):
            if name in known:
                raise ValueError(
                    f"groupby={groupby!r}: the column scale_{name} would be of the groups {known[name]!r} and "
                    f"{group!r} alike; rename one, "
                    f"adata.obs[{groupby!r}] = adata.obs[{groupby!r}].astype(str).replace(...)."
                )
            known[name] = group


def _measured(model: RaptorGraphModel, perturbations: Perturbations | None) -> list[str]:
    """Labels of measured perturbations, each once; ValueError for others."""
    if perturbations is None:
        return list(model.conditions)
    setup = Setup.of(model.setup_args)
    labels = [setup.label(genes) for genes in setup.asked(perturbations, model.perturbed_genes)]
    unknown = [label for label in labels if label not in model.conditions]
    if unknown:
        raise ValueError(
            f"{unknown[0]!r} was not measured: the test needs its cells. model.predict_effects(..., groupby=...) "
            "predicts its effects by group."
        )
    return list(dict.fromkeys(labels))
