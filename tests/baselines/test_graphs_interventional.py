"""Methods that know the interventions, on linear models whose graph is known."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from raptorgraph.baselines import dotears, sdcd
from raptorgraph.baselines._graphs_interventional import _own_randomness, fit_dotears
from raptorgraph.datasets import simulate


def regimes(weights, n, rng):
    """Cells of a linear model, n without an intervention and n of each, which cuts the parents off and adds 1."""
    p = len(weights)
    X, hit = [], np.repeat(np.arange(-1, p), n)
    for r in range(-1, p):
        here = weights.copy()
        if r >= 0:
            here[:, r] = 0.0
        noise = rng.standard_normal((n, p))
        noise[:, r] += r >= 0
        X.append(noise @ np.linalg.inv(np.eye(p) - here))
    return np.vstack(X), hit


def test_dotears_finds_a_chain_with_its_direction():
    weights = np.zeros((4, 4))
    weights[2, 0], weights[0, 3], weights[3, 1] = 0.8, -0.7, 0.9
    X, hit = regimes(weights, 2000, np.random.default_rng(0))
    found = fit_dotears(X, hit, 0.02)
    np.testing.assert_allclose(found, weights, atol=0.06)
    # a penalty shrinks, and in the end leaves nothing
    assert np.abs(fit_dotears(X, hit, 0.2)).sum() < np.abs(found).sum() - 0.3
    assert np.abs(fit_dotears(X, hit, 10.0)).max() < 1e-6


def test_dotears_minimizes_its_objective():
    """Without other edges the weight is that of a lasso on the regimes that are not of the effect."""
    weights = np.array([[0.0, 0.8], [0.0, 0.0]])
    X, hit = regimes(weights, 4000, np.random.default_rng(1))
    penalty = 0.1
    covariance = [np.cov(X[hit == r], rowvar=False, ddof=0) for r in (-1, 0, 1)]
    precision = 1 / covariance[2][1, 1]  # what is left of the effect's variance where it is intervened on
    cross = (covariance[0][0, 1] + covariance[1][0, 1]) * precision / 3
    square = (covariance[0][0, 0] + covariance[1][0, 0]) * precision / 3
    assert fit_dotears(X, hit, penalty)[0, 1] == pytest.approx((cross - penalty) / square, abs=2e-3)


def test_a_gene_that_is_gone_does_not_break_dotears():
    adata = simulate(
        40, 5, n_control_cells=100, n_cells_per_perturbation=40, n_doubles=0, effect_size=8.0, targets_without_gene=0.2,
        n_truth_cells=20, seed=0,
    )  # fmt: skip
    gone = next(name for name in sorted(adata.var_names) if name.startswith("P"))
    counts = adata.X.tolil()
    counts[(adata.obs["perturbation"] == gone).to_numpy(), adata.var_names.get_loc(gone)] = 0
    adata.X = counts.tocsr()
    graph = dotears(adata, library_size_key="total_counts")
    assert np.isfinite(graph.to_numpy()).all()
    assert not np.diag(graph).any()


def test_sdcd_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sdcd", None)
    with pytest.raises(ImportError, match="pip install --no-deps sdcd"):
        sdcd(simulate(20, 3, n_control_cells=20, n_cells_per_perturbation=10, n_doubles=0, n_truth_cells=5))


@pytest.mark.skipif(not find_spec("sdcd"), reason="sdcd is not installed")
def test_sdcd_gives_strengths_and_leaves_the_randomness_alone():
    adata = simulate(40, 5, n_control_cells=100, n_cells_per_perturbation=40, n_doubles=0, n_truth_cells=20, seed=0)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    graph = sdcd(adata, library_size_key="total_counts", max_epochs=30)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert graph.shape == (5, 5)
    assert (graph >= 0).to_numpy().all()
    assert graph.to_numpy().any()


def test_randomness_is_put_back_after_an_error():
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(1)
    np.random.seed(1)

    def fails():
        with _own_randomness(3):
            np.random.seed(7)
            raise RuntimeError("x")

    with pytest.raises(RuntimeError, match="x"):
        fails()
    assert (torch.rand(1), np.random.rand()) == expected
