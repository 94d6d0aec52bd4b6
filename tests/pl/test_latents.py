"""The latents of the cells on a map."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex

from raptorgraph import pl
from raptorgraph.pl._latents import separation
from raptorgraph.pl._map import OTHERS


def colors(ax):
    """Color of each point on the axes, by its place."""
    found = {}
    for dots in ax.collections:
        if not hasattr(dots, "get_offsets") or dots.__class__.__name__ == "Quiver":
            continue
        faces = dots.get_facecolor()
        for k, place in enumerate(np.asarray(dots.get_offsets())):
            found[tuple(place)] = to_hex(faces[k if len(faces) > 1 else 0])
    return found


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_perturbations_have_a_color_each_and_controls_are_gray(fixed):
    ax = pl.latents(fixed, basis="X_map")
    assert legend(ax)[0] == "control (60)"
    assert sorted(legend(ax)[1:]) == ["A (60)", "A+B (60)", "B (60)", "C (60)"]
    found = colors(ax)
    by_label = {
        label: {found[tuple(place)] for place in fixed.adata.obsm["X_map"][fixed.adata.obs["perturbation"] == label]}
        for label in ("control", "A", "B", "C", "A+B")
    }
    assert all(len(used) == 1 for used in by_label.values())
    assert len(set.union(*by_label.values())) == 5
    assert ax.get_xlabel() == "map 1"


def test_named_groups_are_colored_and_the_others_are_not(fixed):
    ax = pl.latents(fixed, basis="X_map", groups="B")
    assert legend(ax) == ["others (180)", "control (60)", "B (60)"]
    assert sum(color == OTHERS.lower() for color in colors(ax).values()) == 180


def test_farthest_groups_are_colored_by_default(fixed):
    labels = [f"p{k}" for k in range(9)] * 33 + ["control"] * 3
    fixed.adata.obs["perturbation"] = labels
    distance = np.array([int(label[1]) if label[0] == "p" else 0 for label in labels])
    cells = AnnData(obs=fixed.adata.obs, obsm={"X_raptorgraph": distance[:, None] * np.ones((1, 4))})
    ax = pl.latents(cells, color="perturbation", control="control", basis=fixed.adata.obsm["X_map"])
    assert legend(ax) == ["others (99)", "control (3)", *(f"p{k} (33)" for k in (8, 7, 6, 5, 4, 3))]


def test_numbers_and_genes_get_a_color_bar(fixed):
    ax = pl.latents(fixed, color="depth", basis="X_map")
    (bar,) = [other for other in ax.figure.axes if other is not ax]
    assert bar.get_ylabel() == "depth"
    assert ax.get_legend() is None
    ax = pl.latents(fixed, color="gene05", basis="X_map")
    shown = dict(
        zip(map(tuple, np.asarray(ax.collections[-1].get_offsets())), ax.collections[-1].get_array(), strict=True)
    )
    column = fixed.var_names_.index("gene05")
    for place, value in zip(fixed.adata.obsm["X_map"], fixed.adata.X[:, column], strict=True):
        assert shown[tuple(place)] == pytest.approx(value, rel=1e-5)
    assert [other.get_ylabel() for other in ax.figure.axes][1] == "gene05 (log-normalized)"


def test_umap_is_computed_by_scanpy_on_a_copy(trained):
    adata = trained.adata
    before = set(adata.obsm), set(adata.uns), set(adata.obsp), adata.obs.copy()
    axes = [pl.latents(trained, max_cells=120, seed=1) for _ in range(2)]
    assert "120 of" in axes[0].get_title()
    assert axes[0].get_xlabel() == "UMAP 1"
    assert colors(axes[0]) == colors(axes[1])
    assert (set(adata.obsm), set(adata.uns), set(adata.obsp)) == before[:3]
    pd.testing.assert_frame_equal(adata.obs, before[3])


def test_annotated_cells_need_no_model(trained):
    cells = AnnData(obs=trained.adata.obs, obsm={"X_raptorgraph": trained.get_latent_representation()})
    cells.obsm["X_tsne"] = cells.obsm["X_raptorgraph"][:, :2]
    ax = pl.latents(cells, color="perturbation", basis="X_tsne")
    assert ax.get_xlabel() == "t-SNE 1"
    assert pl.latents(cells, basis="X_tsne").get_legend() is None
    with pytest.raises(KeyError, match="model.annotate"):
        pl.latents(cells, kind="exogenous")


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"kind": "other"}, ValueError, "kind='other'"),
        ({"color": "x"}, KeyError, "neither a column"),
        ({"basis": "X_other"}, KeyError, "'X_other' is not in adata.obsm"),
        ({"basis": np.zeros((3, 2))}, ValueError, r"\(3, 2\)"),
        ({"basis": np.full((300, 2), np.nan)}, ValueError, "missing"),
        ({"groups": ["Z"], "basis": "X_map"}, KeyError, "'Z'"),
        ({"max_cells": 1}, ValueError, "max_cells=1"),
        ({"n_neighbors": 1}, ValueError, "n_neighbors=1"),
        ({"color": "perturbation", "groups": [f"A{k}" for k in range(9)]}, KeyError, "'A0'"),
    ],
)
def test_bad_latents(fixed, options, error, match):
    with pytest.raises(error, match=match):
        pl.latents(fixed, **options)


def test_latents_without_data(fixed):
    fixed.adata = None
    with pytest.raises(ValueError, match="without data"):
        pl.latents(fixed)


def test_more_groups_than_colors_are_refused(fixed):
    fixed.adata.obs["kind"] = [f"k{k % 10}" for k in range(300)]
    with pytest.raises(ValueError, match="9 groups cannot be told apart by color: name 8 at most"):
        pl.latents(fixed, color="kind", groups=[f"k{k}" for k in range(9)], basis="X_map")


def test_a_gene_of_annotated_cells_is_drawn_as_it_is(fixed):
    cells = fixed.adata.copy()
    cells.obsm["X_raptorgraph"] = cells.X[:, :3]
    ax = pl.latents(cells, color="gene05", basis="X_map")
    column = cells.var_names.get_loc("gene05")
    np.testing.assert_array_equal(ax.collections[-1].get_array(), np.sort(cells.X[:, column]))
    assert ax.figure.axes[1].get_ylabel() == "gene05 (X)"


def test_what_separates_comes_first(fixed):
    """A wide group lies farther off than a narrow one, which is told from the controls nevertheless."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["control", "wide", "narrow", "none", "few"], [200, 60, 60, 60, 3])
    found = rng.normal(size=(len(labels), 5))
    found[labels == "wide"] = found[labels == "wide"] * 8 + [6, 0, 0, 0, 0]
    found[labels == "narrow", 1] += 4
    values = separation(found, pd.Series(labels), "control")
    assert list(values.sort_values(ascending=False).index[:2]) in (["narrow", "few"], ["narrow", "wide"])
    assert values["narrow"] == pytest.approx(4, rel=0.15)
    assert values["wide"] < 6 / np.sqrt(0.5 * (64 + 1)) < values["narrow"]
    assert abs(values["none"]) < 0.5  # the direction of noise is none in the other half
    cells = AnnData(obs=pd.DataFrame({"kind": labels}, index=[str(k) for k in range(len(labels))]))
    cells.obsm["X_raptorgraph"] = found
    ax = pl.latents(cells, color="kind", control="control", basis=found[:, :2])
    assert legend(ax)[1] == "narrow (60)"
    assert ax.get_legend().get_title().get_text() == "kind,\nbest separated first"
    named = pl.latents(cells, color="kind", control="control", basis=found[:, :2], groups=["none", "narrow"])
    assert legend(named)[2:] == ["none (60)", "narrow (60)"]
    assert named.get_legend().get_title().get_text() == "kind"


def test_without_controls_a_group_is_told_from_all_others():
    found = np.repeat(np.eye(3), 10, axis=0) + np.tile([[0.1], [-0.1]], (15, 3))
    values = separation(found, pd.Series(np.repeat(["a", "b", "c"], 10)), None)
    assert values["a"] == pytest.approx(values["b"])
    assert (values > 3).all()
