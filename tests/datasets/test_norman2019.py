import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from raptorgraph._files import file_hash
from raptorgraph.datasets import _norman2019, _public
from raptorgraph.datasets._download import Source
from raptorgraph.datasets._norman2019 import norman2019

N_GENES = _public.WHOLE_TRANSCRIPTOME
GUIDES = {  # guides of a cell: label of scPerturb, of sc-pert, of CPA, of GEARS, and ours
    "NegCtrl0_NegCtrl0__NegCtrl0_NegCtrl0": ("control", "control", "", "ctrl", "control"),
    "NegCtrl10_NegCtrl0__NegCtrl10_NegCtrl0": ("control", "control", "", "ctrl", "control"),
    "KLF1_NegCtrl0__KLF1_NegCtrl0": ("KLF1", "KLF1", "KLF1", "KLF1+ctrl", "KLF1"),
    "NegCtrl0_KLF1__NegCtrl0_KLF1": ("KLF1", "KLF1", "KLF1", "ctrl+KLF1", "KLF1"),
    "KLF1_MAP2K6__KLF1_MAP2K6_2": ("KLF1_MAP2K6", "KLF1+MAP2K6", "KLF1,MAP2K6", "KLF1+MAP2K6", "KLF1+MAP2K6"),
    "MAP2K6_NegCtrl0__MAP2K6_NegCtrl0": ("MAP2K6", "MAP2K6", "MAP2K6", "MAP2K6+ctrl", "MAP2K6"),
    "TGFBR2_C19orf26__TGFBR2_C19orf26": (
        "TGFBR2_C19orf26",
        "C19orf26+TGFBR2",
        "C19orf26,TGFBR2",
        "TGFBR2+C19orf26",
        "CBARP+TGFBR2",
    ),
}
N_EACH = 12
NUMBERS = {"cells": 84, "ordered labels": 6, "conditions": 5, "singles": 2, "doubles": 2, "targets": 4}


@pytest.fixture
def scperturb(whole_counts):
    """File in scPerturb's format: counts, `guide_id`, pairs written "A_B"."""

    def scperturb_(extra_guides=()):
        guides = [*np.repeat(list(GUIDES), N_EACH), *extra_guides]
        counts, names = whole_counts(len(guides), ["KLF1", "MAP2K6", "CBARP"])
        obs = pd.DataFrame(
            {
                "guide_id": pd.Categorical(guides),
                "perturbation": [GUIDES.get(guide, ("control",))[0] for guide in guides],
                "gemgroup": np.arange(len(guides)) % 2 + 1,
            },
            index=[f"cell{i}" for i in range(len(guides))],
        )
        return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=names))

    return scperturb_


def expected_labels(guides):
    return [GUIDES[guide][4] for guide in guides]


def expression(counts, total):
    return np.log1p(1e4 * counts.toarray() / np.asarray(total)[:, None])


def test_full_counts_become_a_screen(tmp_path, scperturb):
    source = scperturb([_norman2019.LEFT_OUT_GUIDE] * 5)
    source.write_h5ad(tmp_path / "norman.h5ad")
    adata = norman2019(tmp_path / "norman.h5ad", n_top_genes=20, check=False)

    kept = source[source.obs["guide_id"] != _norman2019.LEFT_OUT_GUIDE]
    assert adata.obs_names.tolist() == kept.obs_names.tolist()
    assert adata.obs["perturbation"].tolist() == expected_labels(kept.obs["guide_id"])
    assert adata.uns["target_aliases"] == {"C19orf26": "CBARP"}
    total = np.asarray(kept.X.sum(axis=1)).ravel()
    np.testing.assert_array_equal(adata.obs["total_counts"], total)

    targets = adata.var_names[adata.var["perturbation_target"]]
    assert sorted(targets) == ["CBARP", "KLF1", "MAP2K6"]  # TGFBR2 is not measured
    assert adata.n_vars == 23
    assert sum(name in {f"G{i}" for i in range(30)} for name in adata.var_names) >= 15
    counts = kept[:, adata.var_names].X
    np.testing.assert_array_equal(adata.layers["counts"].toarray(), counts.toarray())
    np.testing.assert_allclose(adata.X.toarray(), expression(counts, total), rtol=1e-6)
    assert sparse.issparse(adata.X)
    assert adata.X.dtype == np.float32


