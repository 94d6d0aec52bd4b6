import numpy as np
import pytest

from raptorgraph import pp
from raptorgraph.baselines import (
    Additive,
    GeneScaledAdditive,
    MeanDouble,
    MeanOfTwo,
    MeanSingle,
    NoChange,
    ScaledAdditive,
)

EXACT = {"rtol": 0, "atol": 1e-5}  # cells are float32


@pytest.fixture
def known(effects):
    """Ten combinations to train on, the others to predict."""
    rng = np.random.default_rng(1)
    order = rng.permutation(effects.doubles)
    return list(order[:10]), list(order[10:])


def test_without_combinations(effects):
    adata = effects.screen()
    asked = ["P0+P1", "P2+P5+P7", "P3"]
    sums, sizes = effects.sums(asked), np.array([[2], [3], [1]])
    np.testing.assert_array_equal(NoChange().fit(adata).predict_effects(asked), 0)
    np.testing.assert_allclose(Additive().fit(adata).predict_effects(asked), sums, **EXACT)
    np.testing.assert_allclose(MeanOfTwo().fit(adata).predict_effects(asked), sums / sizes, **EXACT)
    mean = np.mean(list(effects.singles.values()), axis=0)
    np.testing.assert_allclose(MeanSingle().fit(adata).predict_effects(asked), np.tile(mean, (3, 1)), **EXACT)


def test_additive_is_the_sum_of_measured_effects(effects):
    adata = effects.screen({"P0+P1": 5 * effects.sums(["P0"])[0]})
    measured = pp.measured_effects(adata)
    predicted = Additive().fit(adata).predict_effects(["P0+P1", "P4"])
    np.testing.assert_allclose(predicted.loc["P0+P1"], measured.loc["P0"] + measured.loc["P1"], atol=1e-12)
    np.testing.assert_allclose(predicted.loc["P4"], measured.loc["P4"], atol=1e-12)


def test_mean_double(effects, known):
    train, test = known
    rng = np.random.default_rng(2)
    measured = rng.normal(scale=0.3, size=(10, 40))
    predicted = MeanDouble().fit(effects.screen(dict(zip(train, measured, strict=True)))).predict_effects(test)
    np.testing.assert_allclose(predicted, np.tile(measured.mean(0), (len(test), 1)), **EXACT)


def test_scaled_additive_recovers_its_scale(effects, known):
    train, test = known
    baseline = ScaledAdditive().fit(effects.screen(dict(zip(train, 0.37 * effects.sums(train), strict=True))))
    assert baseline.scale_ == pytest.approx(0.37, abs=1e-5)
    np.testing.assert_allclose(baseline.predict_effects(test), 0.37 * effects.sums(test), **EXACT)
    np.testing.assert_allclose(baseline.predict_effects("P3"), effects.sums(["P3"]), **EXACT)


def test_gene_scales(effects, known):
    train, test = known
    scales = np.random.default_rng(3).uniform(0.2, 1.2, size=40)
    adata = effects.screen(dict(zip(train, scales * effects.sums(train), strict=True)))
    exact = GeneScaledAdditive(shrinkage=1e-9).fit(adata)
    np.testing.assert_allclose(exact.scale_, scales, atol=1e-4)
    np.testing.assert_allclose(exact.predict_effects(test), scales * effects.sums(test), atol=1e-4)
    common = ScaledAdditive().fit(adata)
    shrunk = GeneScaledAdditive(shrinkage=1e9).fit(adata)
    np.testing.assert_allclose(shrunk.scale_, common.scale_, atol=1e-6)
    between = GeneScaledAdditive().fit(adata).scale_
    assert (np.abs(between - common.scale_) <= np.abs(scales - common.scale_) + 1e-4).all()


def test_a_gene_that_no_single_changes_keeps_the_common_scale(effects, known):
    train, _ = known
    for effect in effects.singles.values():
        effect[0] = 0.0
    baseline = GeneScaledAdditive().fit(effects.screen(dict(zip(train, 0.5 * effects.sums(train), strict=True))))
    assert baseline.scale_[0] == pytest.approx(0.5, abs=1e-5)


def test_scales_need_single_effects(effects):
    nothing = {gene: 0 * effect for gene, effect in effects.singles.items()}
    adata = effects.screen({"P0+P1": effects.singles["P0"]}, singles=nothing)
    adata.X[:] = np.round(adata.X, 3)
    adata.X[6:-6] = np.tile(adata.X[:6], (8, 1))
    with pytest.raises(ValueError, match="A scale cannot be fitted to 1 training combinations"):
        ScaledAdditive().fit(adata)


@pytest.mark.parametrize("shrinkage", [0, -1, float("nan")])
def test_wrong_shrinkage(shrinkage):
    with pytest.raises(ValueError, match="shrinkage="):
        GeneScaledAdditive(shrinkage=shrinkage)
