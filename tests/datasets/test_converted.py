import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from raptorgraph._files import put_text
from raptorgraph.datasets import _converted
from raptorgraph.datasets._converted import converted


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "download.h5ad"
    path.write_bytes(b"content")
    put_text(path.with_name("download.h5ad.sha256"), "aa11  download.h5ad\n")
    return path


@pytest.fixture
def convert():
    """A conversion, and how often it was made."""
    made = []

    def convert_():
        made.append(1)
        obs = pd.DataFrame({"perturbation": ["control", "A"], "n": [1, 2]}, index=["x", "y"])
        uns = {"target_aliases": {}, "target_sum": 1e4}
        return ad.AnnData(sparse.csr_matrix(np.eye(2, dtype=np.float32)), obs=obs, uns=uns)

    return convert_, made


def test_a_screen_is_converted_once(file, convert):
    make, made = convert
    first = converted("screen", [file], {"n": 5}, make)
    second = converted("screen", [file], {"n": 5}, make)
    assert len(made) == 1
    names = sorted(path.name for path in file.parent.iterdir())
    assert len(names) == 3
    assert names[2].startswith("screen-")
    for adata in (first, second):
        np.testing.assert_array_equal(adata.X.toarray(), np.eye(2))
        assert adata.X.dtype == np.float32
        assert sparse.issparse(adata.X)
        assert adata.obs["perturbation"].tolist() == ["control", "A"]
        assert adata.uns["target_aliases"] == {}
        assert adata.uns["target_sum"] == 1e4


def test_other_arguments_files_and_versions_are_converted_anew(file, convert, monkeypatch):
    make, made = convert
    converted("screen", [file], {"n": 5}, make)
    converted("screen", [file], {"n": None}, make)
    assert len(made) == 2
    put_text(file.with_name("download.h5ad.sha256"), "bb22  download.h5ad\n")
    converted("screen", [file], {"n": 5}, make)
    assert len(made) == 3
    monkeypatch.setattr(_converted, "_VERSION", 99)
    converted("screen", [file], {"n": 5}, make)
    assert len(made) == 4
    assert len(list(file.parent.glob("screen-*.h5ad"))) == 4


def test_a_folder_that_must_not_be_written_costs_no_screen(file, convert, monkeypatch):
    make, made = convert

    def refuse(part, adata):
        raise PermissionError("no")

    monkeypatch.setattr(_converted, "write_h5ad", refuse)
    for n in (1, 2):
        assert converted("screen", [file], {}, make).n_obs == 2
        assert len(made) == n
    assert not list(file.parent.glob("screen-*"))