def test_all_genes_on_request(tmp_path, scperturb):
    scperturb().write_h5ad(tmp_path / "norman.h5ad")
    adata = norman2019(tmp_path / "norman.h5ad", n_top_genes=None, check=False)
    assert adata.n_vars == N_GENES
    np.testing.assert_allclose(np.expm1(adata.X.toarray()).sum(axis=1), 1e4, rtol=1e-4)


def test_processed_counts_layer_gives_the_same_screen(tmp_path, scperturb):
    """sc-pert's file: log values in X, counts in a layer, `guide_identity`, another `total_counts`."""
    source = scperturb()
    source.write_h5ad(tmp_path / "scperturb.h5ad")
    guides = source.obs["guide_id"].astype(str).tolist()
    total = np.asarray(source.X.sum(axis=1)).ravel()
    other = ad.AnnData(sparse.csr_matrix(expression(source.X, total).astype(np.float32)), var=source.var.copy())
    other.obs_names = source.obs_names
    other.obs["guide_identity"] = guides
    other.obs["perturbation_name"] = [GUIDES[guide][1] for guide in guides]
    other.obs["total_counts"] = 1.0
    other.layers["counts"] = source.X
    other.obsm["X_pca"] = np.zeros((source.n_obs, 2))
    other.write_h5ad(tmp_path / "scpert.h5ad")

    first = norman2019(tmp_path / "scperturb.h5ad", n_top_genes=20, check=False)
    second = norman2019(tmp_path / "scpert.h5ad", n_top_genes=20, check=False)
    assert second.obs["perturbation"].tolist() == first.obs["perturbation"].tolist()
    assert second.var_names.tolist() == first.var_names.tolist()
    np.testing.assert_array_equal(second.X.toarray(), first.X.toarray())
    np.testing.assert_array_equal(second.obs["total_counts"], total)
    assert not second.obsm


@pytest.mark.parametrize(("column", "position"), [("guide_ids", 2), ("perturbation_name", 1), ("condition", 3)])
@pytest.mark.parametrize("layer", [False, True])
def test_part_of_the_genes_is_taken_as_it_is(tmp_path, column, position, layer):
    """CPA's and GEARS's files: about 5,000 genes, log values, with or without counts; Ensembl identifiers in CPA's."""
    guides = np.repeat(list(GUIDES), 2)
    values = np.random.default_rng(0).uniform(0, 3, size=(len(guides), 5)).astype(np.float32)
    var = pd.DataFrame({"gene_symbols": ["KLF1", "CBARP", "G1", "G1", "G2"]}, index=[f"ENSG{i:011d}" for i in range(5)])
    source = ad.AnnData(sparse.csr_matrix(values), var=var)
    source.obs[column] = [GUIDES[guide][position] for guide in guides]
    if layer:
        source.layers["counts"] = sparse.csr_matrix(np.round(values))
    source.write_h5ad(tmp_path / "part.h5ad")
    adata = norman2019(tmp_path / "part.h5ad", check=False)
    assert adata.obs["perturbation"].tolist() == expected_labels(guides)
    assert adata.var_names.tolist() == ["KLF1", "CBARP", "G1", "G1-1", "G2"]
    np.testing.assert_array_equal(adata.X.toarray(), values)
    assert ("counts" in adata.layers) == layer
    assert "total_counts" not in adata.obs


def test_log_values_of_all_genes_are_cut_to_variable_ones(tmp_path, scperturb):
    source = scperturb()
    source.X = sparse.csr_matrix(expression(source.X, np.asarray(source.X.sum(axis=1)).ravel()).astype(np.float32))
    source.write_h5ad(tmp_path / "log.h5ad")
    adata = norman2019(tmp_path / "log.h5ad", n_top_genes=20, check=False)
    assert adata.n_vars == 23
    np.testing.assert_array_equal(adata.X.toarray(), source[:, adata.var_names].X.toarray())
    assert not adata.layers
    assert "total_counts" not in adata.obs


def test_counts_of_some_genes_have_no_library_size(tmp_path, scperturb):
    scperturb()[:, :70].copy().write_h5ad(tmp_path / "part.h5ad")
    with pytest.raises(ValueError, match="counts of 70 genes, whose sums are no library sizes"):
        norman2019(tmp_path / "part.h5ad")


