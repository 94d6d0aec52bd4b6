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
    monkeypatch.setattr(_answers, "_AT_A_TIME", 4)
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
    assert (found.groupby("perturbation").size() == _answers.N_TOP).all()
    effects = model.predict_effects(["P02"]).loc["P02"]
    rows = found[found["perturbation"] == "P02"]
    assert set(rows["gene"]) == set(effects.abs().nlargest(_answers.N_TOP).index)
    sure = sure_genes(found)
    assert (sure["FDR"] <= 0.05).all()
    own = [gene in label.split("+") for label, gene in zip(sure["perturbation"], sure["gene"], strict=True)]
    assert not any(own)
    left = found.drop(sure.index)
    assert ((left["FDR"] > 0.05) | left["own_target"]).all()


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
