from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from raptorgraph import pl


def adjacency(edges, names="ABCDEF"):
    table = pd.DataFrame(0.0, index=list(names), columns=list(names))
    for (cause, effect), weight in edges.items():
        table.loc[cause, effect] = weight
    return table


def labels(ax):
    return {text.get_text(): text.get_position() for text in ax.texts}


def test_dag_puts_causes_above_effects():
    ax = pl.dag(adjacency({("C", "A"): 1.0, ("A", "B"): -0.5, ("C", "B"): 0.2}))
    height = {name: y for name, (_, y) in labels(ax).items()}
    assert height["C"] > height["A"] > height["B"] and set(height) == set("ABC")
    widths = [arrow.get_linewidth() for arrow in ax.patches]
    colors = [to_hex(arrow.get_edgecolor()) for arrow in ax.patches]
    assert len(widths) == 3 and max(widths) == pytest.approx(3.5)
    assert len(set(colors)) == 2


def test_dag_of_a_model_with_the_strongest_edges_and_chosen_genes():
    table = adjacency({("A", "B"): 0.9, ("A", "C"): -2.0, ("C", "D"): 0.1})
    model = SimpleNamespace(get_dag=lambda: table)
    assert set(labels(pl.dag(model, max_edges=1))) == {"A", "C"}
    assert set(labels(pl.dag(model, genes=["A", "B", "F"]))) == {"A", "B", "F"}
    assert table.loc["A", "C"] == -2.0


def test_dag_without_edges_says_so(tmp_path):
    ax = pl.dag(adjacency({}), save=tmp_path / "dag.png")
    assert set(labels(ax)) == {"no edges"}
    assert (tmp_path / "dag.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("table", "options", "error", "match"),
    [
        (adjacency({("A", "B"): 1.0, ("B", "A"): 1.0}), {}, ValueError, "cycle, A -> B"),
        (adjacency({}).iloc[:3], {}, ValueError, r"\(3, 6\)"),
        (adjacency({("A", "B"): np.nan}), {}, ValueError, "missing"),
        (adjacency({}), {"genes": ["X"]}, KeyError, "'X'"),
        (adjacency({}), {"max_edges": 0}, ValueError, "max_edges=0"),
    ],
)
def test_dag_of_bad_input(table, options, error, match):
    with pytest.raises(error, match=match):
        pl.dag(table, **options)
    assert plt.get_fignums() == []


def test_given_axes_are_used_without_pyplot():
    ax = Figure().subplots()
    assert pl.dag(adjacency({("A", "B"): 1.0}), ax=ax) is ax
    assert plt.get_fignums() == []


def history(**curves):
    return {key: pd.DataFrame({key: values}, index=range(len(values))) for key, values in curves.items()}


def test_training_has_a_panel_for_each_term():
    model = SimpleNamespace(
        history=history(
            train_loss_step=[9.0], train_loss=[3, 2, 1], kl_train=[1, 1, 2], kl_validation=[2, 2, 3], shift_train=[5]
        )
    )
    axes = pl.training(model)
    assert [ax.get_title() for ax in axes] == ["loss", "kl", "shift"]
    curves = {line.get_label(): list(line.get_ydata()) for line in axes[1].lines}
    assert curves == {"train": [1, 1, 2], "validation": [2, 2, 3]}
    assert len(axes[0].figure.axes) == 3


@pytest.mark.parametrize("empty", [None, {}])
def test_training_of_an_untrained_model(empty):
    with pytest.raises(ValueError, match="train"):
        pl.training(SimpleNamespace(history=empty))


def test_effect_aligns_genes(tmp_path):
    measured = pd.Series([1.0, -2.0, 0.5, 0.0], index=list("abcd"), name="KLF1")
    predicted = 2 * measured[["d", "c", "b"]]
    ax = pl.effect(predicted, measured, n_labels=1, save=tmp_path / "effect.png")
    assert ax.get_title() == "KLF1, Pearson 1.00"
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[-2, -4], [0.5, 1], [0, 0]])
    assert [text.get_text() for text in ax.texts] == ["b"]
    assert (tmp_path / "effect.png").exists()
    assert "undefined" in pl.effect(0 * measured, measured).get_title()


def test_effect_of_bad_input():
    series = pd.Series([1.0, 2.0], index=["a", "b"])
    with pytest.raises(ValueError, match="share 0 genes"):
        pl.effect(series, series.rename({"a": "x", "b": "y"}))
    with pytest.raises(ValueError, match="'a' twice"):
        pl.effect(series.rename({"b": "a"}), series)


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "gene_a": ["A", "A"],
            "gene_b": ["B", "C"],
            "synergy": [1.5, 0.8],
            "redundancy": [0.1, 0.2],
            "interaction": ["synergy", "suppression"],
        }
    )


def test_interactions_heat_map_is_symmetric(table):
    ax = pl.interactions(table)
    values = ax.images[0].get_array()
    assert values[0, 1] == values[1, 0] == 1.5 and values[0, 2] == 0.8
    assert values.mask[1, 2] and values.mask.diagonal().all()
    assert ax.images[0].norm.vcenter == 1
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["A", "B", "C"]
    assert pl.interactions(table, "redundancy").images[0].norm.vmin == 0.1


def test_interactions_of_bad_input(table):
    with pytest.raises(KeyError, match="'other' is not a column"):
        pl.interactions(table, "other")
    with pytest.raises(ValueError, match="numbers"):
        pl.interactions(table, "interaction")
    with pytest.raises(ValueError, match="no pairs"):
        pl.interactions(table.iloc[:0])
