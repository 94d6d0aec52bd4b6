"""The public screens: downloads from a local server, labels, genes and checks on small files in their formats."""

import functools
import gzip
import hashlib
import sys
import threading
import warnings
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import io, sparse

from raptorgraph.datasets import _norman2019, _public, _replogle2020
from raptorgraph.datasets._download import Source, cache_folder, fetch, file_hash
from raptorgraph.datasets._norman2019 import norman2019
from raptorgraph.datasets._replogle2020 import replogle2020

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


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    """Requests go to this machine."""
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server(tmp_path):
    """Folder that is served over http, its address, and the paths that were asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{http.server_address[1]}", asked
    http.shutdown()
    http.server_close()
    thread.join()


def whole_counts(n_cells, targets, seed=0):
    """Counts of all genes: 60 expressed ones, some variable, the targets last and hardly variable."""
    rng = np.random.default_rng(seed)
    rate = rng.uniform(1, 5, size=60) * np.where(np.arange(60) < 30, rng.gamma(0.5, 2.0, size=(n_cells, 60)), 1.0)
    counts = sparse.lil_matrix((n_cells, N_GENES), dtype=np.float32)
    counts[:, :60] = rng.poisson(rate)
    counts[:, 60 : 60 + len(targets)] = 1
    names = [*(f"G{i}" for i in range(60)), *targets, *(f"Z{i}" for i in range(N_GENES - 60 - len(targets)))]
    return sparse.csr_matrix(counts), names


def scperturb(extra_guides=()):
    """A file in scPerturb's format: counts, `guide_id`, pairs written "A_B"."""
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


def expected_labels(guides):
    return [GUIDES[guide][4] for guide in guides]


def expression(counts, total):
    return np.log1p(1e4 * counts.toarray() / np.asarray(total)[:, None])


# -- labels and names ------------------------------------------------------------------------------------------------
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


# -- Norman 2019 -----------------------------------------------------------------------------------------------------
def test_full_counts_become_a_screen(tmp_path):
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


def test_all_genes_on_request(tmp_path):
    scperturb().write_h5ad(tmp_path / "norman.h5ad")
    adata = norman2019(tmp_path / "norman.h5ad", n_top_genes=None, check=False)
    assert adata.n_vars == N_GENES
    np.testing.assert_allclose(np.expm1(adata.X.toarray()).sum(axis=1), 1e4, rtol=1e-4)


def test_processed_counts_layer_gives_the_same_screen(tmp_path):
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


def test_log_values_of_all_genes_are_cut_to_variable_ones(tmp_path):
    source = scperturb()
    source.X = sparse.csr_matrix(expression(source.X, np.asarray(source.X.sum(axis=1)).ravel()).astype(np.float32))
    source.write_h5ad(tmp_path / "log.h5ad")
    adata = norman2019(tmp_path / "log.h5ad", n_top_genes=20, check=False)
    assert adata.n_vars == 23
    np.testing.assert_array_equal(adata.X.toarray(), source[:, adata.var_names].X.toarray())
    assert not adata.layers
    assert "total_counts" not in adata.obs


def test_counts_of_some_genes_have_no_library_size(tmp_path):
    scperturb()[:, :70].copy().write_h5ad(tmp_path / "part.h5ad")
    with pytest.raises(ValueError, match="counts of 70 genes, whose sums are no library sizes"):
        norman2019(tmp_path / "part.h5ad")


def test_unknown_columns_are_refused(tmp_path):
    source = scperturb()
    source.obs = source.obs[["gemgroup"]]
    source.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(KeyError, match="none of the columns guide_identity, .*, but gemgroup"):
        norman2019(tmp_path / "other.h5ad")


def test_missing_file_is_named(tmp_path):
    for load in (norman2019, replogle2020):
        with pytest.raises(FileNotFoundError, match="nowhere.h5ad"):
            load(tmp_path / "nowhere.h5ad")


def test_check_compares_with_the_published_numbers(tmp_path, monkeypatch):
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


def test_sha256_of_a_file_that_is_there(tmp_path):
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


# -- downloads -------------------------------------------------------------------------------------------------------
@pytest.fixture
def download(server):
    """Served file, a function that makes its sources, and the paths asked for; pooch is needed."""
    pytest.importorskip("pooch")
    folder, url, asked = server
    content = b"\x89HDF\r\n\x1a\n some file"
    (folder / "good.h5ad").write_bytes(content)
    (folder / "page.h5ad").write_text("<!DOCTYPE html>Download anyway?")

    def sources(*names, known_hash=None):
        return [Source(f"{url}/{name}", "screen.h5ad", known_hash) for name in names]

    return content, sources, asked