def test_unknown_columns_are_refused(tmp_path, scperturb):
    source = scperturb()
    source.obs = source.obs[["gemgroup"]]
    source.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(KeyError, match="none of the columns guide_identity, .*, but gemgroup"):
        norman2019(tmp_path / "other.h5ad")


def test_check_compares_with_the_published_numbers(tmp_path, monkeypatch, scperturb):
    path = tmp_path / "norman.h5ad"
    scperturb([_norman2019.LEFT_OUT_GUIDE] * 5).write_h5ad(path)
    monkeypatch.setattr(_norman2019, "PUBLISHED", NUMBERS)
    norman2019(path, n_top_genes=20)  # warnings are errors
    monkeypatch.setattr(_norman2019, "PUBLISHED", {**NUMBERS, "cells": 9000, "doubles": 3})
    with pytest.warns(UserWarning, match=r"cells: 84, published 9,000; doubles: 2, published 3\.") as caught:
        norman2019(path, n_top_genes=20)
    assert [one.filename for one in caught if one.category is UserWarning] == [__file__]
    norman2019(path, n_top_genes=20, check=False)


def test_published_numbers_of_norman_add_up():
    published = _norman2019.PUBLISHED
    assert published["conditions"] == 1 + published["singles"] + published["doubles"]
    assert published["targets"] == published["singles"]


def test_sha256_of_a_file_that_is_there(tmp_path, scperturb):
    path = tmp_path / "norman.h5ad"
    scperturb().write_h5ad(path)
    norman2019(path, n_top_genes=20, check=False, sha256=file_hash(path).upper())
    with pytest.raises(ValueError, match=f"{file_hash(path)}, not the expected {'0' * 64}"):
        norman2019(path, sha256="0" * 64)
    assert not path.with_name("norman.h5ad.sha256").exists()


def test_real_part_of_the_screen(shared_data):
    source = ad.read_h5ad(shared_data / "norman2019_devel.h5ad")
    with pytest.warns(UserWarning, match="cells: 3,375, published 108,497; conditions: 34, published 237"):
        adata = norman2019(shared_data / "norman2019_devel.h5ad")
    assert adata.obs["perturbation"].tolist() == ["+".join(sorted(x.split("+"))) for x in source.obs["perturbation"]]
    np.testing.assert_array_equal(adata.X.toarray(), sparse.csr_matrix(source.X).toarray().astype(np.float32))


def test_norman_is_downloaded_once(server, tmp_path, monkeypatch, scperturb):
    pytest.importorskip("pooch")
    folder, url, asked = server
    scperturb().write_h5ad(folder / "norman.h5ad")
    monkeypatch.setattr(_norman2019, "SOURCES", [Source(f"{url}/norman.h5ad?download=1", "N.h5ad")])
    monkeypatch.setattr(_norman2019, "PUBLISHED", NUMBERS)
    monkeypatch.setenv("RAPTORGRAPH_CACHE", str(tmp_path / "cache"))
    first = norman2019(n_top_genes=20)
    second = norman2019(n_top_genes=20)
    assert asked == ["/norman.h5ad?download=1"]
    assert (tmp_path / "cache" / "N.h5ad").is_file()
    np.testing.assert_array_equal(first.X.toarray(), second.X.toarray())


# -- CPA's file ------------------------------------------------------------------------------------------------------
@pytest.fixture
def cpa(scperturb):
    """File as CPA makes it: without the bad guides, values normalized to the median, 75 genes, their counts."""
    source = scperturb()
    library = np.asarray(source.X.sum(axis=1)).ravel()
    target = np.median(library)
    kept = [*source.var_names[:70], *source.var_names[-5:]]
    names = pd.Index([f"ENSG{i:011d}" for i in range(len(kept))])
    counts = source[:, kept].X
    values = np.log1p(target * counts.toarray() / library[:, None]).astype(np.float32)
    guides = source.obs["guide_id"].astype(str)
    obs = pd.DataFrame(
        {
            "guide_identity": guides,
            "read_count": 1000,
            "UMI_count": 60,  # of the guide
            "gemgroup": source.obs["gemgroup"],
            "good_coverage": True,
            "number_of_cells": 1,
            "guide_ids": [GUIDES[guide][2] for guide in guides],
            "guide_merged": [GUIDES[guide][3] for guide in guides],
        },
        index=source.obs_names,
    )
    var = pd.DataFrame({"gene_symbols": kept, "highly_variable": True}, index=names)
    adata = ad.AnnData(sparse.csr_matrix(values), obs=obs, var=var, uns={"log1p": {}, "hvg": {"flavor": "seurat"}})
    adata.layers["counts"] = counts
    return adata, target


