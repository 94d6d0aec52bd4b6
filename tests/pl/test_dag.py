import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon

from raptorgraph import pl
from raptorgraph.pl._figure import BLUE, ORANGE


def adjacency(edges, names="ABCDEF"):
    table = pd.DataFrame(0.0, index=list(names), columns=list(names))
    for (cause, effect), weight in edges.items():
        table.loc[cause, effect] = weight
    return table


def random_graph(n, n_edges, seed=0):
    """Adjacency of n nodes whose names do not give their order away."""
    rng = np.random.default_rng(seed)
    cause, effect = np.triu_indices(n, 1)
    chosen = rng.choice(len(cause), n_edges, replace=False)
    names = rng.permutation([f"GENE{k}" for k in range(n)])
    return adjacency({(names[cause[k]], names[effect[k]]): rng.normal() for k in chosen}, sorted(names))


def names(ax):
    return {text.get_text(): text.get_position() for text in ax.texts}


def lines(ax):
    """Width and color of the edges, thin ones first."""
    found = [patch for patch in ax.patches if isinstance(patch, PathPatch) and len(patch.get_path()) > 2]
    ax.figure.draw_without_rendering()
    return [(patch.get_linewidth(), to_hex(patch.get_edgecolor()), patch) for patch in found]


def test_causes_stand_above_effects_and_lines_show_sign_and_weight():
    ax = pl.dag(adjacency({("C", "A"): 1.0, ("A", "B"): -0.5, ("C", "B"): 0.2}), weights=False)
    height = {name: y for name, (_, y) in names(ax).items()}
    assert height["C"] > height["A"] > height["B"]
    assert set(height) == set("ABC")
    found = lines(ax)
    assert [color.upper() for _, color, _ in found] == [BLUE, ORANGE, BLUE]
    widths = np.array([width for width, *_ in found]) / found[-1][0]
    np.testing.assert_allclose(widths, (0.7 + 2.5 * np.array([0.2, 0.5, 1.0])) / 3.2)


def test_weights_are_written_where_there_are_few():
    few = adjacency({("A", "B"): 0.9, ("C", "D"): -0.25})
    assert {"0.9", "-0.25"} < set(names(pl.dag(few)))
    assert set(names(pl.dag(few, weights=False))) == set("ABCD")
    many = random_graph(20, 30)
    assert len(names(pl.dag(many))) == (many != 0).any(axis=0).add((many != 0).any(axis=1)).sum()


def test_sub_graph_around_genes():
    table = adjacency({("A", "B"): 0.9, ("B", "C"): -2.0, ("C", "D"): 0.1, ("E", "F"): 1.0})

    def shown(**options):
        return set(names(pl.dag(table, weights=False, **options)))

    assert shown(genes="B") == set("ABC")  # along the edges and against them
    assert shown(genes=["B"], n_hops=2) == set("ABCD")
    assert shown(genes=["A", "B", "F"], n_hops=0) == set("ABF")
    assert shown() == set("ABCDEF")
    ax = pl.dag(table, genes="B", weights=False)
    assert {text.get_text() for text in ax.texts if text.get_fontweight() == "bold"} == {"B"}


def test_strongest_edges_are_kept_and_the_rest_is_counted():
    table = adjacency({("A", "B"): 0.9, ("A", "C"): -2.0, ("C", "D"): 0.1})
    ax = pl.dag(table, max_edges=1, weights=False)
    assert set(names(ax)) == {"A", "C"}
    legends = [artist for artist in ax.get_children() if hasattr(artist, "get_title") and artist is not ax]
    assert "the 1 strongest of 3 edges" in [legend.get_title().get_text() for legend in legends]


def test_models_adjacencies_and_edges_draw_the_same(trained, edges):
    plain = edges.drop(columns="frequency")
    square = adjacency({(a, b): w for a, b, w in plain.itertuples(index=False)})
    by_name = [
        {name: tuple(np.round(at, 6)) for name, at in names(pl.dag(graph, weights=False)).items()}
        for graph in (plain, square)
    ]
    assert by_name[0] == by_name[1]
    before = trained.get_edges()
    assert set(names(pl.dag(trained, weights=False))) == {*before["source"], *before["target"]} != set()
    pd.testing.assert_frame_equal(trained.get_edges(), before)


def test_frequencies_set_the_style_of_lines(edges):
    edges = edges.set_index(["source", "target"])
    for frequency, dashes, alpha in ((0.95, None, 0.9), (0.9, None, 0.9), (0.5, [4, 1.5], 0.75), (0.2, [1, 1.5], 0.5)):
        edges["frequency"] = np.nan
        edges.loc[("A", "B"), "frequency"] = frequency
        found = lines(pl.dag(edges.reset_index(), weights=False))
        width, _, patch = found[-1]  # the strongest, A to B
        offset, pattern = patch._dash_pattern
        assert patch.get_alpha() == alpha
        assert (pattern is None) == (dashes is None)
        if dashes:
            np.testing.assert_allclose(pattern, np.multiply(dashes, width))
        assert {(other._dash_pattern[1], other.get_alpha()) for *_, other in found[:-1]} == {(None, 0.9)}  # unknown


def fills(ax):
    boxes = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    order = [text.get_text() for text in ax.texts if text.get_text() in set("ABCDEF")]
    return dict(zip(order, [to_hex(box.get_facecolor()) for box in boxes], strict=True))


