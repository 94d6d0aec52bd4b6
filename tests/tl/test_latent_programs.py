"""Programs of latents: learned effects, and answers of the decoder to unit shifts."""

import numpy as np
import pandas as pd
import pytest
import scvi
import torch

import raptorgraph as rg
from raptorgraph.datasets import _simulate
from raptorgraph.tl import latent_programs


def test_programs_of_a_unit_activation(known_screen):
    model, module = known_screen.model, known_screen.model.module
    programs = latent_programs(model, n_cells=60, seed=5, progress=False)
    pd.testing.assert_frame_equal(programs, latent_programs(model, n_cells=60, seed=5))
    assert not programs.equals(latent_programs(model, n_cells=60, seed=6))
    # common random numbers: a latent that the decoder does not read does exactly nothing
    weights = [module.decoder.linear.weight, module.decoder.dense[0].weight]
    kept = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            weight[:, 17] = 0.0
        silent = latent_programs(model, n_cells=60, seed=5)
        module.modulator.strength[2] *= -1
        flipped = latent_programs(model, n_cells=60, seed=5)
        module.modulator.strength[2] *= -1
        for weight, values in zip(weights, kept, strict=True):
            weight.copy_(values)
    assert (silent.loc["latent_17"] == 0).all()
    assert (silent.drop("latent_17") != 0).any(axis=None)
    name = model.latent_names[2]
    assert np.corrcoef(flipped.loc[name], silent.loc[name])[0, 1] < -0.5
    pd.testing.assert_frame_equal(flipped.drop(name), silent.drop(name))


def test_a_unit_activation_is_the_perturbation_in_the_network(known_screen):
    model = known_screen.model
    genes, free = model.perturbed_genes, model.latent_names[12:]
    programs = latent_programs(model, n_cells=60)
    np.testing.assert_allclose(
        programs.loc[genes], model.predict_effects(genes, n_cells=60, kind="decoder"), rtol=1e-4, atol=1e-5
    )
    # latents without a gene by one standard deviation
    drawn, module = model.latents.draw_controls(60), model.module
    covariates = module.covariates(drawn.tensors)
    for i, name in enumerate(free, start=12):
        shifted = [drawn.z, drawn.z + torch.eye(18)[i]]
        control, moved = (model.predictor.mean_expression(z, covariates, drawn.library) for z in shifted)
        np.testing.assert_allclose(programs.loc[name], moved - control, rtol=1e-4, atol=1e-6)


def test_learned_programs_are_the_predicted_effects(known_screen):
    model = known_screen.model
    programs = latent_programs(model, activation="learned")
    assert list(programs.index) == model.perturbed_genes
    assert programs.index.name == "latent"
    np.testing.assert_array_equal(programs, model.predict_effects(model.perturbed_genes))


def test_an_unknown_activation(known_screen):
    with pytest.raises(ValueError, match="activation='half' is unknown"):
        latent_programs(known_screen.model, activation="half")


def rank_correlations(n_cells, seed, monkeypatch):
    """Of enrichment scores with those of the true effects, for sets of genes that the true latents move most."""
    drawn, draw = [], _simulate.random_screen

    def kept(*args, **kwargs):
        drawn.append(draw(*args, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(_simulate, "random_screen", kept)
    adata = rg.datasets.simulate(
        300, 12, n_control_cells=400, n_cells_per_perturbation=n_cells, n_doubles=6, n_truth_cells=100, seed=seed
    )
    monkeypatch.undo()
    truth, loadings, sets = adata.uns["simulation"]["effects"].astype(float), drawn[0].loadings.toarray(), {}
    for latent, row in zip(adata.uns["simulation"]["adjacency"].index, loadings, strict=True):
        order = np.argsort(row)
        sets |= {f"{latent} up": adata.var_names[order[-20:]], f"{latent} down": adata.var_names[order[:20]]}
    scvi.settings.seed = seed
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraphModel(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)

    def scores(effects):
        table = rg.tl.enrich_effects(effects.astype(float), sets, n_permutations=200)
        return table.pivot(index="gene_set", columns="perturbation", values="NES").astype(float)

    genes = model.perturbed_genes
    expected = scores(truth.loc[genes, adata.var_names])
    return [
        expected.corrwith(scores(latent_programs(model, activation=name).loc[genes]), method="spearman").mean()
        for name in ("unit", "learned")
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("n_cells", "least"), [(30, 0.58), (100, 0.73)])
def test_both_rank_gene_sets_like_the_true_effects(n_cells, least, monkeypatch):
    found = np.array([rank_correlations(n_cells, seed, monkeypatch) for seed in range(4)])
    print(f"{n_cells} cells: unit, learned {found.mean(axis=0).round(3)}")
    unit, learned = found.mean(axis=0)
    assert unit > learned > least
