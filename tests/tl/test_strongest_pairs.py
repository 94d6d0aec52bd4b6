"""Pairs that come first, against tables of all pairs."""

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cdist

from raptorgraph import tl
from raptorgraph.inference import EffectPosterior
from raptorgraph.screen._setup import Setup
from raptorgraph.tl import _next_pairs, _reverse, _strongest_pairs
from raptorgraph.tl._pair_list import PairList
from raptorgraph.tl._strongest_pairs import RANKED_BY, PairMeans, _Best, scores_of


@pytest.fixture(scope="module")
def model(pairs_model):
    return pairs_model


@pytest.fixture(scope="module")
def means(model):
    return PairMeans.of(model, sorted(model.perturbed_genes))


def effects_of_pairs(means):
    """Both single effects and the approximate effect of each pair, written out."""
    k = len(means.singles)
    first, second = np.triu_indices(k, 1)
    scale = means.scales(slice(0, k)).numpy()[first, second, None]
    a, b = means.singles.numpy()[first], means.singles.numpy()[second]
    inherited = means.inherited.numpy()
    return first, second, a, b, scale * (inherited[first] + inherited[second]) + means.common.numpy()


@pytest.mark.parametrize("by", RANKED_BY)
@pytest.mark.parametrize("rows", [2, 100])
def test_scores_from_inner_products_are_those_of_the_effects(means, by, rows, monkeypatch):
    monkeypatch.setattr(_strongest_pairs, "_BLOCK_VALUES", rows * len(means.singles))
    first, second, a, b, ab = effects_of_pairs(means)
    expected = scores_of(a, b, ab, by)
    np.testing.assert_allclose(means.values(first, second, by), expected, rtol=1e-3, atol=2e-4)
    found = list(zip(*means.largest(4, by), strict=True))
    best = [(first[k], second[k]) for k in np.argsort(-expected, kind="stable")[:4]]
    assert found == best


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "pearson"])
def test_nearest_pairs_are_those_of_the_effects(means, metric):
    first, second, a, _, ab = effects_of_pairs(means)
    queries, offset = a[[3, 9]] + 0.1, np.linspace(0, 0.3, a.shape[1])
    distance = cdist(queries, ab + offset, {"pearson": "correlation"}.get(metric, metric))
    expected = {(first[k], second[k]) for row in distance for k in np.argsort(row)[:3]}
    assert means.nearest(queries, metric, 3, offset) == expected
    if metric == "euclidean":
        distance = cdist(queries[:1], ab)[0]
        np.testing.assert_allclose(means.distances(first, second, queries[0]), distance, rtol=1e-4)


class Table:
    """A model that is nothing but the posterior of a table of effects, of 24 genes and 20 pairs."""

    has_posterior, adata, is_trained = True, None, True

    def __init__(self, k=24, n_pairs=20, n_genes=150):
        rng = np.random.default_rng(0)
        pairs = np.zeros((n_pairs, k))
        every = list(combinations(range(k), 2))
        for row, at in zip(pairs, rng.permutation(len(every)), strict=False):
            row[list(every[at])] = 1
        design = np.vstack([np.eye(k), pairs])
        size = rng.lognormal(-1.5, 0.7, (k, 1))
        single = size * (rng.normal(size=(k, 3)) @ rng.normal(size=(3, n_genes)) + rng.normal(size=(k, n_genes)))
        effect = np.where(design.sum(1, keepdims=True) > 1, 0.7, 1.0) * (design @ single)
        effect += 0.05 * rng.normal(size=effect.shape)
        posterior = EffectPosterior()
        variance, n_cells = torch.full(effect.shape, 0.003), torch.full((len(effect),), 100.0)
        posterior.fit(torch.tensor(design), torch.tensor(effect), variance.double(), n_cells, 500, n_steps=10)
        self.calibration = SimpleNamespace(posterior=posterior)
        self.perturbed_genes = [f"P{i:02d}" for i in range(k)]
        self.var_names_ = [f"g{i}" for i in range(n_genes)]
        self.setup_args = {"perturbation_key": "perturbation", "control": "control", "delimiter": "+"}
        self.conditions = ["+".join(np.array(self.perturbed_genes)[row > 0]) for row in design]

    def design(self, labels):
        rows = [[float(gene in label.split("+")) for gene in self.perturbed_genes] for label in labels]
        return torch.tensor(rows, dtype=torch.float64)

    def predict_effects(self, labels):
        values = self.calibration.posterior.mean(self.design(labels)).numpy()
        return pd.DataFrame(values.astype(np.float32), labels, self.var_names_)

    def sample_effects(self, labels, n_draws, seed):
        return self.calibration.posterior.draw(self.design(labels), n_draws, seed).numpy()


