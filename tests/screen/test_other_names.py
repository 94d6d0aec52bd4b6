"""Perturbed genes under other names in ``var``: the message says where, and its lines mend it."""

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import raptorgraph as rg
from raptorgraph.screen._other_names import other_names, text_columns, texts, versioned_ids

GENES = ["KLF1", "BAK1", "SPI1", "ACTB", "HLA_A", "GATA1"]
LABELS = ["control", "control", "KLF1", "BAK1", "SPI1", "KLF1+BAK1"]


def screen(labels=LABELS, genes=GENES, var=None):
    cells = pd.DataFrame({"perturbation": np.repeat(labels, 2)}, index=[f"cell{i}" for i in range(2 * len(labels))])
    X = np.random.default_rng(0).poisson(3.0, (len(cells), len(genes))).astype(np.float32)
    return ad.AnnData(X, obs=cells, var=pd.DataFrame(var, index=list(genes)))


def warned(function, adata):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        function(adata)
    return [str(one.message) for one in found if issubclass(one.category, UserWarning)]


def setup(adata):
    return warned(rg.RaptorGraphModel.setup_anndata, adata)


def mend(message, adata):
    """Run the lines at the end of a message."""
    names = {"adata": adata}
    exec("adata." + message.split(" adata.", 1)[1], names)
    return names["adata"]


def n_targets(adata):
    return rg.RaptorGraphModel(adata).get_state_registry("perturbation")["n_targets"]


def test_the_reading_that_finds_most():
    adata = screen(genes=[f"ENSG{i:011d}.3" for i in range(6)], var={
        "symbol": [name.lower() for name in GENES], "alias": [*GENES[:1], None, *"abcd"], "n": range(6),
    })  # fmt: skip
    assert text_columns(adata) == ["symbol", "alias"]
    assert list(texts(adata, "alias")) == ["KLF1", "", *"abcd"]
    names = other_names(adata, ["KLF1", "BAK1", "NONE1"])
    assert names.found == {"KLF1": "ENSG00000000000.3", "BAK1": "ENSG00000000001.3"}
    assert "var['symbol'].str.upper() has 2 of them" in names.message
    assert other_names(adata, ["NONE1", "NONE2"]) is None
    ids = ["ENSG00000000001.7", "ENSG00000000002", "ENSG00000000009.1"]
    assert versioned_ids(adata, ids) == {"ENSG00000000001.7": "ENSG00000000001"}


@pytest.mark.parametrize("dtype", [object, "category", "string"])
@pytest.mark.parametrize("missing", [False, True])
def test_a_column_of_var_that_has_the_perturbed_genes(dtype, missing):
    ids = [f"ENSG{i:011d}" for i in range(6)]
    symbols = pd.Series([*GENES[:5], None if missing else "GATA1"], index=ids, dtype=dtype)
    adata = screen(genes=ids, var={"kind": ["gene"] * 6, "gene_symbol": symbols})
    before = adata.copy()
    (message,) = setup(adata.copy())
    assert message.startswith("None of the 3 perturbed genes is in var_names, and var['gene_symbol'] has 3 of them")
    assert f"'BAK1' is '{ids[1]}'" in message
    (told,) = warned(rg.pp.perturbation_report, adata)
    assert told == message
    assert message in rg.pp.suggest_setup(adata).loc["perturbation_key", "reason"]
    with warnings.catch_warnings(action="ignore"):
        report = rg.pp.perturbation_report(adata)
    assert report.loc["BAK1+KLF1", "suggestions"] == f"BAK1 -> {ids[1]}, KLF1 -> {ids[0]}"
    assert report.attrs["hints"] == [message]
    pd.testing.assert_frame_equal(adata.var, before.var)

    mend(message, adata)
    assert list(adata.var_names[:5]) == GENES[:5]
    assert adata.var_names[5] == (ids[5] if missing else "GATA1")
    assert setup(adata) == []
    assert n_targets(adata) == 3


def test_ids_in_labels_and_other_letters():
    ids = [f"ENSG{i:011d}" for i in range(6)]
    labels = ["control", "control", ids[0], ids[1], ids[2]]
    (message,) = setup(adata := screen(labels, var={"gene_ids": ids}))
    assert "var['gene_ids'] has 3 of them" in message
    assert setup(mend(message, adata)) == []

    (message,) = setup(adata := screen(labels, genes=[f"{name}.7" for name in ids]))
    assert setup(mend(message, adata)) == []
    assert n_targets(adata) == 3

    mouse = [name.capitalize() for name in GENES]
    (message,) = setup(adata := screen(genes=mouse))
    assert "'BAK1' is 'Bak1'" in message
    assert setup(mend(message, adata)) == []
    assert n_targets(adata) == 3
    (message,) = setup(adata := screen(["control", "Klf1", "Bak1"], genes=ids, var={"symbol": GENES}))
    assert setup(mend(message, adata)) == []
    assert n_targets(adata) == 2


def test_versions_of_ids_in_labels_are_taken_away():
    ids = [f"ENSG{i:011d}" for i in range(6)]
    labels = ["control", "control", *(f"{name}.{i + 2}" for i, name in enumerate(ids[:3]))]
    (message,) = setup(adata := screen(labels, genes=ids))
    exec(message.split("Take versions away: ")[1], {"adata": adata})
    assert set(adata.obs["perturbation"]) == {"control", *ids[:3]}
    assert setup(adata) == []
    assert setup(screen(labels, genes=labels[2:] + ids[3:])) == []
    # with other versions there, both are mended, one after the other
    first, second = setup(adata := screen(labels, genes=[f"{name}.9" for name in ids]))
    exec(first.split("Take versions away: ")[1], {"adata": adata})
    assert setup(mend(second, adata)) == []
    assert n_targets(adata) == 3


def test_genes_of_two_genomes():
    (message,) = setup(adata := screen(genes=[f"GRCh38_{name}" for name in GENES[:4]] + ["mm10___Actb", "mm10___Klf1"]))
    assert setup(mend(message, adata)) == []
    assert n_targets(adata) == 3


@pytest.mark.parametrize("dtype", [object, "category", "string"])
def test_no_name_is_lost_with_the_line_that_renames(dtype):
    ids = [f"ENSG{i:011d}" for i in range(6)]
    symbols = pd.Series(["KLF1", "BAK1", "SPI1", "nan", "", None], index=ids, dtype=dtype)
    adata = screen(genes=ids, var={"symbol": symbols, "former_name": range(6)})
    (message,) = setup(adata.copy())
    mend(message, adata)
    assert list(adata.var_names) == ["KLF1", "BAK1", "SPI1", *ids[3:]]
    assert list(adata.var["former_name1"]) == ids
    assert list(adata.var["former_name"]) == list(range(6))
    (message,) = setup(screen(genes=ids, var={"symbol": symbols, "gene_ids": ids}))
    assert "former" not in message  # they are in gene_ids


def test_few_found_by_chance_and_most_found():
    genes = [f"T{i}" for i in range(10)]
    labels = ["control", "control", *genes]
    ids = [f"ENSG{i:011d}" for i in range(9)]
    (message,) = setup(screen(labels, genes=["T0", *ids], var={"symbol": genes}))
    assert message.startswith("Only 1 of the 10 perturbed genes is in var_names, and var['symbol'] has 10")
    # three of ten is a panel of genes, not another name
    assert setup(screen(labels, genes=["T0", "T1", "T2", *ids[:7]], var={"symbol": genes})) == []
    # no other name is known
    assert setup(screen(labels, genes=ids, var={"symbol": ids})) == []
