"""Sizes of effects, genes that change, and pairs to measure next."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import raptorgraph as rg
from raptorgraph.report import _answers
from raptorgraph.report._answers import next_pairs, sizes, sure_genes, top_genes
from raptorgraph.screen import Screen

pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module")
def screen(adata, setup):
    return Screen(adata, setup)


@pytest.fixture(scope="module")
def model(screen):
    """Trained on control and singles."""
    adata = screen.adata[screen.n_perturbed[screen.codes] < 2].copy()
    rg.RaptorGraphModel.setup_anndata(adata, **screen.setup)
    model = rg.RaptorGraphModel(adata)
    model.train(max_epochs=1, enable_progress_bar=False)
    return model


def test_sizes_are_lengths_of_drawn_effects(model, screen, monkeypatch):
    monkeypatch.setattr(_answers, "_MOST_DRAWN", 4 * 100 * 60)
    found = sizes(model, screen, 0)
    assert list(found.index) == screen.conditions
    assert list(found.index[found["trained"]]) == screen.singles
    lengths = np.sqrt((model.sample_effects(screen.conditions, 100, 0) ** 2).sum(axis=2))
    np.testing.assert_allclose(found["magnitude"], np.median(lengths, axis=0))
    np.testing.assert_allclose(found["magnitude_low"], np.quantile(lengths, 0.05, axis=0))
    np.testing.assert_allclose(found["magnitude_high"], np.quantile(lengths, 0.95, axis=0))


def test_sizes_without_a_posterior_and_of_genes_that_are_not_known():
    screen = SimpleNamespace(conditions=["A", "A+B"], genes_of={"A": ("A",), "A+B": ("A", "B")})
    model = SimpleNamespace(
        perturbed_genes=["A"], has_posterior=False, conditions=["A"],
        predict_effects=lambda labels: pd.DataFrame([[3.0, 4.0]], index=labels),
    )  # fmt: skip
    found = sizes(model, screen, 0)
    assert found.loc["A", "magnitude"] == 5
    assert np.isnan(found.loc["A+B", "magnitude"])
    assert found[["magnitude_low", "magnitude_high"]].isna().all(axis=None)


def test_the_genes_that_change_most(model, screen):
    found = top_genes(model, screen)
    assert list(dict.fromkeys(found["perturbation"])) == screen.conditions
    sizes = found.groupby("perturbation").size()
    assert (sizes >= _answers.N_TOP).all()
    effects = model.predict_effects(["P02"]).loc["P02"]
    rows = found[found["perturbation"] == "P02"].head(_answers.N_TOP)
    assert set(rows["gene"]) == set(effects.abs().nlargest(_answers.N_TOP).index)
    sure = sure_genes(found)
    assert (sure["FDR"] <= 0.05).all()
    own = [gene in label.split("+") for label, gene in zip(sure["perturbation"], sure["gene"], strict=True)]
    assert not any(own)
    left = found.drop(sure.index)
    assert ((left["FDR"] > 0.05) | left["own_target"]).all()


class SureAndUnsure:
    """30 genes: the first 24 rise far and unsurely, 6 change little and surely, down or up; the last is perturbed."""

    setup_args = {"perturbation_key": "perturbation", "control": "control", "delimiter": "+"}
    has_posterior, perturbed_genes, conditions = True, ["g29", "P"], ["g29", "P"]
    var_names_ = [f"g{k}" for k in range(30)]

    def predict_effects(self, labels, return_sd=False):
        effects = np.tile([*np.linspace(3, 2, 24), -0.3, 0.3, -0.2, -0.1, 0.1, -1.9], (len(labels), 1))
        sds = np.tile([*[3.0] * 24, *[0.01] * 6], (len(labels), 1))
        return pd.DataFrame(effects, labels, self.var_names_), pd.DataFrame(sds, labels, self.var_names_)


def test_sure_changes_are_there_whatever_others_are_larger(monkeypatch):
    monkeypatch.setattr(_answers, "_MOST_ROWS", 30)
    screen = SimpleNamespace(conditions=["g29", "P"], genes_of={"g29": ("g29",), "P": ("P",)}, var_names=range(30))
    found = top_genes(SureAndUnsure(), screen)
    assert list(dict.fromkeys(found["perturbation"])) == ["g29", "P"]
    for label, own in (("g29", True), ("P", False)):
        rows = found[found["perturbation"] == label]
        assert list(rows["gene"].iloc[:20]) == [f"g{k}" for k in range(20)]
        small = ["g24", "g25", "g26", "g27", "g28"]
        assert list(rows["gene"].iloc[20:]) == (small if own else ["g29", *small])
        assert rows["effect"].abs().is_monotonic_decreasing
        assert list(sure_genes(rows)["gene"]) == list(rows["gene"].iloc[20:])
    monkeypatch.setattr(_answers, "N_SURE", 1)
    found = top_genes(SureAndUnsure(), screen)
    assert list(sure_genes(found)["gene"]) == ["g24", "g25", "g29", "g25"]  # one that falls and one that rises


def test_pairs_that_were_measured_are_not_proposed(model, screen):
    found, reason = next_pairs(model, screen, 0)
    assert reason == ""
    assert set(found["goal"]) == {"learn", "interactions"}
    # 9 of 10 pairs are in the screen, though none is in the training
    (pair,) = set(found["perturbation"])
    assert pair not in screen.conditions
    genes = pair.split("+")
    assert set(genes) <= set(model.perturbed_genes)
    expected = rg.tl.next_pairs(model, 1, "learn", candidates=[tuple(genes)], seed=0)
    row = found[found["goal"] == "learn"].iloc[0]
    assert row["magnitude"] == pytest.approx(expected["magnitude"].iloc[0])
    assert row["rank"] == 1


@pytest.mark.parametrize(
    ("genes", "has_posterior", "labels", "reason"),
    [
        (["A"], True, ["A"], "only one gene was perturbed"),
        (["A", "B"], False, ["A", "B"], "this model has no intervals, from which follows what a measurement would add"),
        (["A", "B"], True, ["A", "A+B"], "all pairs of the perturbed genes were measured"),
    ],
)
def test_why_no_pair_is_proposed(genes, has_posterior, labels, reason):
    screen = SimpleNamespace(genes_of={label: tuple(label.split("+")) for label in labels})
    model = SimpleNamespace(perturbed_genes=genes, has_posterior=has_posterior, conditions=labels)
    found, said = next_pairs(model, screen, 0)
    assert found.empty
    assert said == reason
