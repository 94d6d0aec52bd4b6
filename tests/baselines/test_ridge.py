import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raptorgraph import metrics, pp
from raptorgraph.baselines import MainEffectsRidge, ScaledAdditive
from raptorgraph.evaluation import doubles_folds, split_cells


@pytest.fixture
def generated(effects):
    """Combinations that follow the model: labels to train on, labels to predict, and the effects of both."""
    rng = np.random.default_rng(1)
    order = rng.permutation(effects.doubles)
    common, own = rng.normal(scale=0.2, size=40), rng.normal(scale=0.2, size=(8, 40))
    rows = [
        0.55 * effects.sums([label])[0] + common + own[[int(g[1:]) for g in label.split("+")]].sum(0) for label in order
    ]
    return list(order[:20]), list(order[20:]), pd.DataFrame(rows, index=order)


def test_it_recovers_its_own_model(effects, generated):
    train, test, truth = generated
    baseline = MainEffectsRidge(ridge=1e-6).fit(effects.screen({label: truth.loc[label] for label in train}))
    np.testing.assert_allclose(baseline.predict_effects(test), truth.loc[test], atol=1e-3)
    assert np.abs(baseline.predict_effects(train).to_numpy() - truth.loc[train].to_numpy()).max() < 1e-3


@pytest.mark.parametrize("ridge", [0.5, 3.0])
def test_joint_solution_against_the_normal_equations(effects, generated, ridge):
    train, test, truth = generated
    rng = np.random.default_rng(2)
    measured = truth.loc[train] + rng.normal(scale=0.1, size=(20, 40))
    adata = effects.screen({label: measured.loc[label] for label in train})
    baseline = MainEffectsRidge(ridge=ridge).fit(adata)

    def members(labels):
        return np.array([[gene in label.split("+") for gene in effects.genes] for label in labels], dtype=float)

    # one least squares problem in a, b and m of all genes, with rows sqrt(ridge) m = 0
    n, g, k = 20, 40, 8
    design = np.zeros((n * g + k * g, 1 + g + k * g))
    design[: n * g, 0] = effects.sums(train).ravel()
    design[: n * g, 1:] = np.kron(np.hstack([np.ones((n, 1)), members(train)]), np.eye(g))
    design[n * g :, 1 + g :] = np.sqrt(ridge) * np.eye(k * g)
    target = np.concatenate([measured.to_numpy().ravel(), np.zeros(k * g)])
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    expected = solution[0] * effects.sums(test) + np.hstack([np.ones((len(test), 1)), members(test)]) @ solution[
        1:
    ].reshape(1 + k, g)
    assert baseline.scale_ == pytest.approx(solution[0], abs=1e-5)
    np.testing.assert_allclose(baseline.predict_effects(test), expected, atol=1e-5)


def test_scale_fitted_before(effects, generated):
    train, test, truth = generated
    adata = effects.screen({label: truth.loc[label] for label in train})
    scaled = ScaledAdditive().fit(adata)
    baseline = MainEffectsRidge(scale="before", ridge=1e9).fit(adata)
    assert baseline.scale_ == scaled.scale_
    left = truth.loc[train].to_numpy() - scaled.scale_ * effects.sums(train)  # only the shared effect is left to fit
    np.testing.assert_allclose(
        baseline.predict_effects(test), scaled.predict_effects(test) + left.mean(axis=0), atol=1e-5
    )


def test_a_gene_in_no_training_combination_has_no_correction(effects, generated):
    train, _, truth = generated
    trained = [label for label in train if "P7" not in label]
    baseline = MainEffectsRidge().fit(effects.screen({label: truth.loc[label] for label in trained}))
    asked = ["P1+P7", "P1+P2", "P2+P7"]
    corrections = baseline.predict_effects(asked).to_numpy() - baseline.scale_ * effects.sums(asked)
    b, m = baseline._corrections.intercept_, baseline._corrections.coef_.T
    np.testing.assert_allclose(m[7], 0, atol=1e-12)
    np.testing.assert_allclose(corrections[0], b + m[1], atol=1e-5)
    np.testing.assert_allclose(corrections[1], b + m[1] + m[2], atol=1e-5)
    np.testing.assert_allclose(baseline.predict_effects("P1"), effects.sums(["P1"]), atol=1e-5)


def test_combinations_without_their_singles_are_not_used(effects, generated):
    train, test, truth = generated
    trained = {label: truth.loc[label] for label in train}
    plain = MainEffectsRidge().fit(effects.screen(trained)).predict_effects(test)
    more = MainEffectsRidge().fit(effects.screen({**trained, "P0+X": np.full(40, 2.0)})).predict_effects(test)
    np.testing.assert_allclose(more, plain, atol=1e-12)


def test_errors(effects):
    with pytest.raises(ValueError, match="ridge=0"):
        MainEffectsRidge(ridge=0)
    with pytest.raises(ValueError, match="scale='late'"):
        MainEffectsRidge(scale="late")
    with pytest.raises(ValueError, match="fitted to 1 training combinations"):
        MainEffectsRidge().fit(effects.screen({"P0+P1": effects.singles["P0"]}))


def test_real_combinations(shared_data):
    """Five folds of the CaRPool screen: combinations in the training data help, and corrections help most."""
    adata = ad.read_h5ad(shared_data / "carpool_semireal.h5ad")
    setup = {"library_size_key": "total_counts"}
    measured = pp.measured_effects(adata, **setup)
    splits = doubles_folds(measured.index)
    errors = {}
    for kind in (ScaledAdditive, MainEffectsRidge):
        predicted = pd.concat(
            [kind(**setup).fit(split_cells(adata, split.refit)).predict_effects(list(split.test)) for split in splits]
        )
        assert len(predicted) == 40
        errors[kind] = metrics.relative_mse(predicted, measured.loc[predicted.index])
    assert errors[MainEffectsRidge] < 0.4 < 0.5 < errors[ScaledAdditive] < 0.55
