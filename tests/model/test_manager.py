import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import raptorgraph as rg


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_a_panel_that_the_first_cells_do_not_show(form):
    counts = np.zeros((300, 2), dtype=np.float32)
    counts[150:] = np.random.default_rng(0).poisson(1.0, (150, 2))
    labels = np.tile(["control", "A", "control"], 100)
    obs = pd.DataFrame({"perturbation": labels, "total": 1000.0}, index=np.arange(300).astype(str))
    adata = ad.AnnData(form(counts), obs=obs, var=pd.DataFrame(index=["A", "B"]))
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total")
    model = rg.RaptorGraphModel(adata, n_hidden=4)
    found = model.adata_manager.get_from_registry("X")
    np.testing.assert_array_equal(found.toarray() if sparse.issparse(found) else found, counts)
    counts[0] = 0.5
    adata.X = form(np.log1p(counts))
    with pytest.raises(ValueError, match="held counts when the data were set up"):
        model.adata_manager.get_from_registry("X")
