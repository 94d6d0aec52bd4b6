"""Training on a large sparse screen stays within the size of the data and 2 GB."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, resource, sys
import raptorgraph as rg
adata = rg.datasets.simulate(
    n_genes=2000, n_perturbed=40, n_control_cells=10000, n_cells_per_perturbation=2000, n_doubles=5,
    n_truth_cells=20, seed=0,
)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
before, X = peak(), adata.X
size = (X.data.nbytes + X.indices.nbytes + X.indptr.nbytes) / 2**30
rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
model = rg.RaptorGraph(adata)
model.train(max_epochs=1, enable_progress_bar=False)
print(json.dumps({"cells": adata.n_obs, "size": size, "before": before, "peak": peak()}))
"""


@pytest.mark.slow
def test_hundred_thousand_cells():
    out = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    found = json.loads(out.strip().splitlines()[-1])
    print(found)
    assert found["cells"] >= 100_000
    assert found["peak"] < found["size"] + 2.0