def test_first_mirror_fails_and_second_gives_the_file(download, tmp_path):
    content, sources, asked = download
    mirrors = sources("gone.h5ad", "page.h5ad", "good.h5ad")
    path = fetch(mirrors, tmp_path / "cache")
    assert path == tmp_path / "cache" / "screen.h5ad"
    assert path.read_bytes() == content
    assert asked == ["/gone.h5ad", "/page.h5ad", "/good.h5ad"]
    sha256 = hashlib.sha256(content).hexdigest()
    assert (tmp_path / "cache" / "screen.h5ad.sha256").read_text() == f"{sha256}  screen.h5ad\n"
    assert sorted(file.name for file in path.parent.iterdir()) == ["screen.h5ad", "screen.h5ad.sha256"]

    assert fetch(mirrors, tmp_path / "cache", sha256=sha256) == path
    assert len(asked) == 3  # not downloaded again


def test_changed_file_is_noticed(download, tmp_path):
    _, sources, _ = download
    path = fetch(sources("good.h5ad"), tmp_path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"has changed since it was downloaded.*screen.h5ad.sha256.*Delete both"):
        fetch(sources("good.h5ad"), tmp_path)


def test_checksums_are_enforced(download, tmp_path):
    content, sources, _ = download
    md5 = f"md5:{hashlib.md5(content).hexdigest()}"
    assert fetch(sources("good.h5ad", known_hash=md5), tmp_path / "a").is_file()
    with pytest.raises(ConnectionError, match="good.h5ad .*does not match the known hash"):
        fetch(sources("good.h5ad", known_hash="md5:" + "0" * 32), tmp_path / "b")
    with pytest.raises(ConnectionError, match="does not match the known hash"):
        fetch(sources("good.h5ad", known_hash=md5), tmp_path / "b", sha256="0" * 64)
    assert not list((tmp_path / "b").iterdir())
    with pytest.raises(ValueError, match="not the expected 0000"):
        fetch(sources("good.h5ad", known_hash=md5), tmp_path / "a", sha256="0" * 64)


def test_file_put_there_by_hand_is_compared_with_the_published_one(download, tmp_path):
    content, sources, asked = download
    (tmp_path / "screen.h5ad").write_bytes(content)
    with pytest.raises(ValueError, match="the published file 0000"):
        fetch(sources("good.h5ad", known_hash="md5:" + "0" * 32), tmp_path)
    fetch(sources("good.h5ad", known_hash=f"md5:{hashlib.md5(content).hexdigest()}"), tmp_path)
    assert (tmp_path / "screen.h5ad.sha256").is_file()
    assert not asked


def test_error_lists_all_mirrors_and_reasons(download, tmp_path):
    _, sources, _ = download
    nobody = Source("http://127.0.0.1:9/screen.h5ad", "screen.h5ad")  # nothing listens there
    with pytest.raises(ConnectionError) as caught:
        fetch([*sources("gone.h5ad", "page.h5ad"), nobody], tmp_path)
    lines = str(caught.value).split("\n")
    assert lines[0].startswith("screen.h5ad could not be downloaded to")
    assert "gone.h5ad (to screen.h5ad): 404" in lines[1]
    assert "page.h5ad (to screen.h5ad): what it sends is no .h5ad file" in lines[2]
    assert nobody.url in lines[3]
    assert "Connection refused" in lines[3]
    assert "by hand" in lines[4]
    assert not list(tmp_path.glob("screen*"))


def test_download_needs_pooch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    monkeypatch.delenv("RAPTORGRAPH_CACHE", raising=False)
    with pytest.raises(ImportError, match=r'pip install "raptorgraph\[datasets\]"'):
        norman2019()
    with pytest.raises(ImportError, match=r'pip install "raptorgraph\[datasets\]"'):
        replogle2020(tmp_path)


def test_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RAPTORGRAPH_CACHE", str(tmp_path / "set"))
    assert cache_folder() == tmp_path / "set"
    assert cache_folder(tmp_path) == tmp_path
    pooch = pytest.importorskip("pooch")
    monkeypatch.delenv("RAPTORGRAPH_CACHE")
    assert cache_folder() == pooch.os_cache("raptorgraph")


def test_norman_is_downloaded_once(server, tmp_path, monkeypatch):
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


