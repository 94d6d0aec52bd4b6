"""Shares of responders, on a model that says what it is told to, and on a trained one."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi
from scipy.stats import binom, chi2

import raptorgraph as rg
from raptorgraph.screen import Setup
from raptorgraph.tl import responders

pytestmark = pytest.mark.usefixtures("few_steps")


class FakeModel:
    """P1 with a guide of 30 responders in 40 and one of 10 in 40, P2 with two alike; cells are told apart surely."""

    conditions = ("P1", "P2", "P1+P2")
    setup_args = dict(Setup.of({"perturbation_key": "perturbation"}))

    def __init__(self, sure=1 - 1e-9):
        counts = {("P1", "a"): (30, 40), ("P1", "b"): (10, 40), ("P2", "c"): (20, 40), ("P2", "d"): (22, 40)}
        counts |= {("P1+P2", "e"): (5, 10), ("control", "n"): (0, 20)}
        rows = [(label, guide, i < k) for (label, guide), (k, n) in counts.items() for i in range(n)]
        obs = pd.DataFrame(rows, columns=["perturbation", "guide", "responded"])
        obs.index = obs.index.astype(str)
        self.adata, self.sure = ad.AnnData(np.zeros((len(obs), 1)), obs=obs), sure

    def get_response_probability(self, guide_key=None, share=None):
        obs = self.adata.obs
        p = pd.Series(np.where(obs["responded"], self.sure, 1 - self.sure), index=obs.index)
        return p.where(obs["perturbation"] != "control")


def test_shares_and_intervals_of_cells_that_are_known():
    found = responders(FakeModel(), level=0.8).set_index("perturbation")
    assert list(found.index) == ["P1", "P2", "P1+P2"]
    np.testing.assert_allclose(found["share"], [0.5, 42 / 80, 0.5], atol=1e-6)
    np.testing.assert_array_equal(found["n_cells"], [80, 80, 10])
    np.testing.assert_allclose(found["told"], 1, atol=1e-6)
    # the posterior of a share under a uniform prior, on a grid of another kind
    grid = np.linspace(0, 1, 100001)
    for label, (k, n) in {"P1": (40, 80), "P2": (42, 80)}.items():
        density = binom.pmf(k, n, grid)
        inside = (
            density > np.sort(density)[::-1][np.searchsorted(np.cumsum(np.sort(density)[::-1]), 0.8 * density.sum())]
        )
        ends = grid[inside][[0, -1]]
        np.testing.assert_allclose(found.loc[label, ["low", "high"]].to_numpy(float), ends, atol=0.006)


def test_guides_that_disagree():
    found = responders(FakeModel(), "guide")
    assert found["guide"].fillna("").tolist() == ["", "a", "b", "", "c", "d", "", "e"]
    whole = found[found["guide"].isna()].set_index("perturbation")
    assert whole["disagree"].to_dict() == {"P1": True, "P2": False, "P1+P2": False}
    # two binomials against one
    gained = sum(binom.logpmf(k, 40, k / 40) - binom.logpmf(k, 40, 0.5) for k in (30, 10))
    assert whole.at["P1", "p"] == pytest.approx(chi2.sf(2 * gained, 1), rel=0.02)
    assert whole.at["P1", "q"] == pytest.approx(2 * whole.at["P1", "p"])  # of two tests the smaller
    assert np.isnan(whole.at["P1+P2", "p"])
    each = found.dropna(subset="guide").set_index("guide")
    np.testing.assert_allclose(each["share"], [0.75, 0.25, 0.5, 0.55, 0.5], atol=1e-6)
    assert not each["disagree"].any()


def test_cells_that_cannot_be_told_apart_say_nothing():
    found = responders(FakeModel(sure=0.52), "guide").set_index("perturbation").drop(index="P1+P2")
    np.testing.assert_allclose(found["told"], 0.04)
    assert (found["high"] - found["low"] > 0.85).all()
    assert not found["disagree"].any()


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"guide_key": "sgrna"}, KeyError, "guide_key='sgrna'"),
        ({"guide_key": 3}, TypeError, "guide_key"),
        ({"level": 0}, ValueError, "level=0"),
        ({"level": 1.5}, ValueError, "level=1.5"),
    ],
)
def test_bad_arguments(arguments, error, match):
    with pytest.raises(error, match=match):
        responders(FakeModel(), **arguments)


def test_model_without_data():
    model = FakeModel()
    model.adata = None
    with pytest.raises(ValueError, match="without data"):
        responders(model)


def test_simulated_screen():
    adata = rg.datasets.simulate(
        150, 6, effect_size=8.0, escape=0.4, n_control_cells=300, n_cells_per_perturbation=80, n_doubles=3,
        n_truth_cells=20, seed=3,
    )  # fmt: skip
    scvi.settings.seed = 0
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraph(adata)
    model.train(max_epochs=20, accelerator="cpu", enable_progress_bar=False)
    found = responders(model).set_index("perturbation")
    truth = adata.obs.groupby(adata.obs["perturbation"].astype(str))["responded"].mean()[found.index]
    assert abs(found["share"] - truth).mean() < 0.1
    assert ((found["low"] <= truth) & (truth <= found["high"])).sum() >= 0.75 * len(found)
    responded = model.get_response_probability().groupby(adata.obs["perturbation"].astype(str)).mean()
    pd.testing.assert_series_equal(found["share"], responded[found.index], check_names=False)
    assert found["told"].between(0.2, 1).all()


def test_interval_of_cells_that_say_nothing_reaches_0_and_1():
    found = responders(FakeModel(sure=0.5), level=1.0).set_index("perturbation")
    assert found.loc[["P1", "P2"], ["low", "high"]].to_numpy().tolist() == [[0.0, 1.0]] * 2
