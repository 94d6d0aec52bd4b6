"""Comparisons and tables of a run."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from raptorgraph.report import _results as results


@pytest.fixture
def screen():
    effects = pd.DataFrame([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], index=["A", "B", "A+B"], columns=["g", "h"])
    genes_of = {label: tuple(label.split("+")) for label in effects.index}
    return SimpleNamespace(effects=effects, genes_of=genes_of, single=lambda gene: gene)


def test_combinations_are_compared_with_the_sum_of_their_singles(screen):
    truth = screen.effects.loc[["A+B"]]
    found = results.compare("pairs", truth, truth[["h", "g"]] * 2, screen).set_index("method")
    assert list(found.index) == ["raptorgraph", "sum of measured singles", "no change"]
    # (1, 1) is predicted as (2, 2), as the sum (1, 2) and as nothing
    np.testing.assert_allclose(found["relative_mse"], [1, 0.5, 1])
    assert (found["conditions"] == 1).all()


def test_singles_have_no_sum(screen):
    truth = screen.effects.loc[["A", "B"]]
    found = results.compare("singles", truth, truth, screen)
    assert list(found["method"]) == ["raptorgraph", "no change"]
    np.testing.assert_allclose(found["relative_mse"], [0, 1])


def test_edges_that_are_true_ones():
    edges = pd.DataFrame({"source": ["A", "B"], "target": ["B", "A"]})
    truth = pd.DataFrame([[0, 1, 1], [0, 0, 1], [0, 0, 0]], index=list("ABC"), columns=list("ABC"))
    assert results.edge_count(edges, None, ["A", "B"]) == 2
    assert results.edge_count(edges, truth, ["A", "B"]) == "2, of which 1 are among the 1 true ones"


def test_unmeasured_pairs_that_stand_out_come_first(monkeypatch):
    table = pd.DataFrame(
        {
            "synergy": [1.0, 2.0, 1.5, 1.0],
            "synergy_low": [0.8, 1.8, 1.4, 0.9],
            "synergy_high": [1.2, 2.2, 1.6, 1.1],
            "magnitude": [1.0, 4.0, 9.0, 5.0],
            "interaction": ["undetermined", "synergy", "synergy", "undetermined"],
        },
        index=["plain", "measured", "strong", "large"],
    )
    monkeypatch.setattr(results.tl, "interactions", lambda model, top, n_draws, seed: table.assign(draws=n_draws))
    model = SimpleNamespace(perturbed_genes=["A"] * 101, has_posterior=True)
    said = []
    found = results.ranked_pairs(model, {"measured"}, 0, said.append)
    assert list(found.index) == ["strong", "plain", "large", "measured"]
    assert found["against_sum"].to_dict() == {"strong": "stronger", "plain": "", "large": "", "measured": "stronger"}
    assert set(found["draws"]) == {39}  # 100 draws of 2,000 pairs, for 5,050 pairs
    assert said == ["Intervals of 5,050 pairs take a while: 39 draws each."]
    assert results.ranked_pairs(SimpleNamespace(perturbed_genes=["A"]), set(), 0, said.append) is None
