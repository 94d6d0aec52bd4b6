"""What is said in short of pairs that interact, and of those to measure next."""

import numpy as np
import pandas as pd
import pytest

from raptorgraph.report._results import against
from raptorgraph.report._short_pairs import pairs, to_measure, why_none


def table_of(rows):
    table = pd.DataFrame(rows, columns=["label", "synergy", "synergy_low", "synergy_high", "measured"])
    beyond = table["synergy_low"] > 1, table["synergy_high"] < 1
    table["interaction"] = np.select(beyond, ["synergy", "suppression"], "undetermined")
    table[["singles_measured", "both_stand_out"]], table["pairs_seen"] = True, 1
    table["against_sum"] = against(table, 1.0)
    table["against_median"] = against(table, table["synergy"].median())
    table.attrs["pairs_learned"] = 1
    return table.set_index("label")


DETERMINED = table_of([("A+B", 1.5, 1.1, 2.0, False), ("C+D", 0.6, 0.5, 0.7, True), ("E+F", 1.0, 0.9, 1.1, False)])


def test_pairs_whose_interaction_is_determined():
    assert pairs(DETERMINED) == (
        "2 of 3 pairs have an interaction that is determined. The one that was not measured is A+B (synergy, 1.50 "
        "[1.10, 2.00]). The one that was measured is C+D (suppression, 0.60 [0.50, 0.70]). The number is the synergy, "
        "the size of the pair's effect over that of the sum of both effects: 1 where effects add up, 1.00 for "
        "the median of these pairs."
    )


def test_pairs_that_are_no_more_than_the_median_pair():
    alike = table_of([("A+B", 0.6, 0.5, 0.7, False), ("C+D", 0.6, 0.5, 0.7, True)])
    text = "None of them stands out from the median pair, so the screen gives no reason to prefer one."
    assert pairs(alike).endswith(text)
    assert text not in pairs(DETERMINED)
    alike.attrs["n_pairs"] = 45  # the median of those that are listed is not that of all
    assert text not in pairs(alike)
    some = "2 of the 2 pairs (of 45) that depart most from the sum have an interaction that is determined."
    assert pairs(alike).startswith(some)


def test_why_no_interaction_can_be_called():
    table = table_of([("A+B", 1.3, 0.9, 1.6, False), ("C+D", 1.0, 0.9, 1.1, True)])
    start = "No interaction can be called, because "
    assert pairs(table) == (
        f"{start}all intervals (90 %) hold additive effects; the largest difference among the unmeasured pairs whose "
        "genes stand out is that of A+B, with a synergy of 1.30 [0.90, 1.60]."
    )
    assert "is that of C+D, with a synergy of 1.00 [0.90, 1.10]" in pairs(table.assign(both_stand_out=[False, True]))
    weak = table.assign(both_stand_out=False)
    assert pairs(weak) == (
        f"{start}there is no pair of two genes whose single effects were measured and stand out from noise."
    )
    table.attrs["pairs_learned"] = 0
    assert why_none(table).endswith("all scores and intervals are a prior")
    assert pairs(table.drop(columns=["synergy_low", "synergy_high"])) == f"{start}this model has no intervals."


@pytest.mark.parametrize("table", [None, pd.DataFrame()])
def test_one_gene_makes_no_pair(table):
    assert pairs(table) == "There is no pair: only one gene was perturbed."


def following(goal, n):
    gain = np.linspace(0.3, 0.1, n)
    return pd.DataFrame(
        {
            "perturbation": [f"{goal}{k}" for k in range(n)], "goal": goal, "gain": gain, "total": gain.cumsum(),
            "n_cells": 250,
        }
    )  # fmt: skip


def test_pairs_to_measure_next():
    both = pd.concat([following("learn", 5), following("interactions", 5)])
    assert to_measure(both, "") == (
        "Measure learn0, learn1 and learn2 next, each in 250 cells, to learn most about the other pairs: together they "
        "are expected to remove 75 % of the variance of their effects. Or, to find strong interactions, measure "
        "interactions0 (probability 0.30), interactions1 (probability 0.25) and interactions2 (probability 0.20): that "
        "is the probability that the pair is in the quarter of those to choose from that departs most from the sum."
    )
    assert to_measure(following("learn", 1), "") == (
        "Measure learn0 next, in 250 cells, to learn most about the other pairs: it is expected to remove 30 % of the "
        "variance of their effects."
    )
    assert to_measure(following("interactions", 1), "") == (
        "To find strong interactions, measure interactions0 (probability 0.30): that is the probability that the pair "
        "is in the quarter of those to choose from that departs most from the sum."
    )

    nothing = pd.concat([following("learn", 2).assign(total=0.0), following("interactions", 1)])
    assert to_measure(nothing, "").startswith("To find strong interactions, measure interactions0")


def test_why_no_pair_is_named():
    assert to_measure(pd.DataFrame(), "all pairs were measured") == (
        "No pair to measure next is named, because all pairs were measured."
    )