@pytest.mark.parametrize("column", ["guide_identity", "guide_ids"])
def test_cpa_s_file_keeps_its_normalization(tmp_path, cpa, column):
    source, target = cpa
    if column == "guide_ids":  # as in Norman2019_raw.h5ad
        del source.obs["guide_identity"]
    source.write_h5ad(tmp_path / "Norman2019_raw.h5ad")
    adata = norman2019(tmp_path / "Norman2019_raw.h5ad", normalization="file", check=False)
    np.testing.assert_array_equal(adata.X.toarray(), source.X.toarray())
    assert not adata.layers  # from which a model would normalize by sums of a part of the genes
    assert "target_sum" not in adata.uns
    assert adata.obs["perturbation"].tolist() == [GUIDES[g][4] for g in np.repeat(list(GUIDES), N_EACH)]
    assert {"KLF1", "MAP2K6", "CBARP"} <= set(adata.var_names)
    # without library sizes nothing else can be had of it
    plain = norman2019(tmp_path / "Norman2019_raw.h5ad", check=False)
    np.testing.assert_array_equal(plain.X.toarray(), source.X.toarray())
    assert "counts" in plain.layers
    with pytest.raises(
        ValueError, match="normalization='median' needs counts of all genes, and the file has 75 genes:"
    ):
        norman2019(tmp_path / "Norman2019_raw.h5ad", normalization="median")
    with pytest.raises(
        ValueError, match="held_out is about the choice of genes, and the file has 75 genes, chosen befor"
    ):
        norman2019(tmp_path / "Norman2019_raw.h5ad", held_out=["KLF1+MAP2K6"])


def test_values_with_library_sizes_are_brought_to_10_000(tmp_path, cpa, scperturb):
    source, target = cpa
    library = np.asarray(scperturb().X.sum(axis=1)).ravel()
    source.obs["n_counts"] = library
    source.write_h5ad(tmp_path / "cpa.h5ad")
    adata = norman2019(tmp_path / "cpa.h5ad", check=False)
    counts = source.layers["counts"].toarray()
    np.testing.assert_allclose(adata.X.toarray(), np.log1p(1e4 * counts / library[:, None]), rtol=1e-4)
    kept = norman2019(tmp_path / "cpa.h5ad", normalization="file", check=False)
    np.testing.assert_array_equal(kept.X.toarray(), source.X.toarray())


def test_the_published_scale_from_all_counts(tmp_path, scperturb):
    """The scale of CPA's file, from the file that can be downloaded."""
    source = scperturb([_norman2019.LEFT_OUT_GUIDE] * 5)
    source.write_h5ad(tmp_path / "norman.h5ad")
    kept = source[source.obs["guide_id"] != _norman2019.LEFT_OUT_GUIDE]
    library = np.asarray(kept.X.sum(axis=1)).ravel()
    adata = norman2019(tmp_path / "norman.h5ad", n_top_genes=None, normalization="median", check=False)
    assert adata.uns["target_sum"] == np.median(library)  # without the cells that are left out
    assert not adata.layers
    expected = np.log1p(np.median(library) * kept.X.toarray() / library[:, None])
    np.testing.assert_allclose(adata.X.toarray(), expected, rtol=1e-5)
    few = norman2019(tmp_path / "norman.h5ad", n_top_genes=20, normalization="median", check=False)
    np.testing.assert_allclose(few.X.toarray(), adata[:, few.var_names].X.toarray(), rtol=1e-6)
    assert few.n_vars == 23
    with pytest.raises(
        ValueError, match="normalization='file': the file has counts of 15000 genes and no log-normalized"
    ):
        norman2019(tmp_path / "norman.h5ad", normalization="file")
    with pytest.raises(ValueError, match="normalization='log' is unknown; use one of '1e4', 'median', 'file'"):
        norman2019(tmp_path / "norman.h5ad", normalization="log")


