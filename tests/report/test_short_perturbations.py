"""What is said of the strongest perturbations and of the genes that they change."""

import numpy as np
import pandas as pd
import pytest

from raptorgraph.report._short_perturbations import changed, genes_of_strongest, ranked, strongest

MEANING = (
    " The size of an effect is the length of the vector of the changes of all genes against control cells; in brackets "
    "is its interval of 90 %."
)


def strength(**rows):
    """Size of the effect, and whether it stands out; the interval is a tenth to either side."""
    table = pd.DataFrame(rows, index=["magnitude", "stands_out"]).T
    size = table["magnitude"].astype(float)
    return pd.DataFrame(
        {
            "magnitude": size, "magnitude_low": size - 0.1, "magnitude_high": size + 0.1, "size": size + 1,
            "p": 0.01, "stands_out": table["stands_out"].astype(bool), "trained": True,
        }
    )  # fmt: skip


def test_several_stand_out_and_the_strongest_come_first():
    table = strength(A=(1.0, True), B=(3.0, True), C=(9.0, False), D=(2.0, True), E=(0.5, True))
    assert list(ranked(table).index) == ["B", "D", "A", "E"]
    assert strongest(table) == (
        "4 of 5 perturbations stand out from the noise of sampling cells. The strongest are B, with an effect of size "
        "3.00 [2.90, 3.10]; D, with an effect of size 2.00 [1.90, 2.10]; and A, with an effect of size "
        "1.00 [0.90, 1.10]." + MEANING
    )


def test_predicted_ones_come_behind_those_of_the_training():
    table = strength(A=(1.0, True), B=(3.0, True), C=(2.0, True))
    table.loc["B", "trained"] = False
    assert list(ranked(table).index) == ["C", "A", "B"]
    assert strongest(table) == (
        "All 3 perturbations stand out from the noise of sampling cells. Of those that the model was trained on, the "
        "strongest are C, with an effect of size 2.00 [1.90, 2.10]; and A, with an effect of size 1.00 [0.90, 1.10]."
        + MEANING
    )


def test_one_or_none_of_several_stands_out():
    table = strength(A=(1.0, True), B=(3.0, False))
    assert strongest(table) == (
        "1 of 2 perturbations stands out from the noise of sampling cells: A, with an effect of size 1.00 [0.90, 1.10]."
        + MEANING
    )
    none = table.assign(stands_out=False)
    assert strongest(none) == "None of 2 perturbations stands out from the noise of sampling cells."


def test_the_only_perturbation():
    one = strength(A=(1.0, True))
    assert strongest(one) == (
        "The only perturbation, A, stands out from the noise of sampling cells, with an effect of size "
        "1.00 [0.90, 1.10]." + MEANING
    )
    weak = one.assign(stands_out=False)
    assert strongest(weak) == "The only perturbation, A, does not stand out from the noise of sampling cells."


def test_too_few_control_cells_to_tell():
    table = strength(A=(1.0, False), B=(2.0, False)).assign(p=np.nan)
    assert strongest(table) == (
        "The largest effects are those of B, with an effect of size 2.00 [1.90, 2.10]; and A, with an effect of size "
        "1.00 [0.90, 1.10]; whether that is more than noise cannot be told with so few control cells." + MEANING
    )
    assert strongest(table[:1]).startswith("The only effect is that of A, with")


def test_without_intervals_none_are_spoken_of():
    table = strength(A=(1.0, True), B=(3.0, False)).assign(magnitude_low=np.nan, magnitude_high=np.nan)
    text = strongest(table)
    assert "A, with an effect of size 1.00. " in text
    assert "bracket" not in text
    unknown = strength(A=(np.nan, True), B=(3.0, False)).assign(size=[4.0, 4.0])
    assert "A, with a measured effect of size 4.00." in strongest(unknown)


def genes(rows):
    table = pd.DataFrame(rows, columns=["perturbation", "gene", "effect", "FDR"])
    own = table["gene"] == table["perturbation"]
    return table.assign(low=table["effect"] - 0.5, high=table["effect"] + 0.5, own_target=own)


ROWS = [
    ("A", "A", -3.0, 0.0),
    ("A", "g", -2.0, 0.01),
    ("A", "h", 1.0, 0.05),
    ("A", "unsure", 1.5, 0.06),
    ("A", "k", -2.5, 0.0),
    ("B", "g", 1.0, 0.4),
    ("C", "g", 9.0, 0.0),
]


def test_genes_are_named_whose_change_is_sure_but_for_the_perturbed_one():
    table = strength(A=(3.0, True), B=(2.0, True), C=(5.0, False))
    assert list(genes_of_strongest(table, genes(ROWS), counts=True)) == [
        "A lowers k (−2.50 [−3.00, −2.00]) and g (−2.00 [−2.50, −1.50]), and raises h (+1.00 [0.50, 1.50]). Changes "
        "are on the scale of log(1 + counts per 10,000).",
        "Of no single gene is it sure that B changes it.",
    ]
    (first, _) = genes_of_strongest(table, genes(ROWS), counts=False)
    assert first.endswith("Changes are on the scale of the values in the file.")


def test_of_nothing_that_stands_out_no_gene_is_named():
    assert list(genes_of_strongest(strength(A=(1.0, False)), genes(ROWS), counts=True)) == []
    assert list(genes_of_strongest(strength(A=(1.0, True)), None, counts=True)) == []


def test_without_intervals_no_gene_is_named():
    (text,) = genes_of_strongest(strength(A=(1.0, True)), genes(ROWS).assign(FDR=np.nan), counts=True)
    assert text == "Which genes they change for sure cannot be said, because this model has no intervals."


@pytest.mark.parametrize(
    ("signs", "text"),
    [
        ((-1,), "lowers g0 (−1.00 [−1.50, −0.50])"),
        ((1, 2), "raises g1 (+2.00 [1.50, 2.50]) and g0 (+1.00 [0.50, 1.50])"),
        ((), ""),
    ],
)
def test_ends_of_sentences(signs, text):
    rows = genes([("A", f"g{k}", float(value), 0.0) for k, value in enumerate(signs)])
    assert changed(rows, most=3) == text


def test_no_more_genes_than_asked_for():
    rows = genes([("A", f"g{k}", float(k + 1), 0.0) for k in range(9)])
    assert changed(rows, most=2).count("[") == 2


def test_what_the_model_did_not_see_is_predicted():
    table = strength(A=(3.0, True), B=(2.0, True)).assign(trained=False)
    text = strongest(table)
    assert text.startswith("All 2 perturbations stand out")
    assert "A, with a predicted effect of size 3.00 [2.90, 3.10]; and B, with a predicted effect of size 2.00" in text
    (first, _) = genes_of_strongest(table, genes(ROWS), counts=True)
    assert first.startswith("A is predicted to lower k (−2.50 [−3.00, −2.00]) and g (−2.00 [−2.50, −1.50]), and is ")


def test_of_a_gene_that_the_model_does_not_know_nothing_is_said():
    table = strength(A=(3.0, True), B=(np.nan, True), C=(5.0, False))
    (only,) = genes_of_strongest(table, genes(ROWS), counts=True)
    assert only.startswith("A lowers k")