@pytest.fixture(scope="module")
def table_model():
    return Table()


@pytest.mark.parametrize("by", RANKED_BY)
def test_of_many_pairs_those_are_predicted_that_can_come_first(table_model, by, monkeypatch):
    genes = table_model.perturbed_genes
    pairs = list(combinations(genes, 2))
    singles = table_model.predict_effects(genes).to_numpy()
    both = table_model.predict_effects(["+".join(pair) for pair in pairs]).to_numpy()
    a, b = (singles[[genes.index(pair[side]) for pair in pairs]] for side in (0, 1))
    exact = scores_of(a, b, both, by)
    monkeypatch.setattr(_strongest_pairs, "SPARE", 20)
    asked = counted(table_model, monkeypatch)
    table = tl.interactions(table_model, top=5, by=by, n_draws=0)
    assert list(table.index) == ["+".join(pairs[k]) for k in np.argsort(-exact, kind="stable")[:5]]
    assert len(set(asked)) <= 25 + 20 < len(pairs)


def test_draws_are_of_the_listed_pairs_alone(table_model, monkeypatch):
    drawn, sample = [], table_model.sample_effects
    monkeypatch.setattr(
        table_model,
        "sample_effects",
        lambda labels, *args: drawn.extend(labels) or sample(labels, *args),
        raising=False,
    )
    table = tl.interactions(table_model, top=4, n_draws=20, seed=0)
    assert sorted(label for label in drawn if "+" in label) == sorted(table.index)
    pd.testing.assert_frame_equal(table, tl.interactions(table_model, list(table.index), n_draws=20, seed=0))


def counted(model, monkeypatch):
    """Labels of pairs whose effects are asked for."""
    asked, predict = [], model.predict_effects

    def predict_effects(labels, **kwargs):
        asked.extend(label for label in labels if "+" in label)
        return predict(labels, **kwargs)

    monkeypatch.setattr(model, "predict_effects", predict_effects, raising=False)
    return asked


@pytest.mark.parametrize("by", ["departure", "magnitude"])
def test_pairs_that_come_first(model, by):
    genes, setup = sorted(model.perturbed_genes), Setup.of(model.setup_args)
    pairs = list(combinations(genes, 2))
    singles = model.predict_effects(genes).to_numpy()
    both = model.predict_effects([setup.label(pair) for pair in pairs]).to_numpy()
    a, b = (singles[[genes.index(pair[side]) for pair in pairs]] for side in (0, 1))
    order = np.argsort(-scores_of(a, b, both, by), kind="stable")
    expected = [setup.label(pairs[k]) for k in order[:3]]
    whole = tl.interactions(model, n_draws=20, seed=0)
    table = tl.interactions(model, top=3, by=by, n_draws=20, seed=0)
    assert list(table.index) == expected
    pd.testing.assert_frame_equal(table, whole.loc[expected])
    assert table.attrs["ranked"] == f"the first 3 of 15 pairs by the {by} of their predicted effects"


def test_asked_pairs_are_ranked_among_themselves(model):
    labels = [f"{a}+{b}" for a, b in combinations(sorted(model.perturbed_genes), 2)][:6]
    whole = tl.interactions(model, labels, n_draws=0)
    table = tl.interactions(model, labels, top=2, by="magnitude", n_draws=0, chunk_size=4)
    assert list(table.index) == list(whole["magnitude"].nlargest(2).index)
    assert table.attrs["n_pairs"] == 6


