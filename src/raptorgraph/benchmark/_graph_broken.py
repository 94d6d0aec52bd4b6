"""Screens that break what the graph assumes, one assumption at a time, and one of the same size that keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from raptorgraph.datasets import simulate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

KEPT = "assumptions kept"
BATCH, OF_BATCHES = "confounded batch", "few controls in each batch"
LIBRARY, ESCAPE = "wrong library size", "escaping cells"
# arguments of the simulator by what is broken
BROKEN: dict[str, dict[str, Any]] = {
    KEPT: {},
    "dense programs": {"programs_per_gene": float("inf")},
    "feedback": {"feedback": 0.5},
    BATCH: {"n_batches": 2},
    OF_BATCHES: {"n_batches": 4},
    "off-target guides": {"off_target": 0.3},
    ESCAPE: {},
    LIBRARY: {},
}
_MOST_ESCAPE = 0.8
_FEW_CONTROLS = 0.2  # part of the control cells that is left
_LIBRARY_SD = 0.3  # of the log of the factor by which the library sizes of a condition are wrong


def broken_screen(name: str, arguments: Mapping[str, Any], seed: int) -> AnnData:
    """Simulate a screen with these arguments of :func:`raptorgraph.datasets.simulate` of which one thing is wrong.

    - ``"dense programs"``: what a perturbation does directly reaches every gene;
    - ``"feedback"``: half of the edges are answered by an edge back;
    - ``"confounded batch"``: each perturbation was done in one of two batches, the controls in both, and nobody knows;
    - ``"few controls in each batch"``: each perturbation was done in one of four batches, which is known
      (``obs["batch"]``), but a fifth of the controls is left, a quarter of them in each;
    - ``"off-target guides"``: the guides of three in ten genes hit another perturbed gene as well;
    - ``"escaping cells"``: 0 to 80 % of the cells of a perturbation, differently in each, are as if unperturbed;
    - ``"wrong library size"``: the library sizes that are known of a condition's cells are wrong by a common factor,
      log-normal with a standard deviation of 0.3, so that all genes seem to move.
    """
    rng = np.random.default_rng([seed, 1])  # other numbers than those of the simulator
    more = dict(BROKEN[name])
    n_batches = more.get("n_batches", 1)
    more |= {size: n_batches * arguments[size] for size in ("n_control_cells", "n_cells_per_perturbation")}
    if name == ESCAPE:
        more["escape"] = rng.uniform(0, _MOST_ESCAPE, arguments["n_perturbed"]).tolist()
    adata = simulate(**{**arguments, **more}, seed=seed)
    labels = adata.obs["perturbation"]
    if n_batches > 1:
        batches = adata.obs["batch"].cat.categories
        of_label = dict(zip(labels.cat.categories, rng.choice(batches, len(labels.cat.categories)), strict=True))
        done = adata.obs["batch"].astype(str).to_numpy() == labels.map(of_label).astype(str).to_numpy()
        control = (labels == "control").to_numpy()
        n_controls = arguments["n_control_cells"] * (_FEW_CONTROLS if name == OF_BATCHES else 1)
        some = control & (np.cumsum(control) <= n_controls)  # as many cells as were asked for
        adata = adata[some | (done & ~control)].copy()
    if name == LIBRARY:
        factor = np.exp(_LIBRARY_SD * rng.standard_normal(len(labels.cat.categories)))
        adata.obs["total_counts"] *= factor[labels.cat.codes]
    return adata
