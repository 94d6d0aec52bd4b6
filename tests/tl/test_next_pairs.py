"""The chosen pairs, against choices that are made again here from the posterior and its draws."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch

from raptorgraph.inference._gain import Plan
from raptorgraph.tl import next_pairs
from raptorgraph.tl._next_pairs import GAIN


@pytest.fixture(scope="module")
def model(pairs_model):
    return pairs_model


def unseen(model):
    return [f"{a}+{b}" for a, b in combinations(sorted(model.perturbed_genes), 2) if f"{a}+{b}" not in model.conditions]


def design(model, labels):
    rows = [[float(gene in label.split("+")) for gene in model.perturbed_genes] for label in labels]
    return torch.tensor(rows, dtype=torch.float64)


def test_to_learn_is_greedy_in_the_variance_that_is_removed(model):
    table = next_pairs(model, n=4, n_cells=80)
    fitted = model.calibration.posterior.fitted
    labels = unseen(model)
    plan = Plan(fitted, design(model, labels))
    counts = model.adata.obs["perturbation"].value_counts()
    noise_of = zip(fitted.measured.condition_noise.tolist(), model.screen.by_name().conditions, strict=True)
    [per_cell] = {round(noise * counts[label], 9) for noise, label in noise_of}  # the same for all conditions
    noise = float(1 + fitted.hyperparameters.excess) * per_cell / 80
    whole, left = plan.variance(), list(labels)
    size = dict(zip(labels, np.linalg.norm(model.predict_effects(labels), axis=1), strict=True))
    alone = dict(zip(labels, plan.removed(design(model, labels), noise).tolist(), strict=True))
    for label, row in table.iterrows():
        removed = dict(zip(left, plan.removed(design(model, left), noise).tolist(), strict=True))
        good = [name for name in left if removed[name] >= 0.95 * max(removed.values())]
        assert label == max(good, key=size.get)
        assert row["gain"] == pytest.approx(removed[label] / whole, rel=1e-6)
        assert row["gain_alone"] == pytest.approx(alone[label] / whole, rel=1e-6)
        plan.measure(design(model, [label])[0], noise)
        left.remove(label)
    assert table["total"].tolist() == pytest.approx(table["gain"].cumsum().tolist())
    assert table["rank"].tolist() == [1, 2, 3, 4]
    assert (table["gain_in"] == GAIN["learn"]).all()
    assert (table["n_cells"] == 80).all()
    assert table.attrs["n_candidates"] == len(labels)


def test_to_learn_covers_genes_before_it_repeats_them(model):
    """Six genes, five of which are alone in the screen; the first three pairs have them all."""
    table = next_pairs(model, n=3)
    assert len({*table["gene_a"], *table["gene_b"]}) >= 5


def test_cells_needed_teach_most_of_what_many_cells_do(model):
    table = next_pairs(model, n=1)
    [label], [cells] = table.index, table["cells_needed"]
    few, enough, many = (
        next_pairs(model, n=1, candidates=[label], n_cells=int(n))["gain"].iloc[0] for n in (cells - 1, cells, 10**7)
    )
    assert few < 0.8 * many <= enough


def test_candidates_and_exclusions(model):
    labels = unseen(model)
    assert sorted(next_pairs(model, n=99).index) == labels
    assert sorted(next_pairs(model, n=99, candidates=labels[2:5]).index) == labels[2:5]
    gene = labels[0].split("+")[0]
    left = next_pairs(model, n=99, exclude=[gene, labels[-1]]).index
    assert sorted(left) == [label for label in labels[:-1] if gene not in label.split("+")]
    as_list = next_pairs(model, n=99, exclude=[gene, labels[-1].split("+")]).index
    assert list(as_list) == list(left)


def test_the_last_pair_has_a_gain_of_its_own(model):
    """It teaches about no other pair: what rounding leaves of 0 may lie below it."""
    table = next_pairs(model, n=99)
    assert table.index.is_unique
    assert table["gain"].iloc[-1] == pytest.approx(0, abs=1e-9)
    assert (table["gain"] >= 0).all()


def relative(model, labels):
    """Product of both lengths times 1 + |cosine|, over the mean of all."""
    found = []
    for label in labels:
        a, b = (model.predict_effects([gene]).to_numpy(float)[0] for gene in label.split("+"))
        lengths = np.linalg.norm(a) * np.linalg.norm(b)
        found.append(lengths * (1 + abs(a @ b) / lengths))
    return np.array(found) / np.mean(found)


def test_interactions_are_those_whose_departure_is_often_long(model, monkeypatch):
    labels = unseen(model)
    chosen, size = labels[3], dict(zip(labels, relative(model, labels), strict=True))
    rng = np.random.default_rng(0)

    def sample(names, n_draws, seed):
        drawn = np.zeros((n_draws, len(names), len(model.var_names_)))
        for k, name in enumerate(names):
            if "+" in name:  # departures shorter than 1, but of one pair in two of five draws, and of one in all
                length = rng.uniform(0.2, 0.9, n_draws)
                length = np.where(np.arange(n_draws) % 5 < 2, 5.0, 0.1) if name == chosen else length
                length = np.full(n_draws, 2.0) if name == labels[1] else length
                drawn[:, k, 7] = length * rng.choice([-1, 1], n_draws) / size[name]
        return drawn

    monkeypatch.setattr(model, "sample_effects", sample, raising=False)
    table = next_pairs(model, n=3, goal="interactions", n_draws=50)
    assert list(table.index[:2]) == [labels[1], chosen]
    assert table["gain"].tolist()[:2] == pytest.approx([1.0, 0.4])
    assert table["gain"].tolist() == table["gain_alone"].tolist()


def test_probability_of_a_strong_interaction_is_that_of_the_draws(model):
    labels = unseen(model)[:6]
    table = next_pairs(model, n=6, goal="interactions", candidates=labels, n_draws=40, seed=3)
    genes = sorted({gene for label in labels for gene in label.split("+")})
    drawn = dict(zip([*genes, *labels], np.moveaxis(model.sample_effects([*genes, *labels], 40, 3), 1, 0), strict=True))
    length = np.array(
        [
            np.linalg.norm(drawn[label] - drawn[label.split("+")[0]] - drawn[label.split("+")[1]], axis=1)
            for label in labels
        ]
    )
    length *= relative(model, labels)[:, None]
    strong = pd.Series((length > np.quantile(length, 0.75)).mean(1), labels)
    pd.testing.assert_series_equal(table["gain"], strong[table.index], check_names=False)
    assert (table["gain"].diff().dropna() <= 0).all()
    assert (table["cells_needed"] >= 1).all()


def test_a_state_is_looked_for_where_it_may_be(model, monkeypatch):
    """Of two pairs that are the nearest in the same draws the batch has one, and then the one for the other draws."""
    labels = unseen(model)[:4]
    free = next(k for k, name in enumerate(model.var_names_) if name not in model.perturbed_genes)
    half = np.arange(40) % 2 == 0
    distance = {
        labels[0]: np.where(half, 1.0, 9.0),
        labels[1]: np.where(half, 1.1, 9.0),
        labels[2]: np.where(half, 9.0, 2.0),
        labels[3]: np.full(40, 8.0),
    }

    def sample(names, n_draws, seed):
        drawn = np.zeros((n_draws, len(names), len(model.var_names_)))
        for k, name in enumerate(names):
            drawn[:, k, free] = distance.get(name, 0.0)
        return drawn

    monkeypatch.setattr(model, "sample_effects", sample, raising=False)
    query = pd.DataFrame(np.zeros((1, len(model.var_names_))), ["q"], model.var_names_)
    table = next_pairs(model, n=2, goal="state", query=query, candidates=labels, n_draws=40)
    assert list(table.index) == [labels[0], labels[2]]
    at_random = np.mean([values.mean() for values in distance.values()])
    assert table["gain"].tolist() == pytest.approx([at_random - 5.0, 5.0 - 1.5])
    assert table["best_probability"].tolist() == [0.5, 0.5]


def test_the_pair_of_a_measured_state_is_found(model):
    """The query is the very prediction of a pair; the draws lie about it."""
    label = unseen(model)[4]
    table = next_pairs(model, n=2, goal="state", query=model.predict_effects([label]), seed=0)
    assert label == table.index[0]


def test_singles_measured(model):
    table = next_pairs(model, n=99)
    never = (set(model.perturbed_genes) - set(model.conditions)).pop()
    assert (table["singles_measured"] == [never not in label.split("+") for label in table.index]).all()


def test_same_seed_same_table(model):
    first, second, other = (next_pairs(model, n=3, goal="interactions", n_draws=20, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, second)
    assert not first["gain"].equals(other["gain"])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"goal": "win"}, "goal='win'"),
        ({"n": 0}, "n=0"),
        ({"n_cells": 0}, "n_cells=0"),
        ({"n_draws": 5}, "n_draws=5"),
        ({"seed": -1}, "seed=-1"),
        ({"goal": "state"}, "needs a query"),
        ({"query": pd.DataFrame()}, "takes no query"),
        ({"candidates": ["P01+P02"]}, "'P01\\+P02' was measured"),
        ({"exclude": ["P01", "P02", "P03", "P04", "P05"]}, "no pair to choose"),
    ],
)
def test_bad_arguments(model, options, match):
    with pytest.raises(ValueError, match=match):
        next_pairs(model, **options)


def test_a_gene_that_is_not_known_is_not_excluded(model):
    for name in ("NEW", ["NEW"], ["P01", " NEW "]):
        with pytest.raises(KeyError, match="NEW.* is no perturbed gene of the model; these are .'P01'"):
            next_pairs(model, exclude=name)


def test_a_model_without_posterior(model, monkeypatch):
    monkeypatch.setattr(type(model), "has_posterior", False)
    with pytest.raises(ValueError, match="no posterior"):
        next_pairs(model)
