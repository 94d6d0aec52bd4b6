"""Show the figure of every function of ``raptorgraph.pl`` on its page, drawn when the documentation is built.

Our own: galleries of sphinx-gallery and matplotlib's plot directive train a model for every page, here all figures are
of one. It is trained and drawn in a process of its own, into ``api/generated/figures``, and again only when a file of
the package or this one changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]

# The model of all figures: eight genes and twelve pairs in two states of the cells, in which half of the genes act in
# one state only, and a tenth of the cells escape.
SCREEN = """
adata = rg.datasets.simulate(
    200, 8, n_doubles=12, n_control_cells=500, n_cells_per_perturbation=80,
    expected_degree=1.5, interaction_strength=1.0, states=2, escape=0.1, seed=0,
)
adata.obs["guide"] = (
    adata.obs["perturbation"].astype(str) + "_g" + np.resize(["1", "2", "3"], adata.n_obs)
)
rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
model = rg.RaptorGraphModel(adata)
model.train(max_epochs=5, enable_progress_bar=False)
single, pair = "P01", next(label for label in model.conditions if label.startswith("P01+"))
genes = [gene for gene in model.var_names_ if gene not in model.perturbed_genes]
effects = model.measured_effects()[genes]
gene_sets = {
    f"{way} by {gene}": list(values.nlargest(15).index)
    for gene in model.perturbed_genes[:5]
    for way, values in (("raised", effects.loc[gene]), ("lowered", -effects.loc[gene]))
}
"""

# What each figure is drawn by; the last line is shown below it.
FIGURES = {
    "counterfactual": "rg.pl.counterfactual(model, single)",
    "dag": "rg.tl.dag_stability(model, n=10, n_null=1)\nrg.pl.dag(model)",
    "effect": "rg.pl.effect(model, perturbation=pair)",
    "effects_map": "rg.pl.effects_map(model)",
    "enrichment": "table = rg.tl.enrich(model, gene_sets, n_permutations=200, n_null=200)\nrg.pl.enrichment(table)",
    "guides": 'table = rg.tl.guides(model, "guide", n_resamples=50)\nrg.pl.guides(table)',
    "interactions": "table = rg.tl.interactions(model, seed=0)\nrg.pl.interactions(table)",
    "latents": "rg.pl.latents(model)",
    "next_pairs": "table = rg.tl.next_pairs(model, n=8, n_draws=50, seed=0)\nrg.pl.next_pairs(table)",
    "pair": "rg.pl.pair(model, pair)",
    "power": "table = rg.tl.power(model, top=10, n_draws=50, seed=0)\nrg.pl.power(table)",
    "reverse": (
        "query = model.measured_effects().loc[[pair]]\ntable = rg.tl.reverse(model, query)\n"
        'rg.pl.reverse(table, truth=pair.split("+"))'
    ),
    "similarity": "rg.pl.similarity(model)",
    "state_effects": 'table = rg.tl.state_effects(model, "state", n_permutations=100)\nrg.pl.state_effects(table)',
    "training": "rg.pl.training(model)",
    "uncertainty": "rg.pl.uncertainty(model, single)",
    "volcano": "rg.pl.volcano(model, single)",
}


def digest() -> str:
    """Changes when a figure may."""
    found = hashlib.sha256()
    for path in [*sorted((ROOT / "src").rglob("*.py")), Path(__file__)]:
        found.update(path.read_bytes())
    return found.hexdigest()


def draw(folder: Path) -> None:
    """Train the model and draw all figures into a folder; the last file to be written says of what they are."""
    import logging

    import matplotlib.pyplot as plt
    import numpy as np
    import scvi

    import raptorgraph as rg

    logging.disable(logging.INFO)
    scvi.settings.seed = 0
    names = {"rg": rg, "np": np}
    exec(SCREEN, names)
    for name in rg.pl.__all__:
        exec(FIGURES[name], dict(names))
        plt.gcf().savefig(folder / f"{name}.png", dpi=100, bbox_inches="tight")
        plt.close("all")
    (folder / "made.json").write_text(json.dumps(digest()))


def draw_figures(app: Sphinx) -> None:
    """Draw where what there is is not of these files."""
    folder = Path(app.srcdir) / "api" / "generated" / "figures"
    made = folder / "made.json"
    if made.is_file() and json.loads(made.read_text()) == digest():
        return
    folder.mkdir(parents=True, exist_ok=True)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    subprocess.run(
        [sys.executable, __file__, str(folder)], check=True, env={**os.environ, **threads, "MPLBACKEND": "Agg"}
    )


def show_figure(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Put the figure below the first paragraph."""
    room, _, function = name.rpartition(".")
    if room != "raptorgraph.pl" or function not in FIGURES:
        return
    first = " ".join(lines[: lines.index("")] if "" in lines else lines)
    code = FIGURES[function].rpartition("\n")[2]
    figure = [f".. figure:: /api/generated/figures/{function}.png", f"   :alt: {first}", "", f"   ``{code}``", ""]
    end = lines.index("") if "" in lines else len(lines)
    lines[end:end] = ["", *figure]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", draw_figures, priority=100)
    app.connect("autodoc-process-docstring", show_figure, priority=900)  # after napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
