import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from raptorgraph import pl, tl
from raptorgraph.pl._figure import BLUE, GRAY, ORANGE


def points(ax, color):
    """Points of a color, sorted."""
    filled = [c for c in ax.collections if len(c.get_facecolors())]
    found = [c.get_offsets() for c in filled if to_hex(c.get_facecolors()[0]) == color.lower()]
    return np.array(sorted(np.concatenate([np.empty((0, 2)), *found]).tolist()))


def named(ax):
    return [text.get_text() for text in ax.texts]


@pytest.fixture
def table():
    genes = ["A", *(f"g{k}" for k in range(7))]
    effect = [-1.5, 0.9, -0.7, 0.1, 0.5, -0.2, 0.05, 0.0]
    lfsr = [1e-30, 1e-4, 1e-3, 1e-6, 0.051, 0.2, 0.05, 0.5]
    return pd.DataFrame(
        {"perturbation": "A", "gene": genes, "effect": effect, "lfsr": lfsr, "own_target": np.arange(8) == 0}
    )


def test_points_are_effects_and_rates(table):
    ax = pl.volcano(table, n_labels=2)
    border = np.ceil(np.quantile(-np.log10(table["lfsr"]), 0.97))
    np.testing.assert_allclose(points(ax, ORANGE), [[0.05, -np.log10(0.05)], [0.1, 6], [0.9, 4]])
    np.testing.assert_allclose(points(ax, BLUE), [[-1.5, border], [-0.7, 3]])
    np.testing.assert_allclose(points(ax, GRAY), [[-0.2, -np.log10(0.2)], [0, -np.log10(0.5)], [0.5, -np.log10(0.051)]])
    assert named(ax) == ["A", "g0", "g1"]  # the perturbed gene, and the largest sure effects
    assert [text.get_fontweight() for text in ax.texts] == ["bold", "normal", "normal"]
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["lower (2)", "higher (3)", "sign not sure (3)", "perturbed gene", f"rate below 1e-{border:g}"]
    rings = [c.get_offsets().tolist() for c in ax.collections if not len(c.get_facecolors())]
    assert rings == [[[-1.5, border]]]
    assert [line.get_ydata()[0] for line in ax.lines][0] == pytest.approx(-np.log10(0.05))
    assert ax.get_title() == "A"
    assert ax.get_ylim()[0] == 0


def test_the_limit_says_what_is_sure(table):
    ax = pl.volcano(table, max_lfsr=1e-5, n_labels=5)
    assert len(points(ax, ORANGE)) == len(points(ax, BLUE)) == 1
    assert named(ax) == ["A", "g2"]


def test_a_model_gives_its_table(fixed):
    ax = pl.volcano(fixed, ("B", "A"), n_labels=3)
    table = tl.effects(fixed, "A+B")
    sure = table[(table["lfsr"] <= 0.05) & ~table["own_target"]]
    up = table[(table["lfsr"] <= 0.05) & (table["effect"] > 0)]
    assert len(points(ax, ORANGE)) == len(up) > 3
    assert ax.get_title() == "A+B"
    assert [name.split()[0] for name in named(ax)[2:]] == sure["gene"].head(3).tolist()
    assert {name.split()[0] for name in named(ax)[:2]} == {"A", "B"}
    one = pl.volcano(table[table["lfsr"] <= 0.05], title="sure")
    assert len(points(one, GRAY)) == 0
    assert one.get_title() == "sure"


def test_far_off_genes_stand_at_the_side_with_their_effect():
    effect = np.array([-5.0, *np.linspace(-0.2, 0.3, 30)])
    table = pd.DataFrame({"perturbation": "A", "gene": ["A", *(f"g{k}" for k in range(30))], "effect": effect})
    ax = pl.volcano(table.assign(lfsr=0.001), "A", n_labels=1)
    assert ax.get_xlim()[0] > -0.5
    assert named(ax) == ["A (-5.0)"]
    assert points(ax, BLUE)[:, 0].min() == ax.get_xlim()[0]


def test_bad_input(table, fixed):
    with pytest.raises(TypeError, match="perturbation='A'"):
        pl.volcano(fixed)
    with pytest.raises(TypeError, match="not dict"):
        pl.volcano({}, "A")
    with pytest.raises(KeyError, match="'lfsr' is not a column"):
        pl.volcano(table.drop(columns="lfsr"))
    with pytest.raises(KeyError, match="'B' is not a perturbation of the table"):
        pl.volcano(table, "B")
    with pytest.raises(ValueError, match="2 perturbations, .*: name one"):
        pl.volcano(pd.concat([table, table.assign(perturbation="B")]))
    with pytest.raises(ValueError, match="gene 'A' of 'A' twice"):
        pl.volcano(pd.concat([table, table]))
    with pytest.raises(ValueError, match="missing or infinite"):
        pl.volcano(table.assign(effect=np.nan))
    with pytest.raises(ValueError, match="has no rate somewhere"):
        pl.volcano(table.assign(lfsr=np.nan))
    with pytest.raises(ValueError, match="max_lfsr=0"):
        pl.volcano(table, max_lfsr=0)
    with pytest.raises(ValueError, match="n_labels=-1"):
        pl.volcano(table, n_labels=-1)
    fixed.has_posterior = False
    with pytest.raises(ValueError, match="effect_posterior=True"):
        pl.volcano(fixed, "A")


def test_the_border_rises_where_many_are_sure():
    """All but 3 % of the genes have a height of their own; rates of zero stand at the border."""
    heights = np.linspace(2, 101, 100)
    genes = [f"g{k}" for k in range(100)]
    table = pd.DataFrame({"perturbation": "A", "gene": genes, "effect": 1.0, "lfsr": 10**-heights})
    table.loc[99, "lfsr"] = 0.0
    ax = pl.volcano(table, n_labels=0)
    border = np.ceil(np.quantile(heights, 0.97))
    np.testing.assert_allclose(np.sort(points(ax, ORANGE)[:, 1]), np.minimum(heights, border))
    assert ax.get_legend().get_texts()[-1].get_text() == f"rate below 1e-{border:g}"
