import gzip

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import io, sparse

from raptorgraph._files import file_hash
from raptorgraph.datasets import _public, _replogle2020
from raptorgraph.datasets._download import Source
from raptorgraph.datasets._replogle2020 import replogle2020

N_GENES = _public.WHOLE_TRANSCRIPTOME


def expression(counts, total):
    return np.log1p(1e4 * counts.toarray() / np.asarray(total)[:, None])


def write_geo(folder, whole_counts, columns=("cell_barcode", "gene_A", "gene_B")):
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


def test_geo_files_become_a_screen(server, tmp_path, monkeypatch, whole_counts):
    pytest.importorskip("pooch")
    folder, url, asked = server
    counts, cells = write_geo(folder, whole_counts)
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


def test_cells_without_an_identified_guide_are_left_out(tmp_path, monkeypatch, whole_counts):
    """A gene that is missing in the table is not the gene "nan"."""
    monkeypatch.setattr(_replogle2020, "MIN_CELLS", 5)
    write_geo(tmp_path, whole_counts)
    whole = replogle2020(tmp_path, n_top_genes=20, check=False)
    table = tmp_path / f"{_replogle2020.PREFIX}cell_identities.csv.gz"
    cells = pd.read_csv(table)
    cells["note"] = [1.5, "text", *[np.nan] * (len(cells) - 2)]
    pmvk = cells.index[(cells["gene_A"] == "PMVK") & (cells["gene_B"] == "NegCtrl3")]
    cells.loc[pmvk[:6], "gene_A"] = np.nan
    cells.loc[pmvk[6:10], "gene_B"] = np.nan
    cells.to_csv(table, index=False)
    (tmp_path / f"{table.name}.sha256").unlink()
    adata = replogle2020(tmp_path, n_top_genes=20, check=False)
    assert set(adata.obs["perturbation"].unique()) == set(whole.obs["perturbation"].unique())
    assert not any("nan" in label for label in adata.obs["perturbation"].unique())
    count = adata.obs["perturbation"].value_counts() - whole.obs["perturbation"].value_counts()
    assert count[count != 0].to_dict() == {"PMVK": -10}


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


def test_geo_tables_are_checked(tmp_path, whole_counts):
    for name in _replogle2020.SOURCES:
        (tmp_path / f"{_replogle2020.PREFIX}{name}").touch()
    write_geo(tmp_path, whole_counts, columns=("cell_barcode", "A", "B"))
    with pytest.raises(KeyError, match="has no column 'gene_A', but cell_barcode, A, B"):
        replogle2020(tmp_path)
    for record in tmp_path.glob("*.sha256"):
        record.unlink()
    write_geo(tmp_path, whole_counts)
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
