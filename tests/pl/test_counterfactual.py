"""Where a perturbation moves cells on a map."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from raptorgraph import pl
from raptorgraph.pl._figure import BLUE, ORANGE


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


def arrows(ax):
    (found,) = [c for c in ax.collections if c.__class__.__name__ == "Quiver"]
    return np.column_stack([found.U, found.V])


def test_arrows_point_to_the_measured_cells(fixed):
    points, labels = fixed.adata.obsm["X_map"], fixed.adata.obs["perturbation"]
    toward = points[labels == "A"].mean(axis=0) - points[labels == "control"].mean(axis=0)
    ax = pl.counterfactual(fixed, "A", basis="X_map")
    shift = arrows(ax)
    assert len(shift) > 2
    assert (shift @ toward > 0).all()
    assert legend(ax) == ["others (180)", "control (60)", "A (60)", "mean predicted shift"]


def test_perturbation_without_effect_moves_nothing(fixed):
    fixed.effects.loc["B+C"] = 0.0
    np.testing.assert_allclose(arrows(pl.counterfactual(fixed, "B+C", basis="X_map")), 0.0, atol=1e-12)


def test_perturbed_cells_are_drawn_as_cells(fixed):
    ax = pl.counterfactual(fixed, "A", kind="cells", basis="X_map", n_cells=25)
    found = colors(ax)
    assert sum(color == ORANGE.lower() for color in found.values()) == 25
    assert sum(color == BLUE.lower() for color in found.values()) == 60
    assert "A, predicted (25)" in legend(ax)


def test_counterfactual_of_a_trained_model_leaves_its_data(trained):
    before = set(trained.adata.obsm), set(trained.adata.uns), trained.adata.X.copy()
    pair = "+".join(trained.perturbed_genes[-2:])
    axes = [pl.counterfactual(trained, pair, n_cells=50, max_cells=150) for _ in range(2)]
    np.testing.assert_array_equal(*map(arrows, axes))
    assert axes[0].get_title().startswith(f"{pair}: 50 control cells perturbed\n150 of ")
    assert (set(trained.adata.obsm), set(trained.adata.uns)) == before[:2]
    assert (before[2] != trained.adata.X).nnz == 0


def test_bad_counterfactual(fixed):
    with pytest.raises(ValueError, match="kind='other'"):
        pl.counterfactual(fixed, "A", kind="other")
    with pytest.raises(ValueError, match="n_cells=0"):
        pl.counterfactual(fixed, "A", n_cells=0)
    with pytest.raises(KeyError, match="'X_other'"):
        pl.counterfactual(fixed, "A", basis="X_other")
    fixed.adata = None
    with pytest.raises(ValueError, match="without data"):
        pl.counterfactual(fixed, "A")
