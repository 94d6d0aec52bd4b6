"""Gene sets of all forms, libraries, and names to read."""

import gseapy
import pandas as pd
import pytest
import requests

from raptorgraph.pp import read_gene_sets
from raptorgraph.pp._gene_sets import clean_set_name, match_gene_sets


def test_gene_sets_in_all_forms(tmp_path):
    sets = {"one": ["G0", "G1", "G2"], "two": ["G2", "G3", "H"]}
    lines = ["\t".join([name, "from nowhere", *genes]) for name, genes in sets.items()]
    (tmp_path / "sets.gmt").write_text("\n".join(lines) + "\n")
    table = pd.DataFrame([(name, gene) for name, genes in sets.items() for gene in genes], columns=["source", "target"])
    for form in (sets, tmp_path / "sets.gmt", str(tmp_path / "sets.gmt"), table, {"one": sets["one"] * 2, **sets}):
        assert read_gene_sets(form) == sets
    matched = match_gene_sets(sets, ["G3", "G2", "G1", "G0"], min_size=2)
    assert matched == {"one": ["G2", "G1", "G0"], "two": ["G3", "G2"]}
    assert match_gene_sets(sets, ["G0", "G1", "G2"], min_size=1) == {"two": ["G2"]}  # "one" is all of them


@pytest.fixture
def enrichr(monkeypatch):
    """Enrichr with one library."""
    asked = []

    def get_library(name, organism, min_size, max_size):
        asked.append((name, organism, min_size, max_size))
        return {"Heme Metabolism": ["ALAS2", "HBB"]}

    monkeypatch.setattr(gseapy, "get_library_name", lambda organism: ["KEGG_2019_Mouse", "MSigDB_Hallmark_2020"])
    monkeypatch.setattr(gseapy, "get_library", get_library)
    return asked


def test_a_library_is_fetched_by_name(enrichr):
    assert read_gene_sets("MSigDB_Hallmark_2020") == {"Heme Metabolism": ["ALAS2", "HBB"]}
    read_gene_sets("KEGG_2019_Mouse", organism="Mouse")
    assert [given[:2] for given in enrichr] == [("MSigDB_Hallmark_2020", "Human"), ("KEGG_2019_Mouse", "Mouse")]
    assert enrichr[0][2:] == (0, 10**9)  # nothing is left out


def test_an_unknown_library(enrichr):
    with pytest.raises(ValueError, match="'MSigDB_Hallmark' is neither .*did you mean 'MSigDB_Hallmark_2020'"):
        read_gene_sets("MSigDB_Hallmark")
    assert not enrichr


def test_a_collection_of_msigdb(monkeypatch):
    def get_gmt(category, dbver):
        return {"HALLMARK_A": ["G1", "G2"]} if (category, dbver) == ("h.all", "2023.2.Hs") else None

    monkeypatch.setattr(gseapy.Msigdb, "get_gmt", get_gmt)
    for name in ("h.all.v2023.2.Hs", "h.all.v2023.2.Hs.symbols"):
        assert read_gene_sets(name) == {"HALLMARK_A": ["G1", "G2"]}
    with pytest.raises(ValueError, match="no collection 'c2.cp.kegg_medicus' of release '2024.1.Hs'"):
        read_gene_sets("c2.cp.kegg_medicus.v2024.1.Hs")


def test_without_a_network(monkeypatch):
    def fail(*args, **kwargs):
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(gseapy, "get_library_name", fail)
    monkeypatch.setattr(gseapy.Msigdb, "get_gmt", fail)
    for name in ("MSigDB_Hallmark_2020", "h.all.v2023.2.Hs"):
        with pytest.raises(ConnectionError, match=f"'{name}' is not the path of a .gmt file.*give its path"):
            read_gene_sets(name)


def test_a_file_is_not_taken_for_a_library(tmp_path, monkeypatch):
    monkeypatch.setattr(gseapy, "get_library_name", lambda **kwargs: pytest.fail("asked for a library"))
    path = tmp_path / "sets.txt"
    path.write_text("a\tb\tG1\n")
    monkeypatch.chdir(tmp_path)
    for given in (path, str(path), "sets.txt"):
        with pytest.raises(ValueError, match="not the path of a .gmt file"):
            read_gene_sets(given)
    for given in ("missing.gmt", "folder/MISSING.GMT"):
        with pytest.raises(FileNotFoundError):
            read_gene_sets(given)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("HALLMARK_TNFA_SIGNALING_VIA_NFKB", "TNFA signaling via NFKB"),
        ("HALLMARK_UV_RESPONSE_DN", "UV response down"),
        ("HALLMARK_E2F_TARGETS", "E2F targets"),
        ("GOBP_MRNA_SPLICING", "mRNA splicing"),
        ("REACTOME_CELL_CYCLE", "Cell cycle"),
        ("Heme Metabolism", "Heme metabolism"),
        ("Cell Cycle R-HSA-1640170", "Cell cycle"),
        ("regulation of cell cycle (GO:0051726)", "Regulation of cell cycle"),
        ("p53 Pathway", "p53 pathway"),
        ("SPIB", "SPIB"),
        ("HALLMARK_", "HALLMARK_"),
    ],
)
def test_names_to_read(name, read):
    assert clean_set_name(name) == read


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({}, ValueError, "There is no gene set"),
        (3, TypeError, "or a table, not int"),
        ({"one": ["G0"], "two": "G1"}, TypeError, "Gene set 'two' is the string 'G1': give a list of genes"),
        (pd.DataFrame({"source": ["one"], "gene": ["G0"]}), KeyError, r"no column 'target', only \['source', 'gene'\]"),
    ],
)
def test_other_forms_are_refused(given, error, match):
    with pytest.raises(error, match=match):
        read_gene_sets(given)


@pytest.mark.parametrize(
    ("text", "match"),
    [("", "The file is empty"), (" \n", "The file is empty"), ("a\tb\tG1\nc d\n", "Line 2 has no tab")],
)
def test_files_that_are_no_gmt(tmp_path, text, match):
    path = tmp_path / "sets.gmt"
    path.write_text(text)
    with pytest.raises(ValueError, match=match):
        read_gene_sets(path)


def test_genes_are_stripped_distinct_and_in_their_order():
    table = pd.DataFrame({"source": pd.Categorical(["b", "a", "b"], list("abc")), "target": [" G1", "G2", "G1"]})
    assert read_gene_sets(table) == {"b": ["G1"], "a": ["G2"]}  # an unused category is no set
    assert read_gene_sets({1: iter([" G2 ", "G1", "G2"])}) == {"1": ["G2", "G1"]}


def test_sets_are_matched_by_size():
    sets, genes = (
        {"one": ["G0", "X"], "two": ["G1", "G0"], "four": ["G3", "G2", "G1", "G0"]},
        [f"G{k}" for k in range(5)],
    )
    assert match_gene_sets(sets, genes, min_size=2) == {"two": ["G0", "G1"], "four": ["G0", "G1", "G2", "G3"]}
    assert match_gene_sets(sets, genes, min_size=1, max_size=2) == {"one": ["G0"], "two": ["G0", "G1"]}
    assert match_gene_sets(sets, genes, min_size=3, max_size=float("inf")) == {"four": ["G0", "G1", "G2", "G3"]}
    with pytest.raises(ValueError, match="min_size=3 and max_size=2 must be min_size <= max_size"):
        match_gene_sets(sets, genes, min_size=3, max_size=2)
    with pytest.raises(ValueError, match="None of the 3 gene sets has from 5 to 500 of the 5 genes .* from 1 to 4"):
        match_gene_sets(sets, genes)
