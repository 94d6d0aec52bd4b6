"""Cells as points: coordinates, limits and colors."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from raptorgraph.pl._map import OTHERS, draw_groups, draw_values, given_map, map_name, remarks, sampled, set_view, umap


@pytest.fixture
def ax():
    return Figure().subplots()


def test_view_leaves_out_a_far_off_clump_and_counts_it():
    rng = np.random.default_rng(0)
    points = np.vstack([rng.uniform(-3, 3, size=(2000, 2)), rng.normal(size=(6, 2)) * 0.1 + 40])
    ax = Figure().subplots()
    assert set_view(ax, points, "UMAP") == 6
    assert ax.get_xlim()[1] < 6
    # two clouds of some size are both shown
    assert set_view(ax, np.vstack([points, points + 40]), "UMAP") <= 6
    assert ax.get_xlim()[1] > 40


def test_the_map_says_that_it_is_being_made(in_terminal, monkeypatch):
    import scanpy

    def put(cells, **kwargs):
        cells.obsm["X_umap"] = cells.X[:, :2]

    monkeypatch.setattr(scanpy.pp, "neighbors", lambda *args, **kwargs: None)
    monkeypatch.setattr(scanpy.tl, "umap", put)
    with in_terminal() as terminal:
        umap(np.eye(7), n_neighbors=3, seed=0)
    assert terminal.lines() == {"UMAP of 7 cells"}


def test_coordinates_are_those_of_obsm_or_the_given_ones():
    points = np.arange(9.0).reshape(3, 3)
    cells = AnnData(np.zeros((3, 1)), obsm={"X_pca": points})
    np.testing.assert_array_equal(given_map(cells, "X_pca"), points[:, :2])
    np.testing.assert_array_equal(given_map(cells, points.astype(int)), points[:, :2])
    with pytest.raises(KeyError, match=r"basis='X_umap' is not in adata.obsm, which has \['X_pca'\]"):
        given_map(cells, "X_umap")
    with pytest.raises(ValueError, match=r"shape \(3, 1\) must have two coordinates for each of 3 cells"):
        given_map(cells, points[:, :1])
    with pytest.raises(ValueError, match="missing or infinite"):
        given_map(cells, np.where(points == 4, np.inf, points))
    given_map(cells, np.where(points == 5, np.inf, points))  # a coordinate that is not drawn


def test_names_of_axes():
    assert [map_name(basis) for basis in (None, "X_umap", "X_tsne", "X_pca", "X_own", "own", np.ones((1, 2)))] == [
        "UMAP", "UMAP", "t-SNE", "PC", "own", "own", "map",
    ]  # fmt: skip


def test_cells_are_sampled_without_replacement_in_their_order():
    np.testing.assert_array_equal(sampled(5, 5, seed=0), range(5))
    found = sampled(1000, 100, seed=3)
    assert len(set(found)) == 100
    assert (np.diff(found) > 0).all()
    np.testing.assert_array_equal(found, sampled(1000, 100, seed=3))
    assert set(found) != set(sampled(1000, 100, seed=4))
    assert abs(found.mean() - 499.5) < 4 * 1000 / np.sqrt(12 * 100)


def test_limits_have_a_margin_of_three_percent(ax):
    points = np.random.default_rng(0).uniform(size=(500, 2)) * [2, 5]
    assert set_view(ax, points, "PC") == 0
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.03 * (high - low)
    np.testing.assert_allclose([ax.get_xlim(), ax.get_ylim()], np.column_stack([low - margin, high + margin]))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("PC 1", "PC 2")


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((4_000, 4_000, 0), "4,000 cells"),
        ((4_000, 12_345, 0), "4,000 of 12,345 cells"),
        ((10, 10, 2), "10 cells, 2 outside the view"),
    ],
)
def test_remarks_say_what_is_left_out(numbers, words):
    assert remarks(*numbers) == words


def test_groups_have_their_colors_others_are_gray_and_some_are_behind(ax):
    points = np.random.default_rng(0).normal(size=(9, 2))
    labels = pd.Series(["a", "b", "c"] * 3)
    labels[8] = np.nan
    draw_groups(ax, points, labels, {"b": "#ff0000", "a": "#0000ff", "z": "#00ff00"}, behind=["a"], title="kinds")
    drawn = [({to_hex(c) for c in dots.get_facecolor()}, len(dots.get_offsets())) for dots in ax.collections]
    assert drawn == [({OTHERS.lower()}, 3), ({"#0000ff"}, 3), ({"#ff0000"}, 3)]
    assert {tuple(p) for p in ax.collections[2].get_offsets()} == {tuple(points[k]) for k in (1, 4, 7)}
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["others (3)", "b (3)", "a (3)"]
    assert legend.get_title().get_text() == "kinds"


@pytest.mark.parametrize(("n", "area"), [(10, 30.0), (1_000, 16.0), (100_000, 3.0)])
def test_areas_of_points_shrink_with_their_number(ax, n, area):
    draw_groups(ax, np.zeros((n, 2)), pd.Series(["a"] * n), {"a": "red"}, behind=["a"], legend=False)
    assert ax.collections[0].get_sizes().tolist() == [area]
    assert ax.get_legend() is None


def test_largest_numbers_are_on_top_and_the_last_ones_share_a_color(ax):
    values = np.r_[np.nan, np.random.default_rng(0).permutation(1000), 1e6]
    draw_values(ax, np.column_stack([values, values]), values, "depth")
    missing, dots = ax.collections
    assert len(missing.get_offsets()) == 1
    shown = dots.get_array()
    np.testing.assert_array_equal(shown, np.r_[np.arange(1000.0), 1e6])
    assert dots.get_clim() == (0.0, np.quantile(values[1:], 0.995))
    (bar,) = [other for other in ax.figure.axes if other is not ax]
    assert bar.get_ylabel() == "depth"
    assert dots.colorbar.extend == "max"
