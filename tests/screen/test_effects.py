"""Measured effects as users ask for them."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from raptorgraph.pp import measured_effects


@pytest.fixture
def cells():
    rng = np.random.default_rng(1)
    codes = np.r_[np.zeros(40, int), rng.integers(1, 4, size=80)]
    counts = rng.poisson(1.0 + codes[:, None] * rng.random(6), size=(120, 6))
    return counts, codes, rng.integers(20, 90, size=120).astype(float)


def test_measured_effects_of_counts_and_of_logarithms_agree(cells):
    counts, codes, library = cells
    labels = np.array(["ctrl", "B", "B+A", "A"])[codes]
    labels[np.flatnonzero(codes == 2)[0]] = "A+B"
    adata = ad.AnnData(sparse.csr_matrix(counts), obs=pd.DataFrame({"p": labels, "size": library}).rename(index=str))
    adata.layers["log"] = np.log1p(1e4 * counts / library[:, None])
    effects = measured_effects(adata, "p", control="ctrl", library_size_key="size")
    assert effects.index.tolist() == ["A", "A+B", "B"]
    assert effects.columns.tolist() == adata.var_names.tolist()
    log = adata.layers["log"]
    np.testing.assert_allclose(effects.loc["A+B"], log[codes == 2].mean(0) - log[codes == 0].mean(0), rtol=1e-4)
    pd.testing.assert_frame_equal(measured_effects(adata, "p", control="ctrl", layer="log"), effects, rtol=1e-5)
    by_rows = measured_effects(adata, "p", control="ctrl")
    np.testing.assert_allclose(
        by_rows.loc["A"],
        np.log1p(1e4 * counts / counts.sum(1, keepdims=True))[codes == 3].mean(0)
        - np.log1p(1e4 * counts / counts.sum(1, keepdims=True))[codes == 0].mean(0),
        rtol=1e-4,
    )
    with pytest.raises(ValueError, match="No cell is labeled as control"):
        measured_effects(adata, "p")


def test_real_effects_of_a_knockout_and_of_an_activation(shared_data):
    papalexi, norman = shared_data / "papalexi2021_eccite.h5ad", shared_data / "norman2019_devel.h5ad"
    effects = measured_effects(ad.read_h5ad(papalexi), batch_key="bio_rep")
    assert effects.shape == (25, 299)
    # Knock-out of the receptor's partners silences the signal that STAT1 belongs to.
    assert (effects.loc[["IFNGR1", "IFNGR2", "JAK2", "STAT1"], "STAT1"] < -0.1).all()
    assert measured_effects(ad.read_h5ad(norman)).shape == (33, 500)
