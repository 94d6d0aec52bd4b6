import numpy as np
import pandas as pd
import pytest

from raptorgraph import pl
from raptorgraph.metrics import relative_mse


@pytest.fixture
def measured():
    return pd.Series([1.0, -1.5, 0.5, 0.0], index=list("abcd"), name="KLF1")


def named(ax):
    return [text.get_text() for text in ax.texts]


def test_genes_are_aligned(measured, tmp_path):
    predicted = 2 * measured[["d", "c", "b"]]
    ax = pl.effect(predicted, measured, n_labels=1, save=tmp_path / "effect.png")
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[-1.5, -3], [0.5, 1], [0, 0]])
    assert named(ax) == ["b"]
    assert ax.get_title(loc="left") == "KLF1, Pearson 1.00\nrelative squared error 1.00 (no change 1)"
    assert ax.get_xlim() == ax.get_ylim()
    assert "undefined" in pl.effect(0 * measured, measured).get_title(loc="left")
    assert "squared" not in pl.effect(measured, 0 * measured, title="none").get_title(loc="left")


def test_floor_is_what_sampling_leaves_of_a_perfect_prediction():
    """Of measurements around a known effect, a perfect prediction has the error that is shown as noise."""
    rng = np.random.default_rng(0)
    truth = pd.Series(rng.normal(size=4000), index=[f"g{k}" for k in range(4000)])
    noise = pd.Series(rng.uniform(0.2, 1.0, 4000), index=truth.index)
    measured = truth + noise * rng.normal(size=4000)
    title = pl.effect(truth, measured, measured_se=noise).get_title(loc="left")
    floor = (noise**2).sum() / (measured**2).sum()
    assert f"(noise {floor:.2f}, no change 1)" in title
    assert relative_mse(truth.to_numpy(), measured.to_numpy()) == pytest.approx(floor, rel=0.05)


def test_a_model_brings_its_measurement_and_both_uncertainties(fixed):
    ax = pl.effect(fixed, perturbation=("B", "A"), error_bars=True)
    points = np.asarray(ax.collections[-2].get_offsets())
    means = fixed.adata.to_df().groupby(fixed.adata.obs["perturbation"]).mean()
    expected = (means.loc["A+B"] - means.loc["control"]).to_numpy()
    shown = np.isin(np.round(expected, 5), np.round(points[:, 0], 5))
    assert shown.mean() > 0.9
    assert ax.get_title(loc="left").startswith("A+B, Pearson")
    assert "noise 0.0" in ax.get_title(loc="left")
    assert {"sampling noise (±2 SE)", "no change", "perfect prediction"} == {
        text.get_text() for text in ax.get_legend().get_texts()
    }
    assert len(ax.containers) == 1  # the error bars


def test_unmeasured_perturbation_needs_cells(fixed):
    fixed.effects.loc["B+C"] = fixed.effects.loc["B"] + fixed.effects.loc["C"]
    with pytest.raises(ValueError, match="'B\\+C' is not in the model's data"):
        pl.effect(fixed, perturbation="B+C")
    cells = fixed.adata.copy()
    with pytest.raises(ValueError, match="no 'B\\+C'"):
        pl.effect(fixed, cells, perturbation="B+C")
    cells.obs["perturbation"] = cells.obs["perturbation"].replace({"A": "C+B"})
    assert pl.effect(fixed, cells, perturbation="B+C").get_title(loc="left").startswith("B+C, ")
    assert pl.effect(fixed, fixed.effects.loc["A"], perturbation="B+C")


def test_far_off_genes_stand_at_the_border_and_are_named():
    measured = pd.Series([5.0, *np.linspace(-0.2, 0.3, 30)], index=["target", *(f"g{k}" for k in range(30))])
    ax = pl.effect(measured, measured, n_labels=2)
    assert ax.get_xlim()[1] < 0.5
    assert named(ax) == ["target (5.0, 5.0)", "g29"]
    assert len(ax.collections[1].get_offsets()) == 1


def test_bad_input(measured, fixed):
    with pytest.raises(ValueError, match="share 0 genes"):
        pl.effect(measured, measured.rename(str.upper))
    with pytest.raises(ValueError, match="'a' twice"):
        pl.effect(measured.rename({"b": "a"}), measured)
    with pytest.raises(ValueError, match="gene 'c' is missing"):
        pl.effect(measured.where(measured.index != "c"), measured)
    with pytest.raises(TypeError, match="dict"):
        pl.effect({}, measured)
    with pytest.raises(TypeError, match="measured must be a series"):
        pl.effect(measured)
    with pytest.raises(TypeError, match="perturbation='A'"):
        pl.effect(fixed)
