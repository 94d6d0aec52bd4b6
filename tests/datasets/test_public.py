import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from raptorgraph.datasets import _norman2019, _public, norman2019, papalexi2021, replogle2020


@pytest.mark.parametrize(
    ("label", "genes"),
    [
        ("control", ()),
        ("ctrl", ()),
        ("", ()),
        ("NegCtrl0_NegCtrl0__NegCtrl0_NegCtrl0", ()),
        ("A", ("A",)),
        ("A+ctrl", ("A",)),
        ("ctrl+A", ("A",)),
        ("B_A", ("B", "A")),
        ("B,A", ("B", "A")),
        ("NegCtrl02093+FDPS", ("FDPS",)),
        ("HOXC13_NegCtrl0__HOXC13_NegCtrl0_2", ("HOXC13",)),
        ("TGFBR2_IGDCC3__TGFBR2_IGDCC3_2", ("TGFBR2", "IGDCC3")),
        ("NKX2-1", ("NKX2-1",)),
        ("CTRLX", ("CTRLX",)),
    ],
)
def test_labels_of_all_files_are_understood(label, genes):
    assert _public.genes_of_label(label) == genes


@pytest.mark.parametrize(
    ("var_names", "label", "found"),
    [
        (["CBARP"], "C19orf26", "CBARP"),
        (["C19orf26"], "CBARP", "C19orf26"),
        (["CBARP", "C19orf26"], "C19orf26", "C19orf26"),  # there under its own name
        (["FOXL2NB"], "C3orf72+X", "FOXL2NB+X"),
        (["MAP3K21"], "KIAA1804", "MAP3K21"),
        (["RHOXF2"], "RHOXF2BB", "RHOXF2"),
        (["RHOXF2BB"], "RHOXF2", "RHOXF2BB"),
        (["MIDEAS"], "ELMSAN1", "MIDEAS"),
        (["other"], "KIAA1804", "KIAA1804"),  # under no name
    ],
)
def test_aliases_resolve_to_the_genes_that_are_there(var_names, label, found):
    adata = ad.AnnData(np.ones((2, len(var_names))), var=pd.DataFrame(index=var_names))
    _public.set_labels(adata, pd.Series([label, "ctrl"], index=adata.obs_names), _norman2019.ALIASES)
    assert adata.obs["perturbation"].tolist() == [found, "control"]
    parts = zip(label.split("+"), found.split("+"), strict=True)
    changed = {old: new for old, new in parts if old != new}
    assert adata.uns["target_aliases"] == changed


def test_missing_labels_are_named():
    adata = ad.AnnData(np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"'guides'.* is missing for 1 cells \(first: 1\)"):
        _public.set_labels(adata, pd.Series(["A", None], index=adata.obs_names, name="guides"))


def test_symbols_take_the_place_of_identifiers():
    ids = [f"ENSG{i:011d}" for i in range(3)]
    adata = ad.AnnData(np.ones((1, 3)), var=pd.DataFrame({"symbol": ["A", "B", "A"]}, index=ids))
    _public.use_symbols(adata)
    assert adata.var_names.tolist() == ["A", "B", "A-1"]
    assert adata.var["gene_ids"].tolist() == ids
    # names that are symbols already stay
    adata = ad.AnnData(np.ones((1, 2)), var=pd.DataFrame({"symbol": ["X", "Y"]}, index=["A", "B"]))
    _public.use_symbols(adata)
    assert adata.var_names.tolist() == ["A", "B"]


def test_numbers_of_a_screen():
    labels = ["control", "A", "A", "B", "A+B", "C+D", "A+B+E"]
    adata = ad.AnnData(np.ones((7, 1)), obs=pd.DataFrame({"perturbation": labels}, index=list("abcdefg")))
    expected = {"cells": 7, "conditions": 6, "singles": 2, "doubles": 2, "targets": 5}
    assert _public.numbers(adata) == expected
    _public.check_published(expected, {**expected, "guides": 3}, "nowhere")  # warnings are errors
    with pytest.warns(UserWarning, match=r"\(nowhere\): singles: 2, published 1,234\. check=False"):
        _public.check_published(expected, {**expected, "singles": 1234}, "nowhere")


def test_whole_counts_become_expression(whole_counts):
    counts, names = whole_counts(20, ["A", "B"])
    source = ad.AnnData(counts, obs=pd.DataFrame(index=[f"c{i}" for i in range(20)]), var=pd.DataFrame(index=names))
    source.obs["perturbation"], source.uns["target_aliases"] = ["control", "A"] * 10, {}
    screen = _public.to_screen(source, None)
    total = counts.toarray().sum(axis=1)
    np.testing.assert_array_equal(screen.obs["total_counts"], total)
    np.testing.assert_allclose(screen.X.toarray(), np.log1p(1e4 * counts.toarray() / total[:, None]), rtol=1e-6)
    np.testing.assert_array_equal(screen.layers["counts"].toarray(), counts.toarray())
    assert sparse.issparse(screen.X)
    assert screen.X.dtype == np.float32


def test_missing_file_is_named(tmp_path):
    for load in (norman2019, papalexi2021, replogle2020):
        with pytest.raises(FileNotFoundError, match="nowhere.h5ad"):
            load(tmp_path / "nowhere.h5ad")


@pytest.mark.internet
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("load", [norman2019, papalexi2021, replogle2020])
def test_true_download_is_the_published_screen(load):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.filterwarnings("error", "The screen differs from the published one")
        adata = load()
    assert adata.n_vars >= 5000
    assert {"counts"} <= set(adata.layers)


@pytest.mark.parametrize("read", [norman2019, papalexi2021, replogle2020])
def test_a_file_that_is_no_screen_is_named(read, tmp_path):
    path = tmp_path / "screen.h5ad"
    path.write_text("cell,gene\n")
    with pytest.raises(ValueError, match="screen.h5ad' is a text file"):
        read(path)
