"""Mean effects by the decoder, of all cells or of the control cells of each group."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from raptorgraph._arguments import check_integer
from raptorgraph._progress import track
from raptorgraph.model._batches import in_each
from raptorgraph.model._cells import Cells, draw_seed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData
    from scvi.data import AnnDataManager

    from raptorgraph.model._predictor import Predictor

_LEAST_CONTROLS = 2  # of each group, where effects are measured


@torch.inference_mode()
def decoded_effects(
    predictor: Predictor,
    manager: AnnDataManager,
    rows: np.ndarray,
    masks: torch.Tensor,
    rng: np.random.Generator,
    *,
    codes: list[int] | None = None,
    offsets: Sequence[torch.Tensor | float],
) -> np.ndarray:
    """Mean effects of perturbations on some of the cells, masks x genes: decoded with and without the perturbation.

    `codes` are the batches that the cells are decoded in, None for their own; `offsets` as of :func:`offsets_of`.
    """
    drawn = predictor.latents.draw(manager, rows, rng)
    module = predictor.latents.cells.module
    covariates = [module.covariates(tensors) for tensors in in_each(drawn.tensors, codes)]

    def mean_of(latents: torch.Tensor, offset: torch.Tensor | float) -> torch.Tensor:
        means = [predictor.mean_expression(latents, values, drawn.library, offset) for values in covariates]
        return sum(means[1:], means[0]) / len(means)

    control = mean_of(drawn.z, offsets[0])
    each = zip(track(masks, "Effects"), offsets[1:], strict=True)
    effects = [mean_of(module.modulator(drawn.z, mask[None]), offset) - control for mask, offset in each]
    return torch.stack(effects).cpu().numpy()


def offsets_of(predictor: Predictor, masks: torch.Tensor, *, calibrated: bool = True) -> list[torch.Tensor | float]:
    """Offset of the control and of each mask that brings the decoder to the posterior, where there is one."""
    if not calibrated:
        return [0.0] * (len(masks) + 1)
    return [predictor.calibration.offset(mask) for mask in (torch.zeros_like(masks[0]), *masks)]


def controls_by_group(
    adata: AnnData, groupby: str, groups: pd.Index, n_cells: int, cells: Cells | None = None
) -> Iterator[tuple[np.ndarray, np.random.Generator]]:
    """Rows of at most so many controls of each group, drawn at random, and the generator to go on with.

    `cells` says in which order random numbers are given to them, by default in that of the file.

    ValueError for groups without controls.
    """
    check_integer("n_cells", n_cells, 1)
    members = groups.get_indexer(pd.Index(adata.obs[groupby]))
    controls = Cells.control_rows(adata)
    check_controls(members[controls], groups, 1)
    ordered = np.sort if cells is None else partial(cells.in_order, adata)
    for group in range(len(groups)):
        rng = np.random.default_rng([draw_seed(None), group])
        found = ordered(controls[members[controls] == group])
        yield (found if len(found) <= n_cells else ordered(rng.choice(found, n_cells, replace=False))), rng


def check_controls(members: np.ndarray, groups: pd.Index, least: int = _LEAST_CONTROLS) -> None:
    """ValueError for groups of which there are too few among the control cells, whose groups these are."""
    n_controls = np.bincount(members, minlength=len(groups))
    few = np.flatnonzero(n_controls < least)
    if few.size:
        shown = ", ".join(f"{groups[i]!r} ({n_controls[i]})" for i in few[:10])
        raise ValueError(
            f"groupby={groups.name!r}: effects in a group are differences to its control cells, of which these have "
            f"fewer than {least}: {shown}. Merge them with other groups, or drop their cells."
        )