# -- Replogle 2020 ---------------------------------------------------------------------------------------------------
def write_geo(folder, columns=("cell_barcode", "gene_A", "gene_B")):
    """Files in the format of GSM4367984; returns counts (cells x genes) and the table of cells."""
    pairs = {
        ("NegCtrl02093", "NegCtrl3"): 40,
        ("NegCtrl4", "NegCtrl3"): 5,
        ("PMVK", "NegCtrl3"): 30,
        ("NegCtrl02093", "FDPS_2"): 35,
        ("NegCtrl02093", "FDPS"): 5,
        ("HUS1_2", "FDPS_2"): 35,
        ("PMVK", "FDPS"): 29,  # too few
    }
    rows = [pair for pair, n in pairs.items() for _ in range(n)]
    rng = np.random.default_rng(0)
    counts, names = whole_counts(len(rows), ["PMVK", "FDPS", "MT-CO1"])
    counts = counts.tolil()
    counts[:, 100:300] = 1  # 200 genes
    counts[:, 62] = 5
    counts[0, 100:300] = 0  # a cell of few genes
    counts[1, 62] = 5000  # a cell of mitochondria
    counts = counts.tocsr()

    guides = sparse.csr_matrix(rng.poisson(5, size=(len(rows), 2)))
    barcodes = [f"{i:04d}-1" for i in range(len(rows) + 3)]  # the last three have no identity
    matrix = sparse.vstack([sparse.hstack([counts, guides]), sparse.csr_matrix((3, N_GENES + 2))]).T
    prefix = _replogle2020.PREFIX
    with gzip.open(folder / f"{prefix}matrix.mtx.gz", "wb") as file:
        io.mmwrite(file, matrix.astype(int))
    features = [f"ENSG{i:011d}\t{name}\tGene Expression" for i, name in enumerate(names)]
    features += [f"{guide}\t{guide}\tCRISPR Guide Capture" for guide in ("sgPMVKa", "sgFDPSb")]
    for name, lines in (("features", features), ("barcodes", barcodes)):
        with gzip.open(folder / f"{prefix}{name}.tsv.gz", "wt") as file:
            file.write("\n".join(lines) + "\n")
    order = rng.permutation(len(rows))  # other order than in the matrix
    cells = pd.DataFrame([(barcodes[i], *rows[i]) for i in order], columns=["cell_barcode", "gene_A", "gene_B"])
    cells.rename(columns=dict(zip(cells.columns, columns, strict=True))).to_csv(
        folder / f"{prefix}cell_identities.csv.gz", index=False
    )
    return counts, cells.assign(row=order)


def test_geo_files_become_a_screen(server, tmp_path, monkeypatch):
    pytest.importorskip("pooch")
    folder, url, asked = server
    counts, cells = write_geo(folder)
    sources = {
        name: (Source(f"{url}/gone", mirrors[0].file), Source(f"{url}/{mirrors[0].file}", mirrors[0].file))
        for name, mirrors in _replogle2020.SOURCES.items()
    }
    monkeypatch.setattr(_replogle2020, "SOURCES", sources)
    monkeypatch.setattr(_replogle2020, "PUBLISHED", {"conditions": 4, "singles": 2, "doubles": 1})
    adata = replogle2020(tmp_path / "cache", n_top_genes=20)

    bad = (cells["row"] < 2) | ((cells["gene_A"] == "PMVK") & (cells["gene_B"] == "FDPS"))
    kept = cells[~bad]
    assert adata.obs_names.tolist() == kept["cell_barcode"].tolist()
    label = {("PMVK", "NegCtrl3"): "PMVK", ("HUS1_2", "FDPS_2"): "FDPS+HUS1"}
    label |= {("NegCtrl02093", "FDPS_2"): "FDPS", ("NegCtrl02093", "FDPS"): "FDPS"}
    expected = [label.get(pair, "control") for pair in zip(kept["gene_A"], kept["gene_B"], strict=True)]
    assert adata.obs["perturbation"].tolist() == expected
    assert adata.obs["perturbation"].value_counts().to_dict() == {
        "control": 43,
        "FDPS": 40,
        "FDPS+HUS1": 35,
        "PMVK": 30,
    }
    assert adata.var_names[adata.var["perturbation_target"]].tolist() == ["PMVK", "FDPS"]
    total = np.asarray(counts.sum(axis=1)).ravel()[kept["row"]]
    np.testing.assert_array_equal(adata.obs["total_counts"], total)
    columns = [60 + ["PMVK", "FDPS"].index(name) for name in ("PMVK", "FDPS")]
    np.testing.assert_allclose(
        adata[:, ["PMVK", "FDPS"]].X.toarray(), expression(counts[kept["row"]][:, columns], total), rtol=1e-6
    )
    assert len(asked) == 8  # a failure and a download for each file
    again = replogle2020(tmp_path / "cache", n_top_genes=20)
    assert len(asked) == 8
    np.testing.assert_array_equal(again.X.toarray(), adata.X.toarray())


