"""Mixscape, as pertpy has it: the probability that a cell responded to its perturbation."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

_KEY, _BATCH, _CONTROL, _FOUND = "perturbation", "batch", "control", "found"
_N_NEIGHBORS = 20  # its default
_N_COMPONENTS = 50  # principal components, of which it takes the first 15


def run(cells: AnnData, task: Mapping[str, Any]) -> dict[str, Any]:
    """``responses.csv``: ``probability`` of each cell."""
    start = time.perf_counter()
    found = pd.DataFrame({"probability": responses(cells, task["seed"])}, index=cells.obs_names)
    return {"responses.csv": found, "seconds": {"fit": time.perf_counter() - start}}


def responses(cells: AnnData, seed: int) -> np.ndarray:
    """Probability that each cell responded, shape (n_cells,), by Mixscape with its defaults.

    Its signature is by batch (``obs["batch"]``) where each has 20 control cells or more. 0 for all cells of a condition
    in which it finds fewer than five differential genes. Writes to the cells.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of labels without differential genes, and of what others deprecate
        import pertpy
        import scanpy as sc

        found = pertpy.tl.Mixscape()
        control = (cells.obs[_KEY] == _CONTROL).to_numpy()
        by_batch = _BATCH in cells.obs and control_cells_by_batch(cells.obs, control).min() >= _N_NEIGHBORS
        sc.pp.pca(cells, n_comps=min(_N_COMPONENTS, *(n - 1 for n in cells.shape)), random_state=seed)
        found.perturbation_signature(
            cells,
            _KEY,
            _CONTROL,
            split_by=_BATCH if by_batch else None,
            n_neighbors=min(_N_NEIGHBORS, int(control.sum())),
            use_rep="X_pca",
            random_state=seed,
        )
        found.mixscape(cells, _KEY, _CONTROL, new_class_name=_FOUND, random_state=seed)
    return np.asarray(cells.obs[f"{_FOUND}_p_ko"], dtype=np.float64)


def control_cells_by_batch(obs: pd.DataFrame, control: np.ndarray) -> pd.Series:
    """Number of control cells in each batch, 0 where it has none."""
    batch = obs[_BATCH].astype(str)
    return batch[control].value_counts().reindex(batch.unique(), fill_value=0)
