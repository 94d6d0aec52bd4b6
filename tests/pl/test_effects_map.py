import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from raptorgraph import pl, tl
from raptorgraph.tl import _effect_blocks


def shown(ax):
    """Effects and opacities as they stand in the map, perturbations x genes."""
    rows, columns = ([tick.get_text() for tick in ticks] for ticks in (ax.get_yticklabels(), ax.get_xticklabels()))
    image = ax.images[0]
    opacity = image.get_alpha()
    return pd.DataFrame(np.asarray(image.get_array()), rows, columns), pd.DataFrame(opacity, rows, columns)


def square(table, name, like):
    return table.pivot(index="perturbation", columns="gene", values=name).loc[like.index, like.columns]


def by_strength(model):
    """Perturbations by their number of sure effects, of equally many by the length of the effect."""
    sure = tl.effects(model, max_lfsr=0.05, exclude_targets=True).groupby("perturbation").size()
    length = tl.effects(model, exclude_targets=True).groupby("perturbation")["effect"].apply(np.linalg.norm)
    return sorted(model.conditions, key=lambda label: (-sure[label], -length[label]))


def test_squares_are_effects_that_fade_as_signs_get_unsure(fixed):
    ax = pl.effects_map(fixed, n_genes=15)
    values, opacity = shown(ax)
    table = tl.effects(fixed)
    assert set(values.index) == set(fixed.conditions)
    assert values.shape[1] == 15
    np.testing.assert_allclose(values, square(table, "effect", values))
    np.testing.assert_allclose(opacity, 1 - 2 * square(table, "lfsr", values))
    sure = table[(table["lfsr"] <= 0.05) & ~table["own_target"]]
    inside = sure[sure["gene"].isin(values.columns)]
    norm = ax.images[0].norm
    assert norm.vmin == -norm.vmax == pytest.approx(-np.quantile(inside["effect"].abs(), 0.95))
    assert ax.get_xlabel() == "gene (15 of 40)"
    assert ax.get_ylabel() == "perturbation"


def test_genes_are_taken_from_each_perturbation_in_turn(fixed):
    sure = tl.effects(fixed, max_lfsr=0.05, exclude_targets=True)
    order = by_strength(fixed)
    ranked = {label: sure.loc[sure["perturbation"] == label, "gene"].tolist() for label in order}
    expected = []
    for place in range(40):
        for label in order:
            if place < len(ranked[label]) and ranked[label][place] not in expected:
                expected.append(ranked[label][place])
    for n in (1, 4, 9):
        values, _ = shown(pl.effects_map(fixed, n_genes=n))
        assert set(values.columns) == set(expected[:n])


def test_genes_and_perturbations_that_are_asked_for(fixed):
    ax = pl.effects_map(fixed, ["A", "B+A", ("B", "C")[:1]], genes=["gene07", "A", "gene01"])
    values, _ = shown(ax)
    assert set(values.index) == {"A", "A+B", "B"}
    assert set(values.columns) == {"gene07", "A", "gene01"}
    dots = {(values.index[round(y)], values.columns[round(x)]) for x, y in ax.collections[0].get_offsets()}
    assert dots == {("A", "A"), ("A+B", "A")}
    one = pl.effects_map(fixed, "A", genes=["gene07"])
    assert one.images[0].get_array().shape == (1, 1)


def test_the_strongest_of_many_are_shown(fixed, monkeypatch):
    monkeypatch.setattr(_effect_blocks, "AT_A_TIME", 2)
    ax = pl.effects_map(fixed, n_perturbations=2)
    assert set(shown(ax)[0].index) == set(by_strength(fixed)[:2])
    assert ax.get_ylabel() == "perturbation (2 of 4)"


def test_perturbations_without_a_sure_effect_are_named_in_gray(fixed):
    fixed.effects.loc["C"] = fixed.effects.loc["C"] * 0.01
    ax = pl.effects_map(fixed)
    gray = {tick.get_text() for tick in ax.get_yticklabels() if to_hex(tick.get_color()) != "#000000"}
    assert gray == {"C"}
    assert any("no effect" in text.get_text() for text in ax.get_legend().get_texts())
    fixed.effects *= 0.001  # nothing is sure, and the largest effects are shown
    values, opacity = shown(pl.effects_map(fixed, n_genes=5))
    assert values.shape == (4, 5)
    assert opacity.to_numpy().max() < 0.9


def test_without_a_posterior_nothing_fades(fixed):
    fixed.has_posterior = False
    ax = pl.effects_map(fixed, n_genes=6)
    _, opacity = shown(ax)
    np.testing.assert_array_equal(opacity, 1.0)
    assert {to_hex(tick.get_color()) for tick in ax.get_yticklabels()} == {"#000000"}


def test_similar_perturbations_stand_side_by_side_whatever_their_size(fixed):
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 40))
    for k, label in enumerate(["A", "B", "C", "A+B"]):
        fixed.effects.loc[label] = (one, other)[k % 2] * (3.0, 0.3, 0.3, 3.0)[k]
    names = [tick.get_text() for tick in pl.effects_map(fixed, genes=fixed.var_names_[3:]).get_yticklabels()]
    assert {frozenset(names[:2]), frozenset(names[2:])} == {frozenset({"A", "C"}), frozenset({"B", "A+B"})}


def test_bad_input(fixed):
    with pytest.raises(ValueError, match="n_genes=0"):
        pl.effects_map(fixed, n_genes=0)
    with pytest.raises(ValueError, match="n_perturbations=0"):
        pl.effects_map(fixed, n_perturbations=0)
    with pytest.raises(ValueError, match="max_lfsr=2"):
        pl.effects_map(fixed, max_lfsr=2)
    with pytest.raises(ValueError, match="'gene99' is not a gene of the model"):
        pl.effects_map(fixed, genes=["gene99"])
    with pytest.raises(ValueError, match="D was not perturbed"):
        pl.effects_map(fixed, ["D"])