def test_mitochondrial_limit_is_raised_where_half_of_the_cells_would_go():
    rng = np.random.default_rng(0)
    counts = np.ones((60, 400))
    counts[:, 399] = np.where(np.arange(60) < 40, 399 * 0.13 / 0.87, 5)  # 13 % in most cells
    counts[:10, 399] = 399 * 0.2 / 0.8
    adata = ad.AnnData(
        sparse.csr_matrix(counts[rng.permutation(60)]),
        var=pd.DataFrame(index=[*(f"G{i}" for i in range(399)), "MT-1"]),
    )
    share = adata.X[:, 399].toarray().ravel() / np.asarray(adata.X.sum(axis=1)).ravel()
    keep = _replogle2020._good_quality(adata, pd.Series("NegCtrl1+NegCtrl2", index=adata.obs_names))
    np.testing.assert_array_equal(keep, share < 0.15)
    assert keep.sum() == 50


def test_geo_tables_are_checked(tmp_path):
    for name in _replogle2020.SOURCES:
        (tmp_path / f"{_replogle2020.PREFIX}{name}").touch()
    write_geo(tmp_path, columns=("cell_barcode", "A", "B"))
    with pytest.raises(KeyError, match="has no column 'gene_A', but cell_barcode, A, B"):
        replogle2020(tmp_path)
    for record in tmp_path.glob("*.sha256"):
        record.unlink()
    write_geo(tmp_path)
    table = tmp_path / f"{_replogle2020.PREFIX}cell_identities.csv.gz"
    pd.read_csv(table).replace({"cell_barcode": {"0003-1": "XXXX-1"}}).to_csv(table, index=False)
    with pytest.raises(ValueError, match=r"1 cells of .* are not in the matrix \(first: 'XXXX-1'\)"):
        replogle2020(tmp_path)


@pytest.mark.parametrize(
    ("column", "labels"), [("gene", ("CTRL", "A", "A,B")), ("perturbation", ("control", "A", "A+B"))]
)
def test_processed_files_are_taken_as_they_are(tmp_path, column, labels):
    values = np.random.default_rng(0).uniform(0, 3, size=(6, 4)).astype(np.float32)
    source = ad.AnnData(values)
    source.obs[column] = pd.Categorical(np.repeat(labels, 2))
    source.write_h5ad(tmp_path / "exp6.h5ad")
    adata = replogle2020(tmp_path / "exp6.h5ad", check=False, sha256=file_hash(tmp_path / "exp6.h5ad"))
    assert adata.obs["perturbation"].tolist() == ["control", "control", "A", "A", "A+B", "A+B"]
    np.testing.assert_array_equal(adata.X.toarray(), values)
    with pytest.warns(UserWarning, match="conditions: 3, published 82; singles: 1, published 44; doubles: 1"):
        replogle2020(tmp_path / "exp6.h5ad")
    with pytest.raises(ValueError, match="not the expected"):
        replogle2020(tmp_path / "exp6.h5ad", sha256={"exp6.h5ad": "0" * 64})


def test_file_without_labels_is_refused(tmp_path):
    ad.AnnData(np.full((2, 2), 0.5), obs=pd.DataFrame({"x": [1, 2]}, index=["a", "b"])).write_h5ad(tmp_path / "f.h5ad")
    with pytest.raises(KeyError, match="neither 'perturbation' nor 'gene' in obs, but x"):
        replogle2020(tmp_path / "f.h5ad")


@pytest.mark.parametrize(
    ("sha256", "message"), [("0" * 64, "must be a dict"), ({"x": "0"}, "names 'x', which is none")]
)
def test_sha256_of_several_files(tmp_path, sha256, message):
    with pytest.raises(ValueError, match=message):
        replogle2020(tmp_path, sha256=sha256)


# -- the real ones ---------------------------------------------------------------------------------------------------
@pytest.mark.internet
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("load", [norman2019, replogle2020])
def test_true_download_is_the_published_screen(load):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.filterwarnings("error", "The screen differs from the published one")
        adata = load()
    assert adata.n_vars >= 5000
    assert {"counts"} <= set(adata.layers)


@pytest.mark.parametrize("read", [norman2019, replogle2020])
def test_a_file_that_is_no_screen_is_named(read, tmp_path):
    path = tmp_path / "screen.h5ad"
    path.write_text("cell,gene\n")
    with pytest.raises(ValueError, match="screen.h5ad' is a text file"):
        read(path)
