"""Rankings of genes, and the scores of gene sets in them."""

import numpy as np
import pandas as pd
import pytest

from raptorgraph.tl._set_scores import Ranking, _pulling, _running_sum, check_method, rank, read_sets, score

GENES = list("ABCDEF")
EFFECTS = pd.DataFrame([[3.0, -1.0, 0.0, 2.0, -4.0, 1.0], [0.0, 0.0, 1.0, -1.0, 0.0, 2.0]], ["x", "y"], GENES)
SETS = {"one": ["A", "D", "F"], "two": ["B", "E"]}


def ranking(members, weights=None, values=EFFECTS.loc["x"]):
    members = {"s": np.array(members)}
    weights = {"s": np.ones(len(members["s"])) if weights is None else np.array(weights)}
    return Ranking(np.asarray(values), np.arange(6), np.arange(6), members, weights)


def test_rankings_leave_genes_out():
    x, y = rank(EFFECTS, [["A"], []], SETS, None, None)
    np.testing.assert_array_equal(x.values, EFFECTS.loc["x"])
    assert list(x.ranked) == [1, 2, 3, 4, 5]
    assert list(x.order) == [3, 5, 2, 1, 4]
    assert {name: list(found) for name, found in x.members.items()} == {"one": [3, 5], "two": [1, 4]}
    assert list(y.members["one"]) == [0, 3, 5]
    assert y.moved == ["one"]  # the effect of y is 0 on the other
    assert list(y.order) == [5, 2, 0, 1, 4, 3]  # ties in their order


def test_weights_follow_the_genes():
    weights = {("one", "A"): 2.0, ("one", "D"): -1.0, ("one", "F"): 0.5, ("two", "B"): 3.0, ("two", "E"): 4.0}
    x, _ = rank(EFFECTS, [["D"], []], SETS, weights, None)
    assert list(x.weights["one"]) == [2.0, 0.5]
    assert list(x.weights["two"]) == [3.0, 4.0]


def test_permuted_labels_move_the_ranked_effects_alone():
    x, y = rank(EFFECTS, [["A"], []], SETS, None, 0)
    assert x.places[0] == 0
    assert sorted(x.places) == sorted(y.places) == list(range(6))
    np.testing.assert_array_equal(x.values, EFFECTS.loc["x"].to_numpy()[x.places])
    key = np.random.default_rng(0).permutation(6)
    assert list(y.places) == list(np.argsort(key))  # one permutation of the genes for all perturbations


def test_running_sum():
    # order A D F C B E with sizes 3 2 1 0 1 4; of B and D: -1/4, 5/12, 1/6, -1/12, 1/4, 0
    up, edge = _running_sum(ranking([1, 3]), "s")
    assert up == pytest.approx(5 / 12)
    assert list(edge) == [3]
    # of C and E all of the size lies at the end
    down, edge = _running_sum(ranking([2, 4]), "s")
    assert down == pytest.approx(-1)
    assert list(edge) == [4]


def test_genes_that_pull_a_linear_model():
    # the others have the mean (3 + 0 + 1) / 3; D, E and B lie 2/3 above, 16/3 and 7/3 below
    assert list(_pulling(ranking([1, 3, 4]), "s", -1.0)) == [4, 1]
    assert list(_pulling(ranking([1, 3, 4]), "s", 2.0)) == [3]
    assert list(_pulling(ranking([1, 3, 4], [-1.0, 1.0, 1.0]), "s", 2.0)) == [1, 3]


def test_sets_without_effect_have_no_score():
    nothing = score(ranking([0, 1], values=np.zeros(6)), np.array(GENES), "gsea", 10, 0)
    assert nothing["gene_set"].tolist() == ["s"]
    assert nothing["n_genes"].tolist() == [2]
    assert nothing[["ES", "NES", "p", "FDR"]].isna().all(axis=None)
    assert nothing["leading_edge"].tolist() == [""]


def test_score_of_a_set_at_the_top():
    found = score(ranking([0, 3]), np.array(GENES), "gsea", 10, 0).iloc[0]
    assert found["ES"] == pytest.approx(1)
    assert found["leading_edge"] == "A;D"


def test_weights_are_read_for_linear_models_alone():
    table = pd.DataFrame({"source": list("ssr"), "target": list("ABC"), "weight": [1.0, -2.0, 3.0]})
    sets, weights = read_sets(table, GENES, 1, 9, "ulm")
    assert sets == {"s": ["A", "B"], "r": ["C"]}
    assert weights == {("s", "A"): 1.0, ("s", "B"): -2.0, ("r", "C"): 3.0}
    assert read_sets(table.assign(weight=1.0), GENES, 1, 9, "gsea") == (sets, None)
    with pytest.raises(ValueError, match="weight of 'B' in gene set 's' is -2, and method='gsea' knows no weights"):
        read_sets(table, GENES, 1, 9, "gsea")


def test_an_unknown_method():
    with pytest.raises(ValueError, match="method='ora' is unknown; use one of 'gsea', 'decoupler_gsea', 'ulm', 'mlm'"):
        check_method("ora")
