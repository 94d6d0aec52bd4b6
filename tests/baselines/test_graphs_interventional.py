"""Methods that know the interventions, on linear models whose graph is known."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from raptorgraph.baselines import _graphs_interventional, dotears, sdcd
from raptorgraph.baselines._graphs_interventional import _own_randomness, fit_dotears
from raptorgraph.datasets import simulate
from raptorgraph.screen import Screen


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
    with pytest.raises(ImportError, match="pip install --no-deps sdcd, or, .*peers install sdcd"):
        sdcd(simulate(20, 3, n_control_cells=20, n_cells_per_perturbation=10, n_doubles=0, n_truth_cells=5))


def test_sdcd_in_an_environment_of_its_own(monkeypatch, fake_peer):
    """It gets standardized expression of the measured targets, and the column of the perturbed one."""
    code = """
        import numpy as np
        import pandas as pd

        def run(cells, task):
            target = cells.obs["target"].to_numpy()
            means = pd.DataFrame(np.asarray(cells.X), columns=cells.var_names).groupby(target).mean()
            found = (means - means.loc[-1]).drop(index=-1).abs() * (task["epochs"] == 7) + task["seed"]
            np.fill_diagonal(found.values, 0.0)
            return {"strengths.csv": found.set_axis(cells.var_names)}
    """
    monkeypatch.setitem(sys.modules, "sdcd", None)
    monkeypatch.setattr(_graphs_interventional, "SDCD_TOOL", fake_peer(code, experiment="graph"))
    adata = simulate(
        20, 4, n_control_cells=40, n_cells_per_perturbation=20, n_doubles=0, n_truth_cells=5, targets_without_gene=0.3
    )
    setup = {"library_size_key": "total_counts"}
    found = sdcd(adata, max_epochs=7, seed=3, **setup)
    screen = Screen(adata, setup)
    measured = [gene for gene in found.index if gene in screen.var_names]
    assert 1 < len(measured) < 4
    effects = screen.effects.loc[measured, measured]
    kept = np.isin(screen.codes, [0, *(screen.labels.index(gene) for gene in measured)])
    sd = screen.expression[:, screen.var_names.get_indexer(measured)].toarray().std(axis=0)
    expected = (effects / sd).abs() + 3
    np.fill_diagonal(expected.values, 0.0)
    assert kept.sum() < len(kept)
    np.testing.assert_allclose(found.loc[measured, measured], expected, rtol=1e-4)
    assert found.drop(index=measured).to_numpy().sum() == 0


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
