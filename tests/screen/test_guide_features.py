"""Variables that read a guide are told from genes that are called nearly so."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import raptorgraph as rg
from raptorgraph.screen._guide_features import guide_features
from raptorgraph.screen._variants import genes_of_guide

GENES = ["KLF1", "BAK1", "HLA-A"]


def screen(names, types=None, labels=("control", "KLF1", "BAK1", "HLA-A", "KLF1+BAK1"), key="perturbation"):
    cells = pd.DataFrame({key: np.repeat(labels, 4)}, index=[f"cell{i}" for i in range(4 * len(labels))])
    X = np.random.default_rng(0).poisson(3.0, (len(cells), len(names))).astype(np.float32)
    return ad.AnnData(X, cells, pd.DataFrame(None if types is None else {"feature_types": types}, index=list(names)))


@pytest.mark.parametrize(
    "name",
    [
        "KLF1_g2", "KLF1-g1", "KLF1|g2", "sgKLF1", "sgKLF1-3", "KLF1_sgRNA_2", "gRNA_KLF1_1", "KLF1g2", "sgKLF1_g2",
        "KLF1_+_12997999.23-P1P2", "5025_KLF1_P1P2_ENSG00000105610", "KLF1_pDS269", "sgHLA-A", "HLA-A_g1",
        "KLF1_g1:BAK1_g2", "NT_g1:KLF1_g2", "KLF1_g1|NT_g2", "sgKLF1,sgBAK1", "UNKNOWN_g1:KLF1_g2",
    ],
)  # fmt: skip
def test_guides(name):
    assert guide_features(screen(["ACTB", name]), GENES).tolist() == [False, True]


@pytest.mark.parametrize(
    "name",
    [
        "KLF1", "KLF1-1", "KLF1.1", "KLF1_1", "KLF1-AS1", "KLF1OS", "KLF1P1", "KLF1_ENSG00000105610", "HLA-A", "HLA-B",
        "SIGLEC1", "ENSG00000105610.4", "KLF1:1-200", "chr1:100-200", "KLF1:BAK1", "SPI1_g1", "NT_g1", "NT_g1:SPI1_g2",
        "sgSPI1-1", "CD3:KLF1_g1", "GRCh38_KLF1", "KLF1-201",
    ],
)  # fmt: skip
def test_genes_and_guides_of_others(name):
    """A row of a gene, an antisense transcript, a fusion, a peak; guides of genes that the screen does not have."""
    assert not guide_features(screen(["ACTB", name]), GENES).any()


def test_the_type_that_cell_ranger_writes():
    types = ["Gene Expression", "CRISPR Guide Capture", "Antibody Capture", "CRISPR Guide Capture"]
    adata = screen(["ACTB", "NT-1", "CD14", "KLF1"], types)
    assert rg.pp.guide_features(adata).tolist() == [False, True, False, True]
    adata.var["feature_types"] = adata.var["feature_types"].astype("category")
    assert rg.pp.guide_features(adata).tolist() == [False, True, False, True]


def test_labels_that_name_guides_have_no_gene_of_that_name():
    """Else the read-out of a guide would be the expression of the gene that it perturbs."""
    adata = screen(["ACTB", "KLF1_g1", "BAK1_g1"], labels=("control", "KLF1_g1", "BAK1_g1"))
    assert rg.pp.guide_features(adata).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("key", "labels", "arguments"),
    [
        ("perturbation", ("control", "KLF1", "BAK1"), {}),
        ("gene", ("NT", "safe", "KLF1_BAK1", "KLF1"), {"control": ["NT", "safe"], "delimiter": "_"}),
    ],
)
def test_the_setup_says_how_to_leave_them_out(key, labels, arguments):
    adata = screen(["ACTB", "KLF1", "sgKLF1-1", "NT_g1:BAK1_g2"], labels=labels, key=key)
    arguments = {"perturbation_key": key, **arguments}
    with pytest.warns(UserWarning, match=r"2 of 4 variables read guides and no genes \('sgKLF1-1'") as found:
        rg.RaptorGraphModel.setup_anndata(adata.copy(), **arguments)
    assert rg.pp.perturbation_report(screen(["ACTB", "KLF1"], labels=labels, key=key), **arguments).attrs["hints"] == []
    (message,) = [str(one.message) for one in found]
    space = {"raptorgraph": rg, "adata": adata}
    exec(message.split("Leave them out: ")[1], space)
    assert space["adata"].var_names.tolist() == ["ACTB", "KLF1"]
    with pytest.warns(UserWarning, match="read guides"):
        assert "read guides" in rg.pp.perturbation_report(adata, **arguments).attrs["hints"][0]


def test_a_number_may_be_that_of_the_gene_or_of_the_guide():
    assert genes_of_guide("NT_g1") == {"NT"}
    assert genes_of_guide("KLF1-2") == set()
    assert genes_of_guide("sgKLF1_g2") == {"KLF1"}
    assert genes_of_guide("sgNKX2-1") == {"NKX2-1", "NKX2"}
    assert guide_features(screen(["ACTB", "sgNKX2-1", "sgNKX2-1-3"]), ["NKX2-1"]).tolist() == [False, True, True]
