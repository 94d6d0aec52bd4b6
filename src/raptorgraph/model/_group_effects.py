"""Effects by group of cells of a trained model: what was measured in each, its posterior, and what the network says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph.inference import GroupMeasurements, infer_group_effects
from raptorgraph.model._decoded_effects import check_controls, controls_by_group, decoded_effects, offsets_of
from raptorgraph.screen import Screen
from raptorgraph.screen._inputs import obs_column
from raptorgraph.screen._moments import effects_of, moments_of

if TYPE_CHECKING:
    import torch
    from anndata import AnnData
    from scvi.data import AnnDataManager

    from raptorgraph.inference import GroupEffects
    from raptorgraph.model._predictor import Predictor
    from raptorgraph.model._types import Data
    from raptorgraph.screen._moments import EffectMoments

_MOST_NUMBERS = 20  # values of a column of numbers that can be groups
_N_DECODED = 32  # controls of each group, from which the network's deviations are decoded
_LEAST_INFLATION = 0.25
_CHUNK = 4096  # cells


@dataclass(frozen=True)
class GroupPosterior:
    """Posterior of the effects of measured perturbations by group, and what it rests on.

    Attributes
    ----------
    effects
        Posterior, in the order of ``screen.conditions`` and ``groups``.
    measured
        What was measured.
    screen
        The cells.
    rows
        Those that were used.
    members
        Shape (n_cells,), int: group of every cell of the screen.
    groups
        Values of the column.
    controls
        Registered controls of these cells.
    """

    effects: GroupEffects
    measured: GroupMeasurements
    screen: Screen
    rows: np.ndarray
    members: np.ndarray
    groups: pd.Index
    controls: AnnDataManager

    def of(self, labels: list[str], masks: torch.Tensor, predictor: Predictor) -> tuple[np.ndarray, np.ndarray]:
        """Effects and standard deviations of any perturbations, each perturbations x groups x genes."""
        n_cells = self.measured.n_cells.sum(axis=1)
        row = {self.screen.genes_of[label]: i for i, label in enumerate(self.screen.conditions) if n_cells[i] > 0}
        sets = [predictor.latents.cells.setup.genes(label) for label in labels]
        shape = (len(labels), *self.effects.mean.shape[1:])
        mean, sd = np.zeros(shape), np.zeros(shape)
        unseen = [i for i, genes in enumerate(sets) if genes and genes not in row]
        for i, genes in enumerate(sets):
            if genes in row:
                mean[i], sd[i] = self.effects.mean[row[genes]], self.effects.sd[row[genes]]
        if unseen:
            common = [x.cpu().numpy() for x in predictor.calibration.posterior.mean_and_sd(masks[unseen])]
            network = _network(predictor, self.controls, self.groups, masks[unseen])
            for j, i in enumerate(unseen):
                members = [row[(gene,)] for gene in sets[i] if (gene,) in row]
                deviation = network[j] - np.average(network[j], axis=0, weights=self.measured.n_controls)
                mean[i], sd[i] = self.effects.of_set(members, common[0][j], common[1][j], deviation)
        return mean, sd


def groups_of(adata: AnnData, groupby: str) -> tuple[np.ndarray, pd.Index]:
    """Read the group of every cell as a code, and the values of the column by code.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If a label is missing, or numbers have too many values to be groups.
    """
    column = obs_column(adata, groupby, "groupby")
    missing = np.flatnonzero(column.isna())
    if missing.size:
        raise ValueError(
            f"groupby={groupby!r}: {missing.size} of {len(column)} cells have no value in obs[{groupby!r}] (first: "
            f"{adata.obs_names[missing[0]]}); give them a group of their own, or drop them."
        )
    values = pd.Index(column.unique())
    if isinstance(column.dtype, pd.CategoricalDtype):
        values = column.cat.categories[column.cat.categories.isin(values)]
    elif pd.api.types.is_numeric_dtype(values.dtype) and len(values) > _MOST_NUMBERS:
        raise ValueError(
            f"groupby={groupby!r}: obs[{groupby!r}] holds {len(values)} different numbers, and no groups; bin them "
            f"first, such as adata.obs['bin'] = pandas.qcut(adata.obs[{groupby!r}], 3).astype(str)."
        )
    else:
        values = pd.Index(sorted(values, key=str)) if values.dtype == object else values.sort_values()
    return values.get_indexer(pd.Index(column)), values.rename(groupby)


def infer_groups(predictor: Predictor, groupby: str, adata: Data | None = None) -> GroupPosterior:
    """Measure effects by group, and infer their posterior."""
    cells, posterior = predictor.latents.cells, predictor.calibration.posterior
    data = cells.data(adata, labels=True)
    members, groups = groups_of(data, groupby)
    if cells.own is not None and data is cells.own.adata:
        screen = cells.own.screen
        rows = np.setdiff1d(np.arange(data.n_obs), [] if predictor.test_rows is None else predictor.test_rows)
    else:
        screen = Screen(data, cells.setup).of_genes(list(cells.var_names))
        rows = np.arange(data.n_obs)
    if not (screen.codes[rows] > 0).any():
        raise ValueError(
            "These cells are controls alone, and effects by group are measured: pass perturbed cells too, or ask for "
            "kind='decoder'."
        )
    check_controls(members[rows[screen.codes[rows] == 0]], groups)
    measured, overall = measure_groups(screen, rows, members, len(groups))
    _, design = predictor.masks(screen.conditions)
    predicted, sd = (x.cpu().numpy() for x in posterior.mean_and_sd(design))
    common = posterior.posterior_mean(design).cpu().numpy()
    measured = replace(measured, inflation=_inflation(screen, rows, members, common / measured.gene_variance))
    controls = cells.query(adata, "controls")
    network = _network(predictor, controls, groups, design)
    effects = infer_group_effects(
        measured,
        common,
        sd,
        predicted=predicted,
        overall=overall.effect[1:],
        overall_variance=overall.variance[1:],
        network=network,
    )
    return GroupPosterior(effects, measured, screen, rows, members, groups, controls)


def measure_groups(
    screen: Screen, rows: np.ndarray, members: np.ndarray, n_groups: int
) -> tuple[GroupMeasurements, EffectMoments]:
    """Effects within each group and those in all cells, from one pass; groups are numbered from 0."""
    sums = screen.sums(rows, part=members)
    each = [effects_of(sums.of_parts(group)) for group in range(n_groups)]
    # that of control against control has the variance twice
    control = np.stack([found.variance[0] / 2 for found in each])
    variance = np.stack([found.variance[1:] for found in each], axis=1)
    measured = GroupMeasurements(
        effect=np.stack([found.effect[1:] for found in each], axis=1),
        variance=np.maximum(variance - control, 0.01 * variance),
        control_variance=control,
        n_cells=np.stack([found.n[1:] for found in each], axis=1),
        n_controls=np.array([found.n[0] for found in each]),
        lowest=-np.stack([moments_of(sums.of_parts(group)).mean[0] for group in range(n_groups)]),
    )
    return measured, effects_of(sums)


def _inflation(screen: Screen, rows: np.ndarray, members: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Variance of control cells along directions over that of independent genes, within groups and batches."""
    batch = np.zeros_like(members) if screen.batch is None else screen.batch
    controls = rows[screen.codes[rows] == 0]
    _, strata = np.unique(members[controls] * (batch.max() + 1) + batch[controls], return_inverse=True)
    n = np.bincount(strata)
    total, squares = np.zeros((2, len(n), direction.shape[1]))
    scores = np.empty((len(controls), len(direction)))
    for start in range(0, len(controls), _CHUNK):
        place = slice(start, start + _CHUNK)
        values = screen.expression_at(controls[place])
        scores[place] = values @ direction.T
        one = (np.arange(len(n))[:, None] == strata[place]).astype(np.float64)
        total += one @ values
        squares += one @ (values.multiply(values) if hasattr(values, "multiply") else values**2)
    freedom = max(len(controls) - len(n), 1)
    variance = np.maximum(squares - total**2 / n[:, None], 0.0).sum(axis=0) / freedom
    mean = np.zeros((len(n), len(direction)))
    np.add.at(mean, strata, scores)
    spread = ((scores - (mean / n[:, None])[strata]) ** 2).sum(axis=0) / freedom
    independent = direction**2 @ variance
    return np.maximum(np.where(independent > 0, spread / np.maximum(independent, 1e-300), 1.0), _LEAST_INFLATION)


def _network(predictor: Predictor, controls: AnnDataManager, groups: pd.Index, masks: torch.Tensor) -> np.ndarray:
    """Effects that the decoder has on the controls of each group, sets x groups x genes.

    It is not shifted to the posterior: only differences between groups are asked for, which that hardly changes.
    """
    drawn = controls_by_group(controls.adata, str(groups.name), groups, _N_DECODED, predictor.latents.cells)
    offsets = offsets_of(predictor, masks, calibrated=False)
    each = [decoded_effects(predictor, controls, rows, masks, rng, offsets=offsets) for rows, rng in drawn]
    return np.stack(each, axis=1).astype(np.float64)