def test_annotations_color_and_label_the_nodes(edges):
    table = pd.DataFrame({"label": ["x", "x", "y", None, ""]}, index=pd.Index(list("ABCDE"), name="latent"))
    found = fills(pl.dag(edges, color=table, weights=False))
    assert found["A"] == found["B"] != found["C"]
    assert found["D"] == found["E"] == found["F"] == "#ffffff"
    ax = pl.dag(edges, label=table["label"], weights=False)
    assert sorted(names(ax)) == sorted([*"ABCDEF", "x", "y"])
    many = pd.Series([f"p{k}" for k in range(6)] + [f"q{k}" for k in range(4)], index=[*"ABCDEF", *"uvwx"])
    assert len(set(fills(pl.dag(edges, color=many)).values())) == 6


def test_numbers_color_the_nodes_and_get_a_bar(edges):
    size = pd.Series([1.0, 2.0, np.nan], index=list("ABC"), name="size of the effect")
    ax = pl.dag(edges, color=size, weights=False)
    found = fills(ax)
    assert found["A"] == "#440154"
    assert found["B"] == "#fde725"
    assert found["C"] == "#ffffff"
    assert [other.get_ylabel() for other in ax.figure.axes if other is not ax] == ["size of the effect"]
    assert len(pl.dag(edges, color=size * np.nan).figure.axes) == 1


def test_graph_without_edges_says_so(tmp_path):
    ax = pl.dag(adjacency({}), save=tmp_path / "dag.png")
    assert set(names(ax)) == {"no edges"}
    assert (tmp_path / "dag.png").stat().st_size > 0
    assert set(names(pl.dag(adjacency({}), genes=["A"]))) == {"no edges", "A"}


@pytest.mark.parametrize(
    ("table", "options", "error", "match"),
    [
        (adjacency({("A", "B"): 1.0, ("B", "A"): 1.0}), {}, ValueError, "cycle, A -> B"),
        (adjacency({}).iloc[:3], {}, ValueError, r"\(3, 6\)"),
        (adjacency({("A", "B"): np.nan}), {}, ValueError, "A -> B is missing"),
        (adjacency({}), {"genes": ["X"]}, KeyError, "'X'"),
        (adjacency({}), {"max_edges": 0}, ValueError, "max_edges=0"),
        (adjacency({}), {"n_hops": -1}, ValueError, "n_hops=-1"),
        (pd.DataFrame({"source": list("AA"), "target": list("BB"), "weight": 1.0}), {}, ValueError, "A -> B is there"),
        ("model", {}, TypeError, "str"),
        (adjacency({("A", "B"): 1.0}), {"color": pd.DataFrame({"x": [1]})}, KeyError, "'label'"),
        (adjacency({("A", "B"): 1.0}), {"label": {"A": "x"}}, TypeError, "label must be"),
        (adjacency({("A", "B"): 1.0}), {"label": pd.Series("x", ["A", "A"])}, ValueError, "'A' twice"),
    ],
)
def test_bad_input(table, options, error, match):
    with pytest.raises(error, match=match):
        pl.dag(table, **options)


@pytest.mark.parametrize("n_edges", [100, 150])
def test_hundred_nodes_are_legible(n_edges):
    ax = pl.dag(random_graph(100, n_edges))
    ax.figure.canvas.draw()
    texts = [text for text in ax.texts if text.get_text().startswith("GENE")]
    boxes = [text.get_window_extent() for text in texts]
    assert len(texts) > 80
    assert min(text.get_fontsize() for text in texts) > 5
    # no name covers another one, and none leaves the figure
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
    whole = ax.figure.bbox
    assert all(whole.contains(*corner) for box in boxes for corner in (box.min, box.max))


def test_letters_follow_the_size_of_the_axes(edges):
    sizes = []
    for side in (2, 4):
        ax = pl.dag(edges, weights=False, ax=Figure(figsize=(side, side)).subplots())
        ax.figure.draw_without_rendering()
        sizes.append(ax.texts[0].get_fontsize())
    assert sizes[1] > 1.3 * sizes[0]


def legend_texts(ax):
    legend = ax.get_legend()
    return [text.get_text() for text in legend.get_texts()], legend.get_title().get_text()


def test_edges_without_a_direction_are_lines_and_modules_are_named():
    edges = pd.DataFrame(
        {
            "source": ["A", "B", "C"], "target": ["B", "C", "D"], "weight": [1.0, -0.8, 0.5],
            "direction_support": [0.5, 0.79, 0.8], "module": pd.Categorical(["M1", "M1", None]),
        }
    )  # fmt: skip
    ax = pl.dag(edges, weights=False)
    plain = pl.dag(edges.drop(columns=["direction_support", "module"]), weights=False)

    def heads(axes):
        """Arrows, and bars."""
        bars = [patch for patch in axes.patches if isinstance(patch, PathPatch) and len(patch.get_path()) == 2]
        return sum(isinstance(patch, Polygon) for patch in axes.patches), len(bars)

    assert heads(plain) == (2, 1)
    assert heads(ax) == (1, 0)
    assert len(lines(ax)) == len(lines(plain)) == 3
    texts, title = legend_texts(ax)
    assert "direction not known" in texts
    assert title == "M1: the data do not order A, B, C"
    texts, title = legend_texts(plain)
    assert "direction not known" not in texts
    assert title == ""
    known = edges.assign(direction_support=0.9, module=pd.Categorical([None] * 3))
    assert heads(pl.dag(known, weights=False)) == (2, 1)
