"""CPA: train on counts, predict the counts that control cells would have under another label.

Cells of ``train`` and ``val`` are fitted, 15 % of them held out for early stopping. Control cells that carry the asked
labels take the place of the cells to predict. Effects are differences of means of ``log1p(1e4 * predicted mean /
library size)`` to CPA's own reconstruction of control cells; the cells have Poisson noise around the predicted means.
"""

from __future__ import annotations

import tempfile
import time
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HELD_OUT = 0.15  # of the cells, for early stopping
_N_CONTROL = 300  # control cells that stand for each label, or as many as are scored


def run(cells: ad.AnnData, task: Mapping[str, Any]) -> dict[str, Any]:
    """``effects.csv`` and ``cells.h5ad`` of ``task["test"]``, control cells among the latter."""
    import cpa
    import scvi
    import torch

    start, options, rng = time.perf_counter(), task["options"], np.random.default_rng(task["seed"])
    scvi.settings.seed = task["seed"]
    torch.set_num_threads(task["threads"])  # scvi-tools sets it when it is imported
    asked = [*task["test"], "control"]
    adata, library = with_basal_cells(cells, asked, max(_N_CONTROL, task["n_cells"]), rng)
    cpa.CPA.setup_anndata(
        adata,
        perturbation_key="perturbation",
        control_group="control",
        categorical_covariate_keys=["cell_type"],
        is_count_data=True,
        max_comb_len=max(2, max(len(label.split("+")) for label in adata.obs["perturbation"].unique())),
    )
    model = cpa.CPA(
        adata,
        split_key="split",
        train_split="train",
        valid_split="valid",
        test_split="ood",
        recon_loss="nb",
        n_latent=options["n_latent"],
        seed=task["seed"],
    )
    with tempfile.TemporaryDirectory(dir=".") as folder:
        model.train(
            max_epochs=task["epochs"],
            use_gpu=torch.cuda.is_available(),
            batch_size=options["batch_size"],
            early_stopping_patience=options["patience"],
            check_val_every_n_epoch=5,
            save_path=f"{folder}/model",
            enable_progress_bar=False,
        )
    fitted = time.perf_counter()
    basal = adata[adata.obs["split"] == "ood"].copy()
    model.predict(basal, batch_size=options["batch_size"])
    labels = basal.obs["perturbation"].astype(str).to_numpy()
    mean = np.asarray(basal.obsm["CPA_pred"])
    return {
        "effects.csv": effects_of(mean, library, labels, adata.var_names),
        "cells.h5ad": drawn(mean, library, labels, adata.var_names, rng),
        "seconds": {"fit": fitted - start, "predict": time.perf_counter() - fitted},
    }


def with_basal_cells(
    cells: ad.AnnData, asked: Sequence[str], n_basal: int, rng: np.random.Generator
) -> tuple[ad.AnnData, np.ndarray]:
    """Training cells and, behind them, control cells under each of the asked labels; library sizes of the latter.

    ``obs["split"]`` is ``train``, ``valid`` or, of the control cells behind, ``ood``: these are never fitted. Where
    there are fewer control cells than `n_basal`, they are drawn with replacement.
    """
    control = np.flatnonzero((cells.obs["perturbation"] == "control").to_numpy())
    drawn = [rng.choice(control, n_basal, replace=n_basal > len(control)) for _ in asked]
    rows = np.concatenate([np.arange(cells.n_obs), *drawn])
    split = np.where(rng.random(len(rows)) < _HELD_OUT, "valid", "train").astype(object)
    split[cells.n_obs :] = "ood"
    labels = np.concatenate([cells.obs["perturbation"].astype(str).to_numpy(), np.repeat(asked, n_basal)])
    obs = pd.DataFrame(
        {"perturbation": labels, "cell_type": "cells", "split": split}, index=[f"c{i}" for i in range(len(rows))]
    )
    X = sparse.csr_matrix(cells.X, dtype=np.float32)[rows].toarray()
    library = cells.obs["library"].to_numpy(dtype=float)[np.concatenate(drawn)]
    return ad.AnnData(X, obs=obs, var=pd.DataFrame(index=cells.var_names)), library


def effects_of(mean: np.ndarray, library: np.ndarray, labels: np.ndarray, genes: pd.Index) -> pd.DataFrame:
    """Mean over cells of the expression scale at the predicted counts, minus that of ``control``."""
    values = pd.DataFrame(np.log1p(1e4 * mean / library[:, None]), columns=genes).groupby(labels, sort=False).mean()
    return values.drop(index="control") - values.loc["control"]


def drawn(
    mean: np.ndarray, library: np.ndarray, labels: np.ndarray, genes: pd.Index, rng: np.random.Generator
) -> ad.AnnData:
    """Cells on the expression scale, with Poisson noise around the predicted counts: the least that counts have."""
    X = sparse.csr_matrix(np.log1p(1e4 * rng.poisson(mean) / library[:, None]).astype(np.float32))
    obs = pd.DataFrame({"perturbation": labels}, index=[f"c{i}" for i in range(len(labels))])
    return ad.AnnData(X, obs=obs, var=pd.DataFrame(index=genes))
