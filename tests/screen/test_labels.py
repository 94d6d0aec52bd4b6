import numpy as np
import pandas as pd
import pytest

from raptorgraph.pp import format_perturbation, parse_perturbation
from raptorgraph.screen._labels import parse_labels


@pytest.mark.parametrize(
    ("label", "genes"),
    [
        ("A", ("A",)),
        ("A+B", ("A", "B")),
        ("B+A", ("A", "B")),
        ("A+B+A", ("A", "B")),
        (" B + A ", ("A", "B")),
        ("control", ()),
        ("control+control", ()),
        ("control+A", ("A",)),
        ("A+control+B", ("A", "B")),
        ("C+B+A", ("A", "B", "C")),
        ("Control", ("Control",)),
    ],
)
def test_a_perturbation_is_a_set_of_genes(label, genes):
    assert parse_perturbation(label) == genes


@pytest.mark.parametrize(
    ("label", "control", "delimiter", "genes"),
    [
        ("ctrl_A", ["ctrl", "NT"], "_", ("A",)),
        ("NT_B_A", ["ctrl", "NT"], "_", ("A", "B")),
        ("A::B", "control", "::", ("A", "B")),
        ("A;B", "control", "+", ("A;B",)),
        ("non-targeting", "non-targeting", "-", ()),
        ("A-non-targeting", "non-targeting", "-", ("A",)),
        ("non-targeting-non-targeting-A", "non-targeting", "-", ("A",)),
    ],
)
def test_several_controls_and_other_delimiters(label, control, delimiter, genes):
    assert parse_perturbation(label, control=control, delimiter=delimiter) == genes


def test_format_inverts_parse_for_random_sets_in_any_order():
    rng = np.random.default_rng(0)
    pool = [f"G{i}" for i in range(20)]
    for _ in range(200):
        genes = rng.choice(pool, size=rng.integers(0, 5), replace=True).tolist()
        spelled = genes + ["ctrl"] * int(rng.integers(0, 3))
        rng.shuffle(spelled)
        label = format_perturbation(spelled, control=["ctrl", "NT"])
        assert parse_perturbation(label, control=["ctrl", "NT"]) == tuple(sorted(set(genes)))
        assert format_perturbation(parse_perturbation(label, control=["ctrl", "NT"]), control=["ctrl", "NT"]) == label
        if spelled:
            assert parse_perturbation(" + ".join(spelled), control=["ctrl", "NT"]) == tuple(sorted(set(genes)))
    assert format_perturbation([], control=["ctrl", "NT"]) == "ctrl"


@pytest.mark.parametrize("label", ["", "  ", "A+", "+A", "A++B", "A+ +B"])
def test_empty_parts_are_refused(label):
    with pytest.raises(ValueError, match="empty"):
        parse_perturbation(label)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="delimiter"):
        parse_perturbation("A", delimiter="")
    with pytest.raises(ValueError, match="control"):
        parse_perturbation("A", control=[])
    with pytest.raises(TypeError, match="1.5"):
        parse_perturbation(1.5)
    with pytest.raises(TypeError, match="KLF1"):
        format_perturbation("KLF1")
    with pytest.raises(TypeError, match="3"):
        format_perturbation(["A", 3])
    with pytest.raises(ValueError, match=r"'A\+B' contains the delimiter"):
        format_perturbation(["A+B", "C"])
    with pytest.raises(ValueError, match="empty"):
        format_perturbation(["A", " "])


@pytest.mark.parametrize("dtype", ["category", object, "string"])
def test_parse_labels_gives_codes_of_sorted_conditions(dtype):
    labels = pd.Series(["B", "control", "B+A", "A+B", "A", "ctrl", "ctrl+B"], dtype=dtype)
    parsed = parse_labels(labels, control=["control", "ctrl"])
    assert parsed.conditions == ((), ("A",), ("A", "B"), ("B",))
    assert parsed.genes == ("A", "B")
    assert parsed.codes.dtype == np.int64
    assert parsed.codes.tolist() == [3, 0, 2, 2, 1, 0, 3]


def test_conditions_start_with_control_even_without_control_cells():
    parsed = parse_labels(["B", "A"])
    assert parsed.conditions == ((), ("A",), ("B",))
    assert parsed.codes.tolist() == [2, 1]


def test_unused_categories_are_no_conditions():
    labels = pd.Series(pd.Categorical(["A", "control"], categories=["A", "B", "control", "X++Y"]))
    assert parse_labels(labels).conditions == ((), ("A",))


@pytest.mark.parametrize("empty", [None, np.nan, "", "  "])
@pytest.mark.parametrize("categorical", [False, True])
def test_missing_labels_are_counted_and_the_cells_named(empty, categorical):
    labels = pd.Series(["A", empty, "control", empty], index=["w", "x", "y", "z"], dtype=object)
    labels = labels.astype("category") if categorical else labels
    with pytest.raises(ValueError, match=r"2 of 4 cells have no perturbation label \(first: x, z\)"):
        parse_labels(labels)


def test_numbers_are_no_labels():
    with pytest.raises(TypeError, match="map"):
        parse_labels(pd.Series([1, 2, 3]))


def test_unknown_control_is_an_error_that_proposes_the_likely_one():
    labels = ["non-targeting_1"] * 3 + ["NTC"] + ["KLF1"] * 9 + ["NT5C"]
    with pytest.raises(ValueError, match=r"'KLF1' \(9 cells\)") as error:
        parse_labels(labels, require_control=True)
    assert "control=['NTC', 'non-targeting_1']" in str(error.value)
    assert parse_labels(labels, control=["NTC"], require_control=True).codes.min() == 0
