"""Expectations over the posterior of the latents, against brute force and closed forms."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats

import raptorgraph as rg
from raptorgraph.nn import expected_log1p_nb
from raptorgraph.nn._posterior_draws import standard_draws


@cache
def screen():
    adata = rg.datasets.simulate(
        40, 4, n_doubles=2, n_control_cells=30, n_cells_per_perturbation=10, n_truth_cells=10, seed=0
    )
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    return adata


def make(preset="default", **kwargs):
    """An untrained model with strong random weights in its decoder."""
    torch.manual_seed(0)
    model = rg.RaptorGraph.from_preset(screen(), preset, n_hidden=16, **kwargs)
    model.is_trained_ = True
    with torch.no_grad():
        for layer in model.module.decoder.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.normal_(0, 0.4)
    return model


def collapse(model, mean=0.0):
    """The posterior is N(mean, 1) for every cell."""
    with torch.no_grad():
        model.module.encoder.aggregation.zero_()
        model.module.encoder.offset[0] = mean
        model.module.encoder.offset[1] = 0.0
    return model


def test_a_collapsed_posterior_is_decoded_where_training_decoded_it():
    model = collapse(make("paper", init_strength=1.3))
    module, rng = model.module, np.random.default_rng(1)
    z = rng.standard_normal((20_000, 8))
    z[:, 1] += 1.3
    z = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + 1e-5)
    adjacency = module.graph.adjacency().detach().numpy()
    u = torch.as_tensor(z @ np.linalg.inv(np.eye(8) - adjacency), dtype=torch.float32)
    decoded = module.decoder(u).detach().numpy()
    expected, error = decoded.mean(0), decoded.std(0)
    found = model.get_counterfactual(model.perturbed_genes[1], n_samples=2000)
    assert (np.abs(found - expected) < 5 * error * np.sqrt(1 / 20_000 + 1 / 2000)).all()
    assert (np.abs(model.get_counterfactual(model.perturbed_genes[1]) - expected) < 5 * error / np.sqrt(32)).all()


def test_counts_are_averaged_over_the_posterior():
    model = make()
    with torch.no_grad():
        model.module.encoder.offset[1] = 0.5  # wide
    module, cells = model.module, model.adata[:7].copy()
    library = torch.tensor(cells.obs["total_counts"].to_numpy(), dtype=torch.float32)[:, None]
    counts = torch.as_tensor(cells.X.toarray(), dtype=torch.float32)
    n, rng, each = 300, np.random.default_rng(2), []
    with torch.no_grad():
        mean, log_var = module.encode(torch.log1p(1e4 * counts / library))
        for _ in range(n):
            z = mean + torch.exp(0.5 * log_var) * torch.as_tensor(rng.standard_normal(mean.shape), dtype=torch.float32)
            z[:, 2] += 2.5
            rate = library * module.decoder(z).clamp(max=2).exp()
            each.append(expected_log1p_nb(rate, module.distribution.log_scale.exp(), 1e4 / library))
    each = torch.stack(each).numpy()
    found = model.get_counterfactual(model.perturbed_genes[2], cells, n_samples=n)
    error = each.std(0) * np.sqrt(2 / n)
    assert np.mean(((found - each.mean(0)) / error) ** 2) < 1.5
    assert each.std(0).mean() > 0.3


def test_three_points_stand_for_all_draws():
    model = make()
    with torch.no_grad():
        model.module.encoder.offset[1] = -1.5
    module = model.module
    tensors = next(model.cells.batches(model.adata_manager))
    posterior = module.encode(module.expression(tensors))
    mask, quadrature = torch.zeros(1, 4), {"step": 1.0, "lower": -18.0}
    with torch.no_grad():
        found = module.expected_expression(
            posterior, mask, None, tensors["library_size"], n_draws=32, seed=0, **quadrature
        )
        draws = standard_draws(32, len(model.latent_names), 0, found)
        each = [
            module.distribution.expected_expression(
                module.decode(posterior[0] + torch.exp(0.5 * posterior[1]) * draw, None, tensors["library_size"]),
                tensors["library_size"],
                **quadrature,
            )
            for draw in draws
        ]
    assert (found - torch.stack(each).mean(0)).square().mean().sqrt() < 5e-3
    assert torch.stack(each).std(0).mean() > 0.1  # there is something to average


def test_a_cell_does_not_depend_on_the_others():
    model = make("paper")
    label, n = model.perturbed_genes[0], model.adata.n_obs
    whole = model.get_counterfactual(label)
    np.testing.assert_array_equal(whole, model.get_counterfactual(label))
    np.testing.assert_allclose(model.get_counterfactual(label, batch_size=7), whole, atol=1e-5)
    order = np.random.default_rng(0).permutation(n)[:20]
    np.testing.assert_allclose(model.get_counterfactual(label, model.adata[order].copy()), whole[order], atol=1e-5)
    module, tensors, mask = model.module, next(model.cells.batches(model.adata_manager)), torch.eye(4)[:1]
    with torch.no_grad():
        mean, log_var = module.encode(module.expression(tensors))
        shifted = [
            module.modulator(mean + torch.exp(0.5 * log_var) * draw, mask)
            for draw in standard_draws(32, mean.shape[1], 1, mean)
        ]
        expected = torch.stack([module.decode(z, None, tensors["library_size"]) for z in shifted]).mean(0)
    np.testing.assert_allclose(model.get_counterfactual(label, seed=1), expected, atol=1e-5)
    assert np.abs(expected.numpy() - whole).max() > 1e-3  # other draws
    for bad in ({"n_samples": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))}=0"):
            model.get_counterfactual(label, **bad)


def test_differences_hold_no_noise():
    """With a linear decoder a perturbation adds the same to every cell, whatever was drawn."""
    model = make("paper", latent_norm="none", linear_decoder=True, n_layers=0)
    change = model.get_counterfactual(model.perturbed_genes[3], n_samples=2) - model.get_counterfactual(
        "control", n_samples=2
    )
    adjacency = model.module.graph.adjacency().detach().numpy()
    shift = np.linalg.inv(np.eye(8) - adjacency)[3]
    expected = shift @ model.module.decoder.linear.weight.detach().numpy().T
    np.testing.assert_allclose(change, np.broadcast_to(expected, change.shape), atol=1e-4)


def test_causal_latents_are_posterior_means():
    offset = torch.linspace(-0.02, 0.03, 8)
    model = collapse(make("paper"), offset)
    z = np.random.default_rng(3).standard_normal((200_000, 8)) + offset.numpy()
    normed = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + 1e-5)
    u = normed.mean(0) @ np.linalg.inv(np.eye(8) - model.module.graph.adjacency().detach().numpy())
    found = model.get_latent_representation()
    assert np.abs(found - u).max() < 0.02  # the norm of the mean has variance 1
    np.testing.assert_allclose(model.get_latent_representation(kind="exogenous")[0], offset, atol=1e-6)
    plain = make("paper", latent_norm="none")
    z = plain.get_latent_representation(kind="exogenous")
    inverse = np.linalg.inv(np.eye(8) - plain.module.graph.adjacency().detach().numpy())
    np.testing.assert_allclose(plain.get_latent_representation(), z @ inverse, atol=1e-5)


def test_sampled_cells_have_the_spread_of_the_posterior():
    model = collapse(make("paper", latent_norm="none", linear_decoder=True, n_layers=0))
    tensors = next(model.cells.batches(model.adata_manager))
    tensors = {name: value[:1].expand(20_000, -1) for name, value in tensors.items()}
    drawn = model.module.sample(tensors, torch.zeros(1, 4)).numpy()
    inverse = np.linalg.inv(np.eye(8) - model.module.graph.adjacency().detach().numpy())
    expected = ((inverse @ model.module.decoder.linear.weight.detach().numpy().T) ** 2).sum(0)
    low, high = stats.chi2.ppf([1e-5, 1 - 1e-5], 20_000) / 20_000
    ratio = drawn.var(0) / expected
    assert (ratio > low).all()
    assert (ratio < high).all()
