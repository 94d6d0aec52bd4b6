"""A list of strings holds labels, a tuple or set of strings is one perturbation, and slips are recognized."""

import numpy as np
import pandas as pd
import pytest

from raptorgraph.pp import parse_perturbation
from raptorgraph.screen._asked import asked_perturbations, did_you_mean, listed

SPELLING = {"control": ["control", "NT"], "delimiter": "+"}
GENES = ["P01", "P02", "P10", "HLA-A", "MT-CO1", "GATA1", "KLF1"]


@pytest.mark.parametrize(
    ("given", "sets"),
    [
        ("P02+P01", [("P01", "P02")]),
        (["P01", "P02"], [("P01",), ("P02",)]),
        (("P02", "P01"), [("P01", "P02")]),
        ({"P02", "P01"}, [("P01", "P02")]),
        (frozenset({"P02", "P01", "control"}), [("P01", "P02")]),
        (("P02 ",), [("P02",)]),
        ([("P02", "P01"), "P10", {"P01"}, ["HLA-A", "P01"]], [("P01", "P02"), ("P10",), ("P01",), ("HLA-A", "P01")]),
        ((("P02", "P01"), "P10"), [("P01", "P02"), ("P10",)]),
        (np.array(["P01", "P01+P02"]), [("P01",), ("P01", "P02")]),
        (pd.Index(["NT", "P01"]), [(), ("P01",)]),
        ((label for label in ("P01", "P10")), [("P01",), ("P10",)]),
        ([()], [()]),
        (np.array([["P02", "P01"], ["P01", "P10"]]), [("P01", "P02"), ("P01", "P10")]),
        ([pd.Index(["P02", "P01"])], [("P01", "P02")]),
        (np.array("P01"), [("P01",)]),
        ({"P01": 1}.keys(), [("P01",)]),
    ],
)
def test_what_is_asked(given, sets):
    assert asked_perturbations(given, GENES, **SPELLING) == sets


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ([], ValueError, "empty"),
        ((), ValueError, "empty"),
        (("P01+P02", "P10"), ValueError, r"'P01\+P02' contains the delimiter.*list"),
        ({("P01", "P02"), "P10"}, TypeError, "list"),
        (5, TypeError, "5"),
        (None, TypeError, "None"),
        (b"P01", TypeError, "bytes"),
        ({"P01": 1}, TypeError, "dict"),
        (pd.DataFrame({"P01": [1]}), TypeError, "DataFrame"),
        ([1.5], TypeError, "1.5"),
        ([("P01", 3)], TypeError, "3"),
        (("P01", "nan"), ValueError, "missing"),
        ("TP53", ValueError, r"TP53 was not perturbed in the training screen, .* from\. Perturbed genes: P01"),
    ],
)
def test_what_cannot_be_asked(given, error, words):
    with pytest.raises(error, match=words):
        asked_perturbations(given, GENES, **SPELLING)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("P01_P02", "P01+P02"),
        ("p01", "P01"),
        ("p02 + P01", "P01+P02"),
        ("P01 P02", "P01+P02"),
        ("P01,P02;P10", "P01+P02+P10"),
        ("P01-ctrl", None),
        ("P1", "P01"),
        ("HLA_A_P01", "HLA-A+P01"),
        ("mtco1", "MT-CO1"),
        ("hlaa+P01", "HLA-A+P01"),
        ("nt_P01", "P01"),
        ("Control", "control"),
        ("ctrl", "control"),
        ("P01+ctrl", "P01"),
        ("GATTA1", "GATA1"),
        ("KLF2", None),  # another gene
        ("P03", None),
        ("TP53", None),
        ("KLF1_1", "KLF1"),
        ("sgKLF1-2", "KLF1"),
        ("KLF1 (10nM)", "KLF1"),
        ("KLF1_g2+ctrl", "KLF1"),
        (("P01", "gata1"), "GATA1+P01"),
    ],
)
def test_did_you_mean(asked, meant):
    with pytest.raises(ValueError, match="to predict it from") as error:
        asked_perturbations([asked], GENES, **SPELLING)
    hint = str(error.value).split("to predict it from")[1].split("Perturbed genes")[0].strip()
    assert hint == ("." if meant is None else f"; did you mean {meant!r}?")


def test_names_that_read_alike_are_not_proposed():
    assert did_you_mean("hlaa", ["HLA-A", "HLAA"], **SPELLING) == ""


def test_collections_are_listed_and_parsed():
    assert listed({"a"}) == [{"a"}]
    assert listed(()) == []
    assert listed("a") == ["a"]
    assert parse_perturbation(["B", " A", "control"]) == ("A", "B")
    with pytest.raises(ValueError, match="delimiter"):
        parse_perturbation(("A+B", "C"))
