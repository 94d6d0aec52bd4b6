import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from raptorgraph.datasets import _papalexi2021, _public
from raptorgraph.datasets._download import Source
from raptorgraph.datasets._papalexi2021 import papalexi2021
from raptorgraph.pp import assign_guides

GUIDES = {"STAT1g1": "STAT1", "STAT1g2": "STAT1", "IFNGR2g4": "IFNGR2", "MARCH8g1": "MARCHF8", "NTg1": "control"}
N_EACH = 12
NUMBERS = {"cells": 60, "conditions": 4, "singles": 3, "doubles": 0, "targets": 3}


@pytest.fixture
def cells(whole_counts):
    """Counts of all genes, the guide of each cell, and names of the cells."""
    guides = np.repeat(list(GUIDES), N_EACH)
    counts, names = whole_counts(len(guides), ["STAT1", "MARCHF8"])
    return counts, names, guides, [f"l1_AAAC{i:03d}" for i in range(len(guides))]


@pytest.fixture
def scperturb(cells):
    """File in scPerturb's format: counts in columns, `guide_id`, the hashtag of the replicate."""
    counts, names, guides, index = cells
    obs = pd.DataFrame(
        {
            "guide_id": pd.Categorical(guides),
            "hto": np.resize(["rep1-tx", "rep2-tx", "rep3-tx"], len(guides)),
            "perturbation": [guide if not guide.startswith("NT") else "control" for guide in guides],
            "nperts": 1,
        },
        index=index,
    )
    return ad.AnnData(sparse.csc_matrix(counts), obs=obs, var=pd.DataFrame(index=names))


@pytest.fixture
def pertpy(cells):
    """File in pertpy's format: modalities with the columns of Seurat, and counts of the guides."""
    counts, names, guides, index = cells
    rna = ad.AnnData(counts, obs=pd.DataFrame({"nCount_RNA": 1.0}, index=index), var=pd.DataFrame(index=names))
    order = np.random.default_rng(0).permutation(len(index))
    of_guides = (guides[:, None] == np.array(list(GUIDES))[None]) * 25.0
    gdo = ad.AnnData(
        sparse.csr_matrix(of_guides[order]),
        obs=pd.DataFrame(
            {"guide_ID": guides[order], "gene_target": [GUIDES[g] for g in guides[order]]}, index=np.array(index)[order]
        ),
        var=pd.DataFrame(index=list(GUIDES)),
    )
    mdata = md.MuData({"rna": rna, "gdo": gdo})
    mdata.obs["replicate"] = pd.Series(np.resize(["rep1", "rep2"], len(index)), index=index)
    return mdata


def expected(guides):
    return [GUIDES[guide] for guide in guides]


def check(adata, cells):
    counts, names, guides, index = cells
    assert adata.obs_names.tolist() == index
    assert adata.obs["perturbation"].tolist() == expected(guides)
    assert adata.obs["grna_id"].tolist() == list(guides)
    assert adata.uns["target_aliases"] == {"MARCH8": "MARCHF8"}
    assert adata.var_names[adata.var["perturbation_target"]].tolist() == ["STAT1", "MARCHF8"]  # IFNGR2 is not measured
    total = np.asarray(counts.sum(axis=1)).ravel()
    np.testing.assert_array_equal(adata.obs["total_counts"], total)
    here = counts[:, [names.index(name) for name in adata.var_names]].toarray()
    np.testing.assert_array_equal(adata.layers["counts"].toarray(), here)
    np.testing.assert_allclose(adata.X.toarray(), np.log1p(1e4 * here / total[:, None]), rtol=1e-6)


def test_scperturb_s_file(tmp_path, scperturb, cells, monkeypatch):
    scperturb.write_h5ad(tmp_path / "papalexi.h5ad")
    monkeypatch.setattr(_papalexi2021, "PUBLISHED", NUMBERS)
    adata = papalexi2021(tmp_path / "papalexi.h5ad", n_top_genes=20)  # warnings are errors
    check(adata, cells)
    assert adata.obs["bio_rep"].tolist() == scperturb.obs["hto"].tolist()
    assert "grna_counts" not in adata.obsm
    monkeypatch.setattr(_papalexi2021, "PUBLISHED", {**NUMBERS, "cells": 20_729})
    with pytest.warns(UserWarning, match="cells: 60, published 20,729"):
        papalexi2021(tmp_path / "papalexi.h5ad", n_top_genes=20)


