"""Labels of cells, control labels, and delimiters."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import raptorgraph as rg
from input_table._row import (
    LABELS,
    N_CELLS,
    Case,
    Row,
    closed_form,
    labels,
    objects,
    one_label,
    refused,
    same,
)


def renamed(**names: str):
    """Labels in which some are spelled otherwise."""
    return labels([names.get(label, label) for label in LABELS])


def spelled(*spellings: str, label: str = "BAK1+KLF1"):
    """Labels in which one is spelled in several ways, in turn."""
    found = LABELS.astype(object)
    found[found == label] = np.resize(np.array(spellings, dtype=object), int((found == label).sum()))
    return labels(found)


def of_labels(found, **setup):
    """Labels of a screen of their own, and its effects by definition."""
    found = np.asarray(found, dtype=object)
    canonical = ["+".join(sorted(label.split("+"))) for label in found]
    return {"change": labels(found), "expected": lambda: closed_form(labels=canonical), **setup}


def ten_thousand(case: Case) -> None:
    names = [f"G{i:05d}" for i in range(10_000)]
    obs = pd.DataFrame({"perturbation": ["control"] * 20 + names}, index=[f"cell{i}" for i in range(10_020)])
    values = np.random.default_rng(0).poisson(3.0, (10_020, 5)) + 1
    var = pd.DataFrame(index=["ACTB", "GAPDH", "RPL3", "MYC", "SPI1"])
    adata = ad.AnnData(sparse.csr_matrix(values.astype(np.float32)), obs=obs, var=var)
    rg.RaptorGraphModel.setup_anndata(adata)
    screen = rg.RaptorGraphModel._get_most_recent_anndata_manager(adata, required=True).screen
    assert screen.conditions == names
    scale = np.log1p(1e4 * values / values.sum(1, keepdims=True))
    np.testing.assert_allclose(screen.effects.to_numpy(), scale[20:] - scale[:20].mean(0), rtol=1e-4, atol=2e-5)


def lists(adata: ad.AnnData) -> None:
    adata.obs["perturbation"] = objects([[label] for label in LABELS], adata.obs_names)


def twice(adata: ad.AnnData) -> None:
    adata.obs = pd.concat([adata.obs, adata.obs[["perturbation"]]], axis=1)


G = "Labels"
NO_LABEL = "have no perturbation label"
NOT_TEXT = "Perturbation labels must be strings"

ROWS: list[Row] = [
    same(G, "text in a column of objects"),
    same(G, "a categorical column", labels(lambda column: column.astype("category"))),
    same(
        G,
        "categories that no cell has",
        labels(lambda column: pd.Categorical(column, [*sorted(set(LABELS)), "SPI1", "X++Y"])),
        happens="as if they were not there",
    ),
    same(G, "nullable strings (`string`)", labels(lambda column: column.astype("string"))),
    same(G, "strings of Arrow (`string[pyarrow]`)", labels(lambda column: column.astype("string[pyarrow]"))),
    same(
        G,
        "categories that are strings of Arrow",
        labels(lambda column: column.astype("string[pyarrow]").astype("category")),
    ),
    same(G, "pairs in both orders, `A+B` and `B+A`", spelled("KLF1+BAK1", "BAK1+KLF1"), happens="one perturbation"),
    same(G, "a gene twice, `A+A`", spelled("KLF1+KLF1", "KLF1", label="KLF1"), happens="the gene once"),
    same(G, "a pair with a gene twice, `A+B+A`", spelled("KLF1+BAK1+KLF1"), happens="the pair"),
    same(G, "blanks around labels and parts", spelled(" KLF1 + BAK1 ", "BAK1 +KLF1"), happens="left out"),
    same(G, "tabs and ends of lines around labels", spelled("KLF1\t", "\nKLF1", label="KLF1"), happens="left out"),
    same(
        G,
        "the control within a label, `A+control`",
        spelled("KLF1+control", "control+KLF1", label="KLF1"),
        happens="the label without it",
    ),
    same(
        G,
        "triples, `A+B+C`",
        happens="a perturbation of three genes",
        **of_labels(np.where(LABELS == "BAK1+KLF1", "KLF1+BAK1+SPI1", LABELS)),
    ),
    same(
        G,
        "pairs alone, without singles",
        happens="read; how pairs add up is then a prior",
        **of_labels(np.resize(["control", "KLF1+BAK1", "BAK1+SPI1"], N_CELLS)),
    ),
    same(G, "one perturbation", happens="read", **of_labels(np.where(LABELS == "control", "control", "KLF1"))),
    same(
        G,
        "one cell of each perturbation",
        happens="read, with wide intervals",
        **of_labels(["control"] * (N_CELLS - 3) + ["KLF1", "BAK1", "KLF1+BAK1"]),
    ),
    Row(G, "10,000 labels, one cell each", "read", ten_thousand),
    same(G, "letters of other alphabets", **of_labels(np.where(LABELS == "KLF1", "β-catenin", LABELS))),
    same(
        G,
        "another case than in `var_names`: `klf1`",
        happens="a gene that is not measured: what is called so is told apart by case",
        **of_labels(np.where(LABELS == "BAK1+KLF1", "BAK1", np.where(LABELS == "KLF1", "klf1", LABELS))),
    ),
    same(
        G,
        "all genes in another case than in `var_names`",
        warns="A gene that is not found counts as not measured",
        happens="read",
        **of_labels([label if label == "control" else label.lower() for label in LABELS]),
    ),
    same(
        G,
        "a gene that is not in `var_names`",
        happens="its effect is measured, and its latent placed without its own expression",
        **of_labels(np.where(LABELS == "KLF1", "SOX2", LABELS)),
    ),
    same(
        G,
        "a column of another name, with blanks",
        lambda adata: adata.obs.rename(columns={"perturbation": "my label"}, inplace=True),
        perturbation_key="my label",
    ),
    same(
        G,
        "names of guides, `KLF1_1`",
        warns="look like guides",
        happens="each is a gene of its own",
        **of_labels(np.where(LABELS == "KLF1", np.resize(["KLF1_1", "KLF1_2"], N_CELLS), LABELS)),
    ),
    same(
        G,
        "doses, `JQ1 (1uM)`",
        warns="look like doses",
        happens="each is a gene of its own",
        **of_labels(np.where(LABELS == "KLF1", np.resize(["JQ1 (1uM)", "JQ1 (10uM)"], N_CELLS), LABELS)),
    ),
    same(
        G,
        "cells that are `unassigned`",
        warns="of which the perturbation is not known",
        happens="taken as a gene",
        **of_labels(np.where(LABELS == "KLF1", "unassigned", LABELS)),
    ),
    *(
        refused(
            G, f"a missing label: {name}", one_label(value), ValueError, f"1 of {N_CELLS} cells {NO_LABEL}", "cell15"
        )
        for name, value in {
            "`None`": None,
            "`NaN`": np.nan,
            "`pandas.NA`": pd.NA,
            "empty text": "",
            "a blank": " ",
            "`nan` as text": "nan",
            "`NA` as text": "NA",
            "`None` as text": "None",
            "`N/A`": "N/A",
            "`null`": "null",
            "`<NA>`": "<NA>",
            "a hyphen": "-",
        }.items()
    ),
    refused(
        G,
        "a missing label in a categorical column",
        labels(lambda column: pd.Categorical(column, ["control", "KLF1", "BAK1"])),
        ValueError,
        f"8 of {N_CELLS} cells {NO_LABEL}",
    ),
    refused(
        G,
        "a missing label in nullable strings",
        labels(lambda column: column.astype("string").where(column != "BAK1")),
        ValueError,
        f"8 of {N_CELLS} cells {NO_LABEL}",
    ),
    refused(G, "an empty part, `KLF1+`", one_label("KLF1+"), ValueError, NO_LABEL, "spelled 'KLF1+'"),
    refused(G, "whole numbers", labels(np.arange(N_CELLS) % 4), TypeError, NOT_TEXT, "map(str, na_action='ignore')"),
    refused(G, "numbers", labels(np.arange(N_CELLS) / 2), TypeError, NOT_TEXT, "map(str, na_action='ignore')"),
    refused(G, "categories that are numbers", labels(pd.Categorical(np.arange(N_CELLS) % 4)), TypeError, NOT_TEXT),
    refused(G, "truth values", labels(LABELS == "control"), TypeError, NOT_TEXT),
    refused(G, "nullable whole numbers", labels(pd.array(np.arange(N_CELLS) % 4, dtype="Int64")), TypeError, NOT_TEXT),
    refused(G, "a number among texts", one_label(3), TypeError, NOT_TEXT, "found 3 of type int"),
    refused(G, "bytes", one_label(b"KLF1"), TypeError, NOT_TEXT, "found b'KLF1' of type bytes"),
    refused(G, "tuples of genes", one_label(("KLF1", "BAK1")), TypeError, NOT_TEXT, "of type tuple"),
    refused(G, "lists of genes", lists, TypeError, NOT_TEXT, "of type list"),
    refused(
        G,
        "no such column",
        lambda adata: None,
        KeyError,
        "perturbation_key='gene' is not a column of adata.obs",
        perturbation_key="gene",
    ),
    refused(G, "two columns of the name", twice, ValueError, "is the name of 2 columns of adata.obs; rename them"),
    refused(
        G,
        "a key that is no text",
        lambda adata: None,
        TypeError,
        "perturbation_key=3 must be the name of a column",
        perturbation_key=3,
    ),
    refused(
        G, "a key that is empty", lambda adata: None, ValueError, "perturbation_key='' is empty", perturbation_key=""
    ),
]

C = "Controls"
HALF = np.where((LABELS == "control") & (np.arange(N_CELLS) % 2 == 0), "NT", LABELS)

ROWS += [
    same(C, "another name", renamed(control="non-targeting"), control="non-targeting"),
    same(C, "several names, as a list", labels(HALF), control=["control", "NT"]),
    same(C, "several names, as a tuple", labels(HALF), control=("control", "NT")),
    same(C, "several names, as a set", labels(HALF), control={"control", "NT"}),
    same(C, "several names, as an array", labels(HALF), control=np.array(["control", "NT"])),
    same(C, "several names, as a pandas Index", labels(HALF), control=pd.Index(["control", "NT"])),
    same(C, "blanks around the name", control=" control "),
    same(C, "a name that reads as a missing value, and is given", renamed(control="NA"), control="NA"),
    same(C, "a name with the delimiter in it", renamed(control="non+targeting"), control="non+targeting"),
    same(C, "names of which no cell has one", control=["control", "scramble"], happens="as if it were not given"),
    same(
        C,
        "a second name that is not given",
        labels(np.where(LABELS == "KLF1", "NT", LABELS)),
        warns="are named like controls",
        happens="taken as a gene",
        expected=lambda: closed_form(labels=np.where(LABELS == "KLF1", "NT", LABELS)),
    ),
    same(
        C,
        "two control cells",
        happens="read, with wide intervals",
        **of_labels(["control"] * 2 + ["KLF1"] * (N_CELLS - 2)),
    ),
    refused(
        C,
        "a name that no label has",
        lambda adata: None,
        ValueError,
        "No cell is labeled as control",
        "control=['control']",
        control="wildtype",
    ),
    refused(
        C,
        "another case, `Control`",
        renamed(control="Control"),
        ValueError,
        "No cell is labeled as control",
        "control=['Control']",
    ),
    *(
        refused(
            C,
            f"the name `{name}`, which is not given",
            renamed(control=name),
            ValueError,
            "No cell is labeled as control",
            f"control={[name]!r}",
        )
        for name in ("non-targeting", "NT", "ctrl", "NTC", "negative_control", "AAVS1", "DMSO", "unperturbed", "WT")
    ),
    refused(
        C,
        "one control cell",
        labels(["control"] + ["KLF1"] * (N_CELLS - 1)),
        ValueError,
        "1 control cell(s)",
        "at least two are needed",
    ),
    refused(C, "control cells only", labels(["control"] * N_CELLS), ValueError, "has control cells only"),
    *(
        refused(
            C,
            f"`control={value!r}`",
            lambda adata: None,
            ValueError,
            "must be a label or a list of labels",
            control=value,
        )
        for value in (0, None, "", [], ["control", 3], {"control": 1})
    ),
]

D = "Delimiters"


def split_by(delimiter: str) -> Row:
    """Row of combinations that are written with a delimiter, which is given."""
    code = f"`{delimiter}`"
    effects = closed_form().rename(index={"BAK1+KLF1": f"BAK1{delimiter}KLF1"})
    change = renamed(**{"BAK1+KLF1": f"KLF1{delimiter}BAK1"})
    return same(D, f"{code} in labels, and given", change, expected=lambda: effects, delimiter=delimiter)


def with_genes(old: str, new: str, **names: str):
    """Change of labels, with another name for a gene."""

    def change(adata: ad.AnnData) -> None:
        renamed(**names)(adata)
        adata.var_names = [new if name == old else name for name in adata.var_names]

    return change


ROWS += [
    *(split_by(delimiter) for delimiter in ("_", "::", ";", "|", ",", "&", ".", "/", " and ", "＋")),
    refused(
        D,
        "`_` in labels, and not given",
        renamed(**{"BAK1+KLF1": "KLF1_BAK1"}),
        ValueError,
        "No label has the delimiter '+', and 'KLF1_BAK1' looks like a combination: use delimiter='_'",
    ),
    same(
        D,
        "`HLA_A`, a gene, beside the delimiter `+`",
        with_genes("KLF1", "HLA_A", KLF1="HLA_A"),
        happens="one gene",
        expected=lambda: closed_form(labels=np.where(LABELS == "KLF1", "HLA_A", LABELS)).rename(
            columns={"KLF1": "HLA_A"}
        ),
    ),
    same(
        D,
        "`NKX2_1`, a gene that the delimiter `_` cuts",
        with_genes("SPI1", "NKX2_1", KLF1="NKX2_1", **{"BAK1+KLF1": "BAK1_SPI1"}),
        delimiter="_",
        warns="cuts 'NKX2_1', which is in var_names",
        happens="read as two genes",
        expected=lambda: closed_form(
            labels=[{"KLF1": "1_NKX2", "BAK1+KLF1": "BAK1_SPI1"}.get(label, label) for label in LABELS]
        ).rename(columns={"SPI1": "NKX2_1"}),
    ),
    *(
        refused(
            D, f"`delimiter={value!r}`", lambda adata: None, ValueError, "must be a non-empty string", delimiter=value
        )
        for value in ("", None, 1)
    ),
]
