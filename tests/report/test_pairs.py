import numpy as np
import pytest

import raptorgraph as rg
from raptorgraph import metrics
from raptorgraph.report._pairs import top_pairs
from raptorgraph.screen import Screen


@pytest.fixture(scope="module")
def screen(adata, setup):
    return Screen(adata, setup)


@pytest.fixture(scope="module")
def model(screen):
    adata = screen.adata.copy()
    rg.RaptorGraphModel.setup_anndata(adata, **screen.setup)
    model = rg.RaptorGraphModel(adata)
    model.train(max_epochs=1, enable_progress_bar=False)
    return model


def test_strongest_first_with_intervals_and_measured_scores(screen, model):
    table = rg.tl.interactions(model, n_draws=40, seed=0)
    found = top_pairs(table, screen, model.perturbed_genes, n=4)
    assert found.n_pairs == 10
    assert found.n_weak == 0
    assert found.intervals
    assert not found.prior
    assert found.n_determined == (table["interaction"] != "undetermined").sum()
    assert list(found.top) == ["synergy", "suppression", "neomorphism", "redundancy", "epistasis"]
    for type_, rows in found.top.items():
        assert list(rows["pair"]) == list(table[type_].nlargest(4).index)
        np.testing.assert_array_equal(rows["score"], table.loc[rows["pair"], type_])
        for shown, name in (("score", type_), ("size", "magnitude")):
            for end in ("low", "high"):
                np.testing.assert_array_equal(rows[f"{shown}_{end}"], table.loc[rows["pair"], f"{name}_{end}"])
        assert rows["score"].between(rows["score_low"], rows["score_high"]).all()
        assert rows["size"].between(rows["size_low"], rows["size_high"]).all()
        assert (rows["measured_score"].notna() == rows["measured"]).all()
    rows = found.top["synergy"]
    pair = rows.loc[rows["measured"], "pair"].iloc[0]
    a, b = pair.split("+")
    expected = metrics.synergy(*(screen.effects.loc[label] for label in (a, b, pair)))
    assert rows.set_index("pair").at[pair, "measured_score"] == pytest.approx(expected)


def test_pairs_with_a_gene_that_does_not_stand_out_are_left_out(screen, model):
    strong = set(model.perturbed_genes[1:])
    table = rg.tl.interactions(model, n_draws=0)
    found = top_pairs(table, screen, strong)
    assert found.n_weak == 4
    assert all(len(rows) == 6 for rows in found.top.values())
    assert all(strong.issuperset(pair.split("+")) for rows in found.top.values() for pair in rows["pair"])
    assert not found.intervals
    assert all(rows["score_low"].isna().all() for rows in found.top.values())
    nothing = top_pairs(table, screen, [])
    assert nothing.n_weak == 10
    assert all(rows.empty for rows in nothing.top.values())


def test_pairs_that_the_fit_did_not_see_make_no_more_than_a_prior(screen, model):
    table = rg.tl.interactions(model, n_draws=0)
    assert not top_pairs(table, screen, []).prior
    assert not top_pairs(table[~table["measured"]], screen, []).prior  # whichever of them are listed
    table.attrs["pairs_learned"] = 0
    assert top_pairs(table, screen, []).prior