def test_pertpy_s_file_has_counts_of_the_guides(tmp_path, pertpy, cells):
    pertpy.write_h5mu(tmp_path / "papalexi.h5mu")
    adata = papalexi2021(tmp_path / "papalexi.h5mu", n_top_genes=20, check=False)
    check(adata, cells)
    assert adata.obs["bio_rep"].tolist() == np.resize(["rep1", "rep2"], 60).tolist()
    assert adata.uns["grna_ids"].tolist() == list(GUIDES)
    counted = adata.obsm["grna_counts"].toarray()
    assert counted.argmax(1).tolist() == [list(GUIDES).index(guide) for guide in cells[2]]
    # they are what assign_guides reads
    assign_guides(adata, "grna_counts", "grna_targets", guide_names="grna_ids", key_added="called")
    renamed = adata.obs["called"].astype(str).replace("MARCH8", "MARCHF8")
    assert renamed.tolist() == adata.obs["perturbation"].tolist()


def test_it_is_downloaded_converted_and_kept(server, tmp_path, monkeypatch, pertpy, cells):
    pytest.importorskip("pooch")
    folder, url, asked = server
    pertpy.write_h5mu(folder / "papalexi_2021.h5mu")
    sources = [Source(f"{url}/gone.h5ad", "gone.h5ad"), Source(f"{url}/papalexi_2021.h5mu", "papalexi_2021.h5mu")]
    monkeypatch.setattr(_papalexi2021, "SOURCES", sources)
    for _ in range(2):
        adata = papalexi2021(tmp_path / "cache", n_top_genes=20, check=False)
        check(adata, cells)
        assert adata.obsm["grna_counts"].shape == (60, 5)
        assert list(adata.uns["grna_targets"]) == ["STAT1", "STAT1", "IFNGR2", "MARCH8", "control"]
    assert asked == ["/gone.h5ad", "/papalexi_2021.h5mu"]
    assert len(list((tmp_path / "cache").glob("papalexi2021-*.h5ad"))) == 1


@pytest.mark.parametrize(
    ("guide", "target"),
    [
        ("STAT5Ag3", "STAT5A"),
        ("PDCD1LG2g1", "PDCD1LG2"),
        ("NTg10", "control"),
        ("NT", "control"),
        ("control", "control"),
        ("g1", "g1"),
        ("SPI1-g2", "SPI1"),
        ("SPI1", "SPI1"),
    ],
)
def test_targets_of_guides(guide, target):
    assert _papalexi2021._target(guide) == target


def test_files_that_are_not_of_this_screen(tmp_path, scperturb, pertpy):
    scperturb[:, :70].copy().write_h5ad(tmp_path / "part.h5ad")
    with pytest.raises(ValueError, match="counts of 70 genes, whose sums are no library sizes"):
        papalexi2021(tmp_path / "part.h5ad")
    scperturb.obs["guide_id"] = scperturb.obs["guide_id"].astype(object).where(np.arange(60) > 0)
    scperturb.write_h5ad(tmp_path / "missing.h5ad")
    with pytest.raises(ValueError, match=r"'guide_id'\] names no guide for 1 cells \(first: l1_AAAC000\)"):
        papalexi2021(tmp_path / "missing.h5ad")
    del scperturb.obs["guide_id"]
    scperturb.write_h5ad(tmp_path / "none.h5ad")
    with pytest.raises(KeyError, match="none of the columns grna_id, guide_id, guide_ID in obs, but hto, perturbation"):
        papalexi2021(tmp_path / "none.h5ad")
    md.MuData({"gdo": pertpy.mod["gdo"]}).write_h5mu(tmp_path / "other.h5mu")
    with pytest.raises(KeyError, match="no modality 'rna', but gdo"):
        papalexi2021(tmp_path / "other.h5mu")
    with pytest.raises(FileNotFoundError, match="nowhere.h5mu"):
        papalexi2021(tmp_path / "nowhere.h5mu")


def test_published_numbers_are_those_of_a_cut_of_the_screen(shared_data):
    """The cut holds all cells and labels, and a part of the genes."""
    cut = ad.read_h5ad(shared_data / "papalexi2021_eccite.h5ad", backed="r")
    assert cut.n_obs == _papalexi2021.PUBLISHED["cells"]
    assert cut.obs["perturbation"].nunique() == _papalexi2021.PUBLISHED["conditions"]
    guides = cut.obs["grna_id"].astype(str)
    found = [_papalexi2021._target(guide) for guide in guides.unique()]
    assert len(set(found)) == _papalexi2021.PUBLISHED["conditions"]
    labels = cut.obs["perturbation"].astype(str)
    assert (guides.map(_papalexi2021._target) == labels).mean() > 0.99
    assert cut.n_vars < _public.WHOLE_TRANSCRIPTOME
