from itertools import product

import pytest

from raptorgraph.benchmark import Settings
from raptorgraph.benchmark._graph_broken import BROKEN
from raptorgraph.benchmark._graph_screens import FACTORS, TOY, arguments, grid, text, toy_effects


def test_effects_of_the_toy():
    effect, variance, shared = toy_effects(0)
    assert effect.shape == variance.shape == (5, 10)
    assert shared.shape == (10,)
    # an intervention moves its own latent by 5, nothing before it, and what follows by less and less
    assert all(abs(effect[i, i] - 5) < 0.2 for i in range(5))
    assert (effect[:, :5].tril(-1).abs() < 0.25).all()
    assert 4 < effect[0, 1] < 5
    assert effect[0, 4] < effect[0, 3] < effect[0, 2] < effect[0, 1]
    assert variance[:, 5:].isinf().all()
    assert (shared[5:] == 0).all()
    assert float(shared[0]) == pytest.approx(1 / 2048, rel=0.1)


def test_the_grid_is_the_cross_of_what_is_asked_for():
    options = {"graphs": "erdos-renyi", "degrees": [1], "n_perturbed": [6, 8], "mechanisms": "linear", "n_cells": 30}
    found = grid(Settings(quick=True, options={**options, "missing": [0.0, 0.5], "broken": False}))
    crossed = product(["erdos-renyi"], [1], [6, 8], ["linear"], [30], [0.0, 0.5], ["none"])
    assert [tuple(setting[name] for name in FACTORS) for setting in found] == list(crossed)
    asked = arguments(found[-1], Settings(quick=True))
    assert (asked["n_perturbed"], asked["targets_without_gene"], asked["n_genes"]) == (8, 0.5, 60)
    assert text(found[-1]) == "erdos-renyi, degree 1, 8 genes, linear, 30 cells, 50% missing"
    assert text(TOY) == "toy chain"


def test_the_first_setting_comes_with_one_thing_broken_each():
    found = grid(Settings(quick=True, options={"n_perturbed": [8, 6]}))
    assert [setting["broken"] for setting in found] == ["none", "none", *BROKEN]
    assert {setting["genes"] for setting in found[2:]} == {8}
    assert text(found[-1]) == "wrong library size, 8 genes, 30 cells"
