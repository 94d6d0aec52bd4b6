"""SDCD: strengths of the edges among measured genes, from cells of which the perturbed gene is known."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData


def run(cells: AnnData, task: Mapping[str, Any]) -> dict[str, Any]:
    """``strengths.csv``: genes x genes, row = cause."""
    import torch

    torch.set_num_threads(task["threads"])
    torch.manual_seed(task["seed"])
    start = time.perf_counter()
    found = strengths(np.asarray(cells.X), cells.obs["target"].to_numpy(dtype=int), task["epochs"])
    return {
        "strengths.csv": pd.DataFrame(found, index=cells.var_names, columns=cells.var_names),
        "seconds": {"fit": time.perf_counter() - start},
    }


def strengths(values: np.ndarray, target: np.ndarray, max_epochs: int) -> np.ndarray:
    """Strengths of the edges, p x p, 0 or more.

    `values` has n cells by p genes, and `target` the column of the gene that is perturbed in each cell, -1 for none.
    """
    import torch
    from sdcd import SDCD

    # whether a gene listens to its parents
    acts = torch.as_tensor(target[:, None] != np.arange(values.shape[1])).long()
    X = torch.as_tensor(values, dtype=torch.float32)
    model = SDCD()
    stages = {f"stage{i}_kwargs": {"n_epochs": max_epochs} for i in (1, 2)}
    model.train(torch.utils.data.TensorDataset(X, acts, (acts == 0).sum(dim=1)), **stages)
    return np.asarray(model.get_adjacency_matrix(threshold=False))
