from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from raptorgraph import pl
from raptorgraph.pl._training import moving_mean, noise


def history(**curves):
    return {key: pd.DataFrame({key: values}, index=range(len(values))) for key, values in curves.items()}


def test_each_term_has_a_panel():
    model = SimpleNamespace(
        history=history(
            train_loss_step=[9.0], train_loss=[3, 2, 1], kl_train=[1, 1, 2], kl_validation=[2, 2, 3], shift_train=[5],
            elbo_train=[1, 2, 3], kl_local_train=[1, 2, 3], reconstruction_loss_train=[1, 2, 3],
        )
    )  # fmt: skip
    axes = pl.training(model)
    assert [ax.get_title() for ax in axes] == ["loss", "KL of the latents to their prior", "shift"]
    curves = {line.get_label(): list(line.get_ydata()) for line in axes[1].lines}
    assert curves == {"train": [1, 1, 2], "validation": [2, 2, 3]}
    assert list(axes[0].lines[0].get_xdata()) == [1, 2, 3]
    assert axes[2].lines[0].get_marker() == "o"  # of a single epoch
    assert len(axes[0].figure.axes) == 3


def test_of_a_trained_model(trained):
    titles = [ax.get_title() for ax in pl.training(trained)]
    assert titles[0] == "loss"
    assert "reconstruction" in titles


@pytest.mark.parametrize("empty", [None, {}])
def test_untrained_model(empty):
    with pytest.raises(ValueError, match="train"):
        pl.training(SimpleNamespace(history=empty))


def test_noise_is_told_from_a_trend():
    t = np.arange(400.0)
    assert noise(3.0 - 0.2 * t) == pytest.approx(0, abs=1e-9)
    values = np.exp(-t / 50) + np.random.default_rng(0).normal(scale=0.02, size=400)
    assert noise(values) == pytest.approx(0.02, rel=0.15)
    values[100] += 5.0  # one odd epoch
    assert noise(values) == pytest.approx(0.02, rel=0.15)


def test_moving_mean_keeps_a_trend():
    t = np.arange(12.0)
    np.testing.assert_allclose(moving_mean(2 - t), 2 - t)
    values = np.random.default_rng(0).normal(size=12)
    assert moving_mean(values)[5] == pytest.approx(values[2:9].mean())
    assert moving_mean(values)[1] == pytest.approx(values[:3].mean())
    assert moving_mean(values)[0] == values[0]


def test_validation_shows_its_noise():
    t = np.arange(30)
    values = 1 / (1 + t) + np.random.default_rng(0).normal(scale=0.05, size=30)
    (ax,) = pl.training(SimpleNamespace(history=history(train_loss=1 / (1 + t), validation_loss=values)))
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_array_equal(lines["train"], 1 / (1 + t))
    mean = lines["validation, moving mean"]
    np.testing.assert_allclose(mean, moving_mean(values))
    band, points = ax.collections
    np.testing.assert_allclose(points.get_offsets(), np.column_stack([t + 1, values]))
    corners = band.get_paths()[0].vertices
    for x, middle in zip(t + 1, mean, strict=True):
        ends = corners[corners[:, 0] == x, 1]
        assert (ends.min(), ends.max()) == pytest.approx((middle - 2 * noise(values), middle + 2 * noise(values)))


def test_shift_of_the_validation_has_a_floor_of_noise():
    rng = np.random.default_rng(0)
    true, variance = rng.standard_normal(100_000), 0.3
    measured = true + np.sqrt(variance) * rng.standard_normal(100_000)
    axes = pl.training(SimpleNamespace(history=history(shift_train=[1, 0.5], shift_validation=[1, 0.6])))
    (line,) = [line for line in axes[0].lines if line.get_label() == "noise of the validation"]
    assert line.get_ydata()[0] == pytest.approx((0.5 * (true - measured) ** 2 / variance).mean(), abs=0.01)
    alone = pl.training(SimpleNamespace(history=history(shift_train=[1, 0.5])))
    assert len(alone[0].lines) == 1
