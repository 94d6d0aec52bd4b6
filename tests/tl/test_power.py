"""Power, against measurements that are simulated from the same draws and noise."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from raptorgraph.tl import power
from raptorgraph.tl._planned import PlannedNoise, correlated_noise
from raptorgraph.tl._reverse import check_draws


@pytest.fixture(scope="module")
def model(pairs_model):
    return pairs_model


def test_brute_force(model):
    """Measured departures are drawn with all their errors, gene by gene, and those beyond the interval are counted."""
    label, n_cells, size, n_draws = "P01+P03", 150, 0.4, 400
    table = power(model, [label], [n_cells], size=size, n_draws=n_draws, seed=0)
    rng, fitted = np.random.default_rng(1), model.calibration.posterior.fitted
    a, b, ab = np.moveaxis(model.sample_effects(["P01", "P03", label], n_draws, 0), 1, 0)
    s = (a + b).mean(0)
    of_sum = ((a + b) @ s / (s @ s)).std(ddof=1)
    w = fitted.measured.gene_noise.numpy()
    first = model.screen.by_name().conditions[0]
    per_cell = float(fitted.measured.condition_noise[0]) * (model.adata.obs["perturbation"] == first).sum()
    nu = per_cell * float(1 + fitted.hyperparameters.excess) / n_cells
    levels = 4.0 ** np.arange(-4, 7)
    typical = (fitted.responsibility[:2].numpy() * levels[:, None]).sum((0, 1)) * w
    residual = float(fitted.hyperparameters.residual_variance) * typical
    together = correlated_noise(model, s[None])[0]
    errors = rng.normal(size=(20_000, len(s))) * np.sqrt(together * nu * w + residual)
    error = errors @ s / (s @ s) + of_sum * rng.normal(size=20_000)
    assert table["standard_error"].iloc[0] == pytest.approx(error.std(), rel=0.03)
    border = 1.6449 * table["standard_error"].iloc[0]
    called = np.mean([(np.abs(sign * size + error) > border).mean() for sign in (-1, 1)])
    assert table["power"].iloc[0] == pytest.approx(called, abs=0.015)
    departure = (ab - a - b) @ s / (s @ s)
    assert table["departure"].iloc[0] == pytest.approx(departure.mean())
    assert table["departure_sd"].iloc[0] == pytest.approx(departure.std(ddof=1))
    drawn = rng.normal(departure.mean(), departure.std(), 20_000) + error
    assert table["call_probability"].iloc[0] == pytest.approx((np.abs(drawn) > border).mean(), abs=0.015)


def test_nothing_is_called_more_often_than_the_level_says(model):
    table = power(model, n_cells=[10, 1000], size=1e-9, n_draws=30, seed=0)
    assert table["power"].to_numpy() == pytest.approx(0.1)
    assert power(model, n_cells=[10], size=1e-9, level=0.5, n_draws=30, seed=0)["power"].to_numpy() == pytest.approx(
        0.5
    )


def test_cells_needed_are_the_first_with_enough_power(model):
    table = power(model, n_cells=[100], size=0.6, n_draws=50, seed=0)
    finite = table[np.isfinite(table["cells_needed"])]
    assert len(finite) > 3
    for label, row in finite.iloc[:3].iterrows():
        few, enough = max(1, int(row["cells_needed"]) - 1), int(row["cells_needed"])
        found = power(model, [label], [few, enough], size=0.6, n_draws=50, seed=0)
        assert found["power"].iloc[1] >= 0.8 - 1e-3
        assert few == enough or found["power"].iloc[0] < 0.8 + 1e-3  # calls of the wrong sign, which are not counted


def test_too_small_a_departure_needs_infinitely_many(model):
    table = power(model, n_cells=[100], size=1e-4, n_draws=30, seed=0)
    assert np.isinf(table["cells_needed"]).all()


def test_noise_that_genes_share_adds_up_along_a_direction(model):
    screen = model.screen
    cells = np.asarray(screen.expression_at(screen.rows("control")).toarray(), dtype=float)
    direction = np.random.default_rng(0).normal(size=(2, cells.shape[1]))
    covariance = np.cov(cells.T, ddof=0)
    wanted = [max(1.0, (u @ covariance @ u) / (u**2 @ np.diag(covariance))) for u in direction]
    assert correlated_noise(model, direction) == pytest.approx(wanted, rel=1e-4)
    first = np.linalg.eigh(covariance)[1][:, -1]
    assert correlated_noise(model, first[None])[0] > 1.05


def test_what_batches_differ_by_is_no_noise_of_a_comparison_within_them():
    """Cells that are independent but for their batch, which all genes share."""
    rng = np.random.default_rng(0)
    batch = np.repeat([0, 1], 400)
    cells = rng.normal(size=(800, 50)) + 3.0 * batch[:, None]
    screen = SimpleNamespace(
        control="control", rows=lambda label: np.arange(800), batch=batch, expression_at=lambda rows: cells[rows]
    )
    model, direction = SimpleNamespace(adata=object(), screen=screen), np.ones((1, 50))
    assert correlated_noise(model, direction)[0] == pytest.approx(1, abs=0.2)
    screen.batch = None
    assert correlated_noise(model, direction)[0] > 20


def test_noise_by_cells(model):
    fitted, planned = model.calibration.posterior.fitted, PlannedNoise.of(model)
    counts = model.adata.obs["perturbation"].value_counts()
    setup, genes = model.cells.setup, np.array(model.perturbed_genes)
    for k, row in enumerate(fitted.measured.design.numpy()):
        label = setup.label(genes[row > 0])
        wanted = float((1 + fitted.hyperparameters.excess) * fitted.measured.condition_noise[k])
        assert planned.at(counts[label]) == pytest.approx(wanted)
    assert planned.typical == counts.drop("control").median()
    assert planned.cells_at(np.array([float(planned.at(60)), 0.0])).tolist() == [60, np.inf]


def test_noise_by_cells_when_the_posterior_has_its_conditions_in_another_order():
    """As of a saved model whose cells came in another order: conditions are matched by their genes."""
    sizes, order = np.array([10, 100, 1000]), [1, 2, 0]
    design = np.eye(3)
    screen = SimpleNamespace(
        codes=np.repeat(np.arange(4), [5, *sizes]), labels=["control", "A", "B", "C"],
        design=np.vstack([np.zeros(3), design]),
    )  # fmt: skip
    measured = SimpleNamespace(design=torch.tensor(design[order]), condition_noise=torch.tensor(7.0 / sizes[order]))
    fitted = SimpleNamespace(measured=measured, hyperparameters=SimpleNamespace(excess=0.5))
    calibration = SimpleNamespace(posterior=SimpleNamespace(fitted=fitted))
    model = SimpleNamespace(adata=object(), calibration=calibration, screen=screen, test_indices_=None)
    assert PlannedNoise.of(model).per_cell == pytest.approx(1.5 * 7.0)


def test_table(model):
    table = power(model, n_cells=[50, 100], n_draws=20, seed=0)
    assert not table["measured"].any()
    assert table["n_cells"].tolist() == [50, 100] * (len(table) // 2)
    assert (table["power"].to_numpy()[::2] <= table["power"].to_numpy()[1::2] + 1e-12).all()
    measured = power(model, ["P01+P02"], [50], n_draws=20, seed=0)
    assert measured["measured"].all()
    pd.testing.assert_frame_equal(table, power(model, n_cells=[50, 100], n_draws=20, seed=0))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"size": 0}, ValueError, "size=0"),
        ({"level": 1.0}, ValueError, "level=1.0"),
        ({"n_draws": 2}, ValueError, "n_draws=2"),
        ({"n_cells": [0]}, ValueError, "n_cells=0"),
        ({"n_cells": []}, ValueError, "n_cells is empty"),
        ({"n_cells": [1.5]}, TypeError, "n_cells=1.5"),
        ({"pairs": ["P01+Q"]}, KeyError, "'Q'"),
    ],
)
def test_bad_arguments(model, options, error, match):
    with pytest.raises(error, match=match):
        power(model, **options)


def test_without_data_cells_are_not_known(model, tmp_path):
    import raptorgraph as rg

    model.save(tmp_path / "model", save_anndata=False)
    with pytest.warns(UserWarning, match="without anndata"):
        loaded = rg.RaptorGraphModel.load(tmp_path / "model", None)
    with pytest.raises(ValueError, match="loaded without data"):
        power(loaded)


def test_a_model_that_is_not_trained_or_has_no_posterior():
    for model, match in (
        (SimpleNamespace(is_trained=False, has_posterior=False), r"call model.train\(\) first"),
        (SimpleNamespace(is_trained=True, has_posterior=False), "effect_posterior=True.$"),
    ):
        with pytest.raises(ValueError, match=match):
            check_draws(model)
    with pytest.raises(ValueError, match="or use n_draws=0"):
        check_draws(model, ", or use n_draws=0")
