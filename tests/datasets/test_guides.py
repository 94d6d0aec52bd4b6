"""Guides of simulated screens."""

import numpy as np
import pandas as pd
import pytest

from raptorgraph.datasets import simulate

SIZE = {
    "n_genes": 20, "n_perturbed": 4, "n_control_cells": 60, "n_cells_per_perturbation": 90, "n_doubles": 2,
    "n_truth_cells": 20, "seed": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def adata():
    return simulate(**SIZE, n_guides=3, dead_guides=0.5)


def test_each_cell_has_a_guide_of_each_of_its_genes(adata):
    for label, guide in adata.obs[["perturbation", "guide"]].itertuples(index=False):
        if label == "control":
            assert pd.isna(guide)
        else:
            assert [name.split("_")[0] for name in guide.split("|")] == label.split("+")
    counts = adata.obs.loc[adata.obs["perturbation"] == "P01", "guide"].value_counts()
    assert set(counts.index[counts > 0]) == {"P01_1", "P01_2", "P01_3"}
    assert counts[counts > 0].min() > 15


def test_cells_of_dead_guides_do_not_respond(adata):
    table = adata.uns["simulation"]["guides"]
    assert table.shape == (12, 2)
    assert (~table["works"]).sum() == 2
    assert table.loc[~table["works"], "gene"].nunique() == 2
    single = adata.obs["perturbation"].isin(["P01", "P02", "P03", "P04"])
    works = table["works"].reindex(adata.obs.loc[single, "guide"]).to_numpy()
    np.testing.assert_array_equal(adata.obs.loc[single, "responded"], works)
    labels = adata.obs["perturbation"]
    dead = single & ~adata.obs["responded"]
    gene = adata.obs.loc[dead, "perturbation"].iloc[0]
    latent = adata.obsm["u_true"][:, ["P01", "P02", "P03", "P04"].index(gene)]
    shift = latent[dead & (labels == gene)].mean() - latent[labels == "control"].mean()
    works = latent[~dead & (labels == gene)].mean() - latent[labels == "control"].mean()
    assert abs(shift) < 0.5 < abs(works)


def test_without_guides_the_screen_is_what_it_was(adata):
    plain, several = simulate(**SIZE), simulate(**SIZE, n_guides=3)
    assert "guide" not in plain.obs
    assert "guides" not in plain.uns["simulation"]
    np.testing.assert_array_equal(plain.X.toarray(), several.X.toarray())
    assert "responded" not in several.obs
    assert several.uns["simulation"]["guides"]["works"].all()
    again = simulate(**adata.uns["simulation"]["settings"])
    pd.testing.assert_frame_equal(again.obs, adata.obs)


def test_screens_on_the_disk_have_the_same(adata, tmp_path):
    written = simulate(**SIZE, n_guides=3, dead_guides=0.5, out=tmp_path / "screen.h5ad")
    pd.testing.assert_frame_equal(written.obs, adata.obs, check_categorical=False)
    written.file.close()
