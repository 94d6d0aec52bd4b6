"""No text lies on another one, in the figure that each plot makes by default, of a trained model and its tables."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from raptorgraph import pl, tl


def gene_sets(model):
    names = model.get_var_names().tolist()
    kinds = ("INTERFERON_ALPHA_BETA_SIGNALING", "TNFA_SIGNALING_VIA_NFKB", "E2F_TARGETS")
    return {f"HALLMARK_{kind}_{k}": names[4 + k : 34 + 4 * k] for k, kind in enumerate(kinds)}


def enriched(model):
    return tl.enrich_effects(model.predict_effects(model.perturbed_genes), gene_sets(model), n_permutations=50)


def states(model):
    return tl.state_effects(model, "half", n_permutations=50)


def pair_of(model):
    return next(label for label in model.conditions if "+" in label)


PLOTS = {
    "counterfactual": lambda m: pl.counterfactual(m, "P01", basis="u_true", return_fig=True),
    "dag": lambda m: pl.dag(m, return_fig=True),
    "effect": lambda m: pl.effect(m, perturbation="P01", return_fig=True),
    "effects_map": lambda m: pl.effects_map(m, return_fig=True),
    "enrichment": lambda m: pl.enrichment(enriched(m), return_fig=True),
    "enrichment, dots": lambda m: pl.enrichment(enriched(m), kind="dots", return_fig=True),
    "guides": lambda m: pl.guides(tl.guides(m, "guide", n_resamples=20), return_fig=True),
    "interactions": lambda m: pl.interactions(tl.interactions(m), return_fig=True),
    "interactions, plain": lambda m: pl.interactions(tl.interactions(m), "neomorphism", types=False, return_fig=True),
    "latents": lambda m: pl.latents(m, basis="u_true", return_fig=True),
    "latents, numbers": lambda m: pl.latents(m, color="total_counts", basis="u_true", return_fig=True),
    "next_pairs": lambda m: pl.next_pairs(tl.next_pairs(m, n=2), return_fig=True),
    "pair": lambda m: pl.pair(m, pair_of(m), return_fig=True),
    "power": lambda m: pl.power(tl.power(m, n_draws=20, seed=0), return_fig=True),
    "reverse": lambda m: pl.reverse(tl.reverse(m, m.measured_effects().iloc[:1], n_draws=20), return_fig=True),
    "similarity": lambda m: pl.similarity(m, return_fig=True),
    "state_effects": lambda m: pl.state_effects(states(m), return_fig=True),
    "training": lambda m: pl.training(m, return_fig=True),
    "uncertainty": lambda m: pl.uncertainty(m, "P01", return_fig=True),
    "uncertainty, calibration": lambda m: pl.uncertainty(m, return_fig=True),
    "volcano": lambda m: pl.volcano(m, "P01", return_fig=True),
}


@pytest.fixture(scope="module")
def model(trained):
    """The trained model, with columns of guides and of groups of cells while the tests of this file run."""
    obs = trained.adata.obs
    obs["guide"] = obs["perturbation"].astype(str) + np.resize(["_g1", "_g2", "_g3"], len(obs))
    obs["half"] = np.resize(["first half", "second half"], len(obs))
    yield trained
    del obs["guide"], obs["half"]


def test_every_plot_is_here():
    assert {name.partition(",")[0] for name in PLOTS} == set(pl.__all__)


@pytest.mark.parametrize("name", PLOTS)
def test_no_text_lies_on_another(name, model, overlapping):
    assert overlapping(PLOTS[name](model)) == []


def test_texts_that_do_are_found(overlapping):
    ax = Figure(figsize=(3, 3)).subplots()
    ax.text(0.5, 0.5, "one")
    ax.text(0.52, 0.5, "other")
    assert overlapping(ax.figure) == [("one", "other")]
    plt.close("all")
