"""Programs of latents: learned effects, and answers of the decoder to unit shifts."""

import numpy as np
import pandas as pd
import pytest
import torch

from raptorgraph.tl import latent_programs


def test_programs_of_a_unit_activation(known_screen):
    model, module = known_screen.model, known_screen.model.module
    programs = latent_programs(model, activation="unit", n_cells=60, seed=5, progress=False)
    pd.testing.assert_frame_equal(programs, latent_programs(model, activation="unit", n_cells=60, seed=5))
    assert not programs.equals(latent_programs(model, activation="unit", n_cells=60, seed=6))
    # common random numbers: a latent that the decoder does not read does exactly nothing
    weights = [module.decoder.linear.weight, module.decoder.dense[0].weight]
    kept = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            weight[:, 17] = 0.0
        silent = latent_programs(model, activation="unit", n_cells=60, seed=5)
        module.modulator.strength[2] *= -1
        flipped = latent_programs(model, activation="unit", n_cells=60, seed=5)
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
    programs = latent_programs(model, activation="unit", n_cells=60)
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
    programs = latent_programs(model)
    assert list(programs.index) == model.perturbed_genes
    assert programs.index.name == "latent"
    np.testing.assert_array_equal(programs, model.predict_effects(model.perturbed_genes))


def test_an_unknown_activation(known_screen):
    with pytest.raises(ValueError, match="activation='half' is unknown"):
        latent_programs(known_screen.model, activation="half")
