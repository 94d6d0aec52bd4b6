"""Draw ``model.svg``, the figure of the model: ``python docs/figures/model.py``."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

# Okabe and Ito's colors, which color-blind readers can tell apart: one for each perturbed gene of the example.
GENES = {"A": "#0072B2", "B": "#D55E00", "C": "#009E73"}
GRAY, DARK, PALE = "#9A9A9A", "#222222", "#F4F4F2"
LATENTS = [*GENES.values(), GRAY]
TOP = [5.05, 4.4, 3.75, 3.1]  # heights of the four latents
X_IN, X_Z, X_SHIFT, X_U, X_OUT = 0.9, 3.5, 5.6, 7.7, 10.65
X_GRAPH = (X_SHIFT + X_U) / 2


def main() -> None:
    mpl.rcParams.update({"font.size": 10, "svg.hashsalt": "raptorgraph", "svg.fonttype": "path"})
    fig, ax = plt.subplots(figsize=(11.5, 6.6))
    ax.set(xlim=(0, 11.6), ylim=(-0.8, 6.35))
    ax.axis("off")
    network(ax)
    posteriors(ax)
    fig.savefig(Path(__file__).with_name("model.svg"), bbox_inches="tight", facecolor="white", metadata={"Date": None})
    plt.close(fig)


def network(ax) -> None:
    """Upper half: one control cell on its way to a perturbed one; in training, every cell is encoded and decoded."""
    lane(ax, (0.05, 2.2), 11.45, 4.1, "The network, a model of all cells: how cells differ, and which respond")
    # genes of the cell: three targets, then all others
    heights = np.linspace(5.2, 2.75, 8)
    colors = [*GENES.values(), *[GRAY] * 5]
    for y, color in zip(heights, colors, strict=True):
        square(ax, X_IN, y, color)
    for y, name in zip(heights, GENES, strict=False):
        ax.text(X_IN - 0.2, y, name, ha="right", va="center", color=GENES[name], weight="bold")
    ax.text(X_IN - 0.2, heights[5], "other\ngenes", ha="right", va="center", color="#666666", fontsize=9)
    heading(ax, X_IN, "control cell")
    # encoder: a target reaches its own latent, all other genes reach every latent
    for y in heights[3:]:
        for to in TOP:
            ax.plot([X_IN + 0.13, X_Z - 0.19], [y, to], color=GRAY, lw=0.5, alpha=0.6, zorder=1)
    for y, to, color in zip(heights, TOP, GENES.values(), strict=False):
        ax.plot([X_IN + 0.13, X_Z - 0.19], [y, to], color=color, lw=2.2, zorder=2)
    heading(ax, (X_IN + X_Z) / 2, "encoder")
    # latents, their shift, the graph
    for y, color, name in zip(TOP, LATENTS, [*GENES, ""], strict=True):
        circle(ax, X_Z, y, color, name)
        circle(ax, X_SHIFT, y, color, name)
        circle(ax, X_U, y, color, name)
        arrow(ax, (X_Z + 0.2, y), (X_SHIFT - 0.2, y), color=GRAY if y != TOP[0] else GENES["A"])
        arrow(ax, (X_SHIFT + 0.2, y), (X_U - 0.2, y), color=GRAY)
    # the state of the cell, in the latent without a gene, says how far the perturbed one is shifted
    state = {"arrowstyle": "-|>", "mutation_scale": 11, "ls": (0, (4, 2)), "shrinkA": 0, "shrinkB": 0, "zorder": 2}
    middle = (X_Z + X_SHIFT) / 2
    ax.add_patch(FancyArrowPatch((X_Z + 0.16, TOP[3] + 0.13), (middle, TOP[0] - 0.05), color=GRAY, lw=1.4, **state))
    ax.text(X_Z, TOP[3] - 0.3, "state of\nthe cell", ha="center", va="top", fontsize=8.5, color="#666666")
    heading(ax, X_Z, "z")
    heading(ax, middle, "perturb A")
    ax.text(middle, TOP[0] + 0.13, "+ shift of A", ha="center", va="bottom", color=GENES["A"], fontsize=9)
    heading(ax, X_SHIFT, "z, shifted")
    heading(ax, X_GRAPH, "graph")
    heading(ax, X_U, "u")
    for start, end in ((0, 1), (1, 2)):
        arrow(ax, (X_SHIFT + 0.17, TOP[start] - 0.1), (X_U - 0.18, TOP[end] + 0.09), color=LATENTS[start], lw=2.0)
    ax.text(X_GRAPH, 2.72, "u = z (I − A)$^{-1}$", ha="center", va="center", fontsize=10)
    # decoder
    for i, (y, color) in enumerate(zip(heights, colors, strict=True)):
        for from_ in TOP:
            ax.plot([X_U + 0.19, X_OUT - 0.13], [from_, y], color=GRAY, lw=0.5, alpha=0.6, zorder=1)
        square(ax, X_OUT, y, color, fill=0.45 if i in (0, 1, 4, 6) else 1.0)
    heading(ax, (X_U + X_OUT) / 2, "decoder")
    heading(ax, X_OUT, "perturbed cell")
    ax.text(X_OUT, 2.42, "counts with the\ncell's own noise", ha="center", va="center", fontsize=8.5)


def posteriors(ax) -> None:
    """Lower half: graph and mean effects, inferred once from the measured effects, not by gradients of the loss."""
    lane(ax, (0.05, -0.75), 11.45, 2.45, "The posteriors: what the mean effects are")
    rng = np.random.default_rng(4)
    tile = rng.normal(size=(3, 9))
    tile[0] = 0.6 * tile[1] + 0.3 * tile[0]
    ax.imshow(tile, cmap="RdBu_r", vmin=-2, vmax=2, extent=(0.75, 2.45, -0.05, 0.75), aspect="auto", zorder=3)
    for row, name in enumerate(GENES):
        ax.text(0.62, 0.62 - 0.267 * row, name, ha="right", va="center", color=GENES[name], weight="bold")
    ax.text(1.6, 0.86, "measured effects", ha="center", va="bottom")
    ax.text(1.6, -0.14, "perturbations × genes,\nwith sampling error", ha="center", va="top", fontsize=8.5)
    box(ax, (5.45, 0.0), 2.4, 0.75, "graph among\nthe perturbed genes")
    box(ax, (8.25, 0.0), 1.4, 0.75, "effect of any\nset of genes")
    ax.text(10.65, 0.38, "mean ± SD\nof each gene", ha="center", va="center")
    arrow(ax, (2.55, 0.38), (5.35, 0.38))
    ax.text(3.95, 0.45, "effects of single genes", ha="center", va="bottom", fontsize=8.5)
    arrow(ax, (7.9, 0.38), (8.2, 0.38))
    arrow(ax, (9.7, 0.38), (10.05, 0.38))
    ax.plot([2.55, 2.75, 2.75, 8.95, 8.95], [0.15, 0.15, -0.45, -0.45, -0.3], color=DARK, lw=1.2)
    arrow(ax, (8.95, -0.35), (8.95, -0.05))
    ax.text(3.95, -0.38, "all effects", ha="center", va="bottom", fontsize=8.5)
    # upwards: the graph is fixed before training, and so is the mean at which the network starts and ends
    arrow(ax, (X_GRAPH, 0.82), (X_GRAPH, 2.48))
    ax.text(X_GRAPH - 0.1, 1.95, "fixed before training", ha="right", va="center", fontsize=8.5)
    arrow(ax, (10.65, 0.72), (10.65, 2.12))
    ax.text(10.55, 1.95, "starts at it, is held to it, cells are moved to it", ha="right", va="center", fontsize=8.5)


# -- pieces ------------------------------------------------------------------------------------------------------------
def lane(ax, corner, width, height, title) -> None:
    ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=0.12", fc=PALE, ec="none"))
    ax.text(corner[0] + 0.15, corner[1] + height - 0.14, title, va="top", weight="bold", fontsize=11.5, color=DARK)


def heading(ax, x, text) -> None:
    ax.text(x, 5.52, text, ha="center", va="center", fontsize=10, color=DARK)


def square(ax, x, y, color, fill=1.0) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (x - 0.11, y - 0.11), 0.22, 0.22, boxstyle="square,pad=0", fc="white", ec=color, lw=1.2, zorder=3
        )
    )
    ax.add_patch(
        FancyBboxPatch((x - 0.11, y - 0.11), 0.22, 0.22 * fill, boxstyle="square,pad=0", fc=color, ec="none", zorder=3)
    )


def circle(ax, x, y, color, name) -> None:
    ax.plot([x], [y], "o", ms=19, mfc="white", mec=color, mew=2.0, zorder=3)
    ax.text(x, y, name, ha="center", va="center_baseline", color=color, weight="bold", zorder=4)


def box(ax, corner, width, height, text) -> None:
    ax.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=0.08", fc="white", ec=DARK, lw=1.2)
    )
    ax.text(corner[0] + width / 2, corner[1] + height / 2, text, ha="center", va="center")


def arrow(ax, start, end, color=DARK, lw=1.2) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=11, color=color, lw=lw, shrinkA=0, shrinkB=0, zorder=2
        )
    )


if __name__ == "__main__":
    main()
