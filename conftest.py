"""What the examples in docstrings may use: a small screen, a model trained on it, a few gene sets."""

import ast
import logging
import os
import sys

# Before matplotlib and the numerical libraries are imported.
os.environ["MPLBACKEND"] = "Agg"
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

import pytest  # noqa: E402
from _pytest.doctest import DoctestItem  # noqa: E402


@pytest.fixture(scope="session")
def _example_screen():
    """100 genes, 6 perturbed ones, 4 doubles."""
    import raptorgraph as rg

    return rg.datasets.simulate(
        100, 6, n_doubles=4, n_control_cells=300, n_cells_per_perturbation=80, expected_degree=2.0, seed=0
    )


@pytest.fixture(scope="session")
def _example_model(_example_screen, tmp_path_factory):
    """Folder of a model trained on it; its graph has edges, P03 to P04 among them."""
    import scvi

    import raptorgraph as rg

    adata, seed = _example_screen.copy(), scvi.settings.seed
    scvi.settings.seed = 0
    rg.RaptorGraphModel.setup_anndata(adata, "perturbation", library_size_key="total_counts")
    model = rg.RaptorGraphModel(adata, n_hidden=16)
    model.train(max_epochs=3, accelerator="cpu", enable_progress_bar=False)
    folder = tmp_path_factory.mktemp("example") / "model"
    model.save(folder)
    scvi.settings.seed = seed
    return folder


@pytest.fixture(autouse=True)
def _example_names(request, tmp_path, monkeypatch):
    """Give an example the names that it uses, each its own copies, and a folder of its own to write to."""
    if not isinstance(request.node, DoctestItem):
        yield
        return
    import numpy as np
    import pandas as pd
    import scvi
    import torch

    import raptorgraph as rg

    torch.set_num_threads(1)
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)  # scvi-tools' notes go to stdout, where an example's output is looked for
    seed = scvi.settings.seed
    scvi.settings.seed = 0  # and that of torch, numpy and random
    monkeypatch.chdir(tmp_path)
    code = ast.parse("".join(example.source for example in request.node.dtest.examples))
    used = {node.id for node in ast.walk(code) if isinstance(node, ast.Name)}
    names = request.node.dtest.globs
    names.update(rg=rg, np=np, pd=pd)
    if used & {"adata", "model", "gene_sets"}:
        adata = names["adata"] = request.getfixturevalue("_example_screen").copy()
        if "model" in used:
            names["model"] = rg.RaptorGraphModel.load(request.getfixturevalue("_example_model"), adata)
        genes = sorted(adata.var_names.difference(adata.uns["simulation"]["effects"].index))
        names["gene_sets"] = {f"set {i + 1}": genes[20 * i : 20 * i + 20] for i in range(4)}
    yield
    scvi.settings.seed = seed
    logging.disable(disabled)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