@pytest.mark.parametrize(
    ("options", "match"),
    [({"top": 0}, "top=0"), ({"top": 2, "by": "size"}, "by='size'"), ({"by": "synergy"}, "give top")],
)
def test_bad_arguments(model, options, match):
    with pytest.raises(ValueError, match=match):
        tl.interactions(model, **options)


def test_the_best_of_many_in_parts():
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(size=500), 1)
    scores[rng.random(500) < 0.1] = np.nan
    best = _Best(20)
    for start in range(0, 500, 37):
        best.add(scores[start : start + 37], np.arange(start, min(start + 37, 500)))
    expected = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")[:20]
    np.testing.assert_array_equal(best.at, expected)


def test_a_list_of_pairs_is_that_of_their_names():
    genes = ["B", "A", "D", "C"]
    pairs = PairList.all_but(genes, [("A", "C"), ("A",), ("X", "Y")])
    assert list(pairs) == [("A", "B"), ("A", "D"), ("B", "C"), ("B", "D"), ("C", "D")]
    assert list(pairs[1:3]) == [("A", "D"), ("B", "C")]
    assert list(pairs.taken(np.array([3, 0]))) == [("B", "D"), ("A", "B")]
    assert pairs.positions(genes).tolist()[0] == [1, 0]
    assert list(PairList.of(genes, [("C", "D"), ("A", "B")])) == [("C", "D"), ("A", "B")]
    assert len(PairList.of(genes, [])) == 0


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "pearson"])
@pytest.mark.parametrize("by", ["effect", "profile"])
def test_reverse_search_of_many_pairs_predicts_those_that_can_be_near(model, monkeypatch, metric, by):
    query = model.measured_effects().loc[["P01+P02", "P03"]]
    if by == "profile":
        query = query + _reverse._predicted_control(model, query.columns)
    whole = tl.reverse(model, query, metric=metric, by=by)
    monkeypatch.setattr(_reverse, "_FEW_SETS", 3)
    monkeypatch.setattr(_reverse, "SPARE", 3)
    monkeypatch.setattr(_reverse, "TIMES", 2)
    asked = counted(model, monkeypatch)
    table = tl.reverse(model, query, metric=metric, by=by, top=3)
    pd.testing.assert_frame_equal(table, whole.groupby("query", sort=False).head(3).reset_index(drop=True))
    assert len(set(asked)) < 15


def test_next_pairs_of_many_candidates(model, monkeypatch):
    query = model.predict_effects(["P02+P05"])
    exact = tl.next_pairs(model, n=3), tl.next_pairs(model, n=3, goal="state", query=query, seed=0)
    monkeypatch.setattr(_next_pairs, "_FEW_PAIRS", 2)
    monkeypatch.setattr(_next_pairs, "_TIMES", 1)
    monkeypatch.setattr(_next_pairs, "_MOST_DRAWN", 8)
    pd.testing.assert_frame_equal(tl.next_pairs(model, n=3), exact[0])
    table = tl.next_pairs(model, n=3, goal="state", query=query, seed=0)
    assert table.index[0] == exact[1].index[0]
    monkeypatch.setattr(_next_pairs, "_MOST_GENES", 5)
    with pytest.raises(ValueError, match="for 6 genes do not fit"):
        tl.next_pairs(model, n=3)


def test_power_of_the_pairs_that_come_first(model):
    whole = tl.power(model, n_cells=[50], n_draws=20, seed=0)
    table = tl.power(model, n_cells=[50], n_draws=20, seed=0, top=2)
    first = [label for label in tl.interactions(model, top=15, n_draws=0).index if label not in model.conditions]
    assert list(table.index) == first[:2]
    pd.testing.assert_frame_equal(table, whole.loc[first[:2]])
    few = tl.power(model, first[3:6], n_cells=[50], n_draws=20, seed=0, top=1)
    assert list(few.index) == first[3:4]
    with pytest.raises(ValueError, match="top=0"):
        tl.power(model, top=0)
