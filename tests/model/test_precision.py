"""Single against double precision: what is said differs by less than 1e-4 of an effect."""

import copy

import pytest
import scvi
import torch

import raptorgraph as rg
from raptorgraph.inference import EffectPosterior, infer_graph

CLOSE = 1e-4


@pytest.fixture(scope="module")
def model():
    adata = rg.datasets.simulate(
        120, 8, n_doubles=8, n_control_cells=300, n_cells_per_perturbation=80, expected_degree=2.0, n_truth_cells=20
    )
    scvi.settings.seed = 0
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraphModel(adata, n_hidden=16)
    model.train(max_epochs=3, accelerator="cpu", enable_progress_bar=False)
    return model


def test_network(model):
    drawn, double = model.latents.draw_controls(200, seed=0), copy.deepcopy(model.module).double()
    masks = torch.eye(len(model.perturbed_genes))

    def effects(module, dtype):
        z, library = drawn.z.to(dtype), drawn.library.to(dtype)
        with torch.inference_mode():
            means = [
                module.distribution.expected_expression(
                    module.decode(module.modulator(z, mask[None].to(dtype)), None, library), library
                ).mean(0)
                for mask in (torch.zeros_like(masks[0]), *masks)
            ]
        return torch.stack(means[1:]) - means[0]

    single, exact = effects(model.module, torch.float32).double(), effects(double, torch.float64)
    assert (single - exact).norm(dim=1).max() < CLOSE * exact.norm(dim=1).min()


def test_encoder(model):
    double = copy.deepcopy(model.module).double()
    expression = torch.cat(list(model.cells.expression(model.cells.query())))[:200]
    with torch.inference_mode():
        single, exact = model.module.encode(expression.clone()), double.encode(expression.double())
    for a, b in zip(single, exact, strict=True):
        assert (a.double() - b).abs().max() < CLOSE * b.abs().max()


def test_posterior_of_effects_in_single_precision(model):
    screen = model.screen
    found = screen.moments
    design = screen.design[1:]

    def fitted(dtype):
        posterior = EffectPosterior()
        given = (torch.as_tensor(x[1:]).to(dtype) for x in (found.effect, found.variance, found.n))
        posterior.fit(torch.as_tensor(design).to(dtype), *given, int(found.n[0]), n_steps=50)
        return posterior.mean_and_sd(torch.as_tensor(design))

    for a, b in zip(fitted(torch.float32), fitted(torch.float64), strict=True):
        assert (a - b).norm(dim=1).max() < CLOSE * b.norm(dim=1).min()


def test_graph_in_single_precision(model):
    moments, screen = model.screen.log_ratios_of(), model.screen
    alone = [screen.labels.index(label) for label in screen.singles]
    targets = torch.as_tensor(model.target_columns)

    def inferred(dtype):
        given = (torch.as_tensor(x[alone]).to(dtype) for x in (moments.log_ratio, moments.variance))
        return infer_graph(*given, targets, control_variance=torch.as_tensor(moments.shared_variance).to(dtype))

    single, double = inferred(torch.float32), inferred(torch.float64)
    assert (single.weight - double.weight).abs().max() < CLOSE
    assert (single.probability - double.probability).abs().max() < CLOSE