# -- genes and guides ------------------------------------------------------------------------------------------------
def test_cells_that_are_held_out_say_nothing_of_the_genes(tmp_path, scperturb):
    source = scperturb()
    pair = (source.obs["guide_id"] == "KLF1_MAP2K6__KLF1_MAP2K6_2").to_numpy()
    loud = [f"G{i}" for i in range(40, 45)]  # genes that vary since the pair has much of them, and for no other reason
    factor = np.where(pair[:, None] & source.var_names.isin(loud)[None], 20.0, 1.0).astype(np.float32)
    source.X = source.X.multiply(factor).tocsr()
    source.write_h5ad(tmp_path / "norman.h5ad")
    seen = norman2019(tmp_path / "norman.h5ad", n_top_genes=20, check=False)
    held = norman2019(tmp_path / "norman.h5ad", n_top_genes=20, held_out=["MAP2K6+KLF1"], check=False)
    assert set(loud) & set(seen.var_names)
    assert not set(loud) & set(held.var_names)
    assert held.n_obs == seen.n_obs  # the cells are still there

    source[~pair].copy().write_h5ad(tmp_path / "without.h5ad")
    without = norman2019(tmp_path / "without.h5ad", n_top_genes=20, check=False)
    assert held.var_names.tolist() == without.var_names.tolist()
    assert held.var["perturbation_target"].sum() == 3
    for wrong, error, message in (
        (["KLF1+SPI1"], ValueError, "held_out names 'KLF1.SPI1', which is no perturbation of the screen"),
        (["control"], ValueError, "held_out names 'control'"),
        ("KLF1", TypeError, r"held_out=\['KLF1'\]"),
    ):
        with pytest.raises(error, match=message):
            norman2019(tmp_path / "norman.h5ad", n_top_genes=20, held_out=wrong, check=False)
    with pytest.raises(ValueError, match="n_top_genes=None chooses none"):
        norman2019(tmp_path / "norman.h5ad", n_top_genes=None, held_out=["KLF1+MAP2K6"])


def test_a_target_of_held_out_conditions_stays(tmp_path, scperturb):
    scperturb().write_h5ad(tmp_path / "norman.h5ad")
    held_out = ["C19orf26+TGFBR2"]  # named as in the publication
    adata = norman2019(tmp_path / "norman.h5ad", n_top_genes=20, held_out=held_out, check=False)
    assert "CBARP" in adata.var_names


def test_without_guides_the_bad_ones_cannot_be_left_out(tmp_path, scperturb):
    source = scperturb([_norman2019.LEFT_OUT_GUIDE] * 5)
    del source.obs["guide_id"]
    source.write_h5ad(tmp_path / "norman.h5ad")
    for check in (True, False):
        with pytest.raises(
            KeyError, match="none of the columns guide_identity, guide_id .*NegCtrl1_NegCtrl0__NegCtrl1"
        ):
            norman2019(tmp_path / "norman.h5ad", check=check)


def test_the_converted_screen_is_read_again(server, tmp_path, monkeypatch, scperturb):
    pytest.importorskip("pooch")
    folder, url, asked = server
    scperturb().write_h5ad(folder / "norman.h5ad")
    monkeypatch.setattr(_norman2019, "SOURCES", [Source(f"{url}/norman.h5ad", "N.h5ad")])
    first = norman2019(tmp_path / "cache", n_top_genes=20, check=False)
    monkeypatch.setattr(_norman2019, "_convert", lambda *args, **kwargs: pytest.fail("converted again"))
    second = norman2019(tmp_path / "cache", n_top_genes=20, check=False)
    assert len(list((tmp_path / "cache").glob("norman2019-*.h5ad"))) == 1
    for name in ("X", "obs", "var"):
        one, other = getattr(first, name), getattr(second, name)
        if name == "X":
            np.testing.assert_array_equal(one.toarray(), other.toarray())
            assert sparse.issparse(other)
            assert other.dtype == np.float32
        else:
            pd.testing.assert_frame_equal(one, other)
    np.testing.assert_array_equal(first.layers["counts"].toarray(), second.layers["counts"].toarray())
    assert first.uns["target_aliases"] == second.uns["target_aliases"] == {"C19orf26": "CBARP"}
    assert first.uns["target_sum"] == second.uns["target_sum"] == 1e4
    with pytest.warns(UserWarning, match="ordered labels: 6, published 284"):
        norman2019(tmp_path / "cache", n_top_genes=20)
