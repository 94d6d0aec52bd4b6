import numpy as np
import pytest

from raptorgraph.baselines import Additive, DampedLowRank, LowRankAdditive, ShrunkenAdditive
from raptorgraph.metrics import relative_mse

EXACT = {"rtol": 0, "atol": 1e-5}  # cells are float32


def noisy_screen(effects, *, scale, n_perturbed, seed):
    """Cells around true effects of the given scales (one for each single), and those effects."""
    rng = np.random.default_rng(seed)
    truth = {f"P{i}": scale[i] * rng.normal(size=40) for i in range(n_perturbed)}
    adata = effects.screen(singles=truth)
    control = (adata.obs["perturbation"] == "control").to_numpy()
    adata.X = adata.X + np.where(control[:, None], 0.0, rng.normal(size=adata.shape))
    return adata, np.array(list(truth.values()))


def test_low_rank_effects_are_kept(effects):
    rng = np.random.default_rng(1)
    flat = dict(zip(effects.genes, rng.normal(size=(8, 3)) @ rng.normal(scale=0.3, size=(3, 40)), strict=True))
    adata = effects.screen(singles=flat)
    exact = Additive().fit(adata).predict_effects(effects.doubles)
    np.testing.assert_allclose(LowRankAdditive(rank=3).fit(adata).predict_effects(effects.doubles), exact, **EXACT)
    assert relative_mse(LowRankAdditive(rank=2).fit(adata).predict_effects(effects.doubles), exact) > 1e-3


def test_low_rank_is_the_best_approximation(effects):
    adata = effects.screen()
    singles = np.array(list(effects.singles.values()))
    reduced = LowRankAdditive(rank=3).fit(adata).predict_effects(effects.genes).to_numpy()
    values = np.linalg.eigvalsh(singles @ singles.T)  # ascending; Eckart and Young
    assert np.linalg.matrix_rank(reduced, tol=1e-4) == 3
    assert ((singles - reduced) ** 2).sum() == pytest.approx(values[:-3].sum(), rel=1e-4)
    all_of_them = LowRankAdditive(rank=100).fit(adata).predict_effects(effects.genes)
    np.testing.assert_allclose(all_of_them, singles, **EXACT)


def test_damped_low_rank(effects):
    adata = effects.screen()
    asked = ["P0+P1", "P2+P3+P4", "P5"]
    low = LowRankAdditive(rank=2).fit(adata).predict_effects(asked)
    mixed = (low + Additive().fit(adata).predict_effects(asked)) / 2
    expected = mixed.mul([0.6, 0.6, 1.0], axis=0)
    np.testing.assert_allclose(DampedLowRank(rank=2).fit(adata).predict_effects(asked), expected, atol=1e-12)
    assert relative_mse(DampedLowRank(rank=2, scale=1.0).fit(adata).predict_effects(asked), mixed) < 1e-24


def test_shrinkage_formula():
    effect = np.array([[2.0, -1.0], [1.0, 0.0]])
    variance = np.array([[0.5, 0.25], [0.5, 0.25]])
    # excess 3.5, .75; .5, -.25: rows 2.125, .125; columns 2, .25
    prior = np.outer([2.125, 0.125], [2.0, 0.25]) / 1.125
    expected = prior / (prior + variance) * effect
    np.testing.assert_allclose(ShrunkenAdditive()._estimate_singles(effect, variance), expected, rtol=1e-12)


def test_effects_within_the_noise_are_shrunk_to_nothing():
    shrunk = ShrunkenAdditive()._estimate_singles(np.full((3, 4), 0.1), np.ones((3, 4)))
    np.testing.assert_array_equal(shrunk, 0)


@pytest.mark.parametrize("seed", range(3))
def test_shrinkage_reduces_the_error_under_noise(effects, seed):
    scale = np.repeat([0.1, 0.8], 10)
    adata, truth = noisy_screen(effects, scale=scale, n_perturbed=20, seed=seed)
    raw, shrunk = (
        kind().fit(adata).predict_effects([f"P{i}" for i in range(20)]) for kind in (Additive, ShrunkenAdditive)
    )
    raw_error, shrunk_error = (((table - truth) ** 2).to_numpy() for table in (raw, shrunk))
    assert shrunk_error.sum() < 0.9 * raw_error.sum()
    assert shrunk_error[:10].sum() < 0.5 * raw_error[:10].sum()  # weak perturbations gain most


def test_nothing_is_shrunk_without_noise(effects):
    effect = np.array(list(effects.singles.values()))
    np.testing.assert_allclose(ShrunkenAdditive()._estimate_singles(effect, np.full((8, 40), 1e-12)), effect, atol=1e-9)


def test_wrong_parameters():
    with pytest.raises(ValueError, match="rank=0"):
        LowRankAdditive(rank=0)
    with pytest.raises(ValueError, match="scale=0"):
        DampedLowRank(scale=0)
