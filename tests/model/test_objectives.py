"""The loss of all cells against a computation by hand, and the parts of it that are random against expectations."""

import numpy as np
import pytest
import torch
from scipy import stats

from raptorgraph.model._config import LossConfig, ModuleConfig
from raptorgraph.model._module import RaptorGraphModule
from raptorgraph.model._objectives import N_CELLS, CellObjective

G, K, D, N = 5, 2, 3, 6
LIBRARY = np.array([[1500.0], [3000.0], [4500.0], [9000.0], [2000.0], [5000.0]])
MASK = np.array([[0, 0], [0, 0], [0, 0], [1, 0], [0, 1], [1, 1]], dtype=float)  # controls come first
CONDITIONS = np.array([[1.0, 0.0], [1.0, 1.0]])
RNG = np.random.default_rng(0)


def tensor(values):
    return torch.as_tensor(values, dtype=torch.float32)


def made(likelihood="nb", escape=0.0, **kwargs):
    torch.manual_seed(2)
    config = ModuleConfig(
        n_genes=G, n_perturbed=K, n_targets=1, n_latent=D, n_hidden=6, counts=True, likelihood=likelihood, **kwargs
    )
    module = RaptorGraphModule(config)
    with torch.no_grad():
        module.decoder.base.copy_(torch.linspace(-8.0, -5.5, G))
        module.distribution.log_scale.copy_(torch.linspace(0.5, 1.2, G))
        module.decoder.linear.weight.normal_(0, 0.3)
        module.decoder.dense[2].weight.normal_(0, 0.3)
        module.graph.fix(torch.tensor([[0.0, 0.6], [0.0, 0.0]]))
        module.modulator.state_weight.copy_(torch.tensor([[1.0], [-0.5]]))
        module.modulator.log_spread.copy_(torch.tensor([0.3, -0.2]))
        module.modulator.log_combination.fill_(-0.2)
        module.prior.escape_logit.fill_(-200.0 if escape == 0 else np.log(escape / (1 - escape)))
    return module


def decoded(module, z):
    """Output of the decoder, with the graph and every layer in numpy."""
    u = z.copy()
    u[:, 1] += 0.6 * u[:, 0]
    state = {name: value.numpy().astype(float) for name, value in module.decoder.state_dict().items()}
    hidden = u @ state["dense.0.weight"].T + state["dense.0.bias"]
    hidden = hidden / (1 + np.exp(-hidden))
    return state["base"] + u @ state["linear.weight"].T + hidden @ state["dense.2.weight"].T


def expected_log1p(mean, theta, library):
    counts = np.arange(4000).reshape(-1, *[1] * np.ndim(mean))
    return (stats.nbinom.pmf(counts, theta, theta / (theta + mean)) * np.log1p(1e4 * counts / library)).sum(0)


def shifted(module, z, mask):
    with torch.no_grad():
        return module.modulator(tensor(z), tensor(mask)).numpy().astype(float)


def batch(mask=MASK):
    tensors = {
        "X": RNG.poisson(1.5, (len(mask), G)), "library_size": LIBRARY[: len(mask)], "mask": mask,
        "condition_mask": CONDITIONS, "shift": RNG.normal(0, 0.3, (2, G)),
        "shift_variance": RNG.uniform(0.05, 0.1, (2, G)),
    }  # fmt: skip
    return {name: tensor(values) for name, values in tensors.items()}


def inferred(tensors):
    mean, log_var = RNG.normal(0, 1, (len(tensors["X"]), D)), RNG.normal(-1, 0.3, (len(tensors["X"]), D))
    z = mean + np.exp(log_var / 2) * RNG.standard_normal(mean.shape)
    expression = torch.log1p(1e4 * tensors["X"] / tensors["library_size"])
    return {"mean": tensor(mean), "log_var": tensor(log_var), "z": tensor(z), "expression": expression}


@pytest.mark.parametrize("likelihood", ["nb", "normal"])
def test_loss_is_the_bound_of_all_cells_and_the_effects(likelihood):
    module, tensors = made(likelihood), batch()
    latents = inferred(tensors)
    z = latents["z"].numpy().astype(float)
    generated = module.generative(latents["z"], tensors["mask"], tensors["library_size"], None)
    loss = module.loss(tensors, latents, generated, kl_weight=1.0, shift_weight=0.3, dag_weight=0.0)

    theta, x = np.exp(np.linspace(0.5, 1.2, G)), tensors["X"].numpy()
    if likelihood == "nb":  # z is as it was inferred: a perturbation is in the prior alone
        rate = LIBRARY * np.exp(decoded(module, z))
        nll = -stats.nbinom.logpmf(x, theta, theta / (theta + rate))

        def mean(z, library):
            return expected_log1p(library * np.exp(decoded(module, z)), theta, library).mean(0)
    else:
        nll = -stats.norm.logpdf(latents["expression"].numpy(), decoded(module, z), theta)

        def mean(z, library):
            return decoded(module, z).mean(0)

    kl = module.prior.kl(latents["mean"], latents["log_var"], latents["z"], tensors["mask"], module.modulator)
    kl = kl.detach().numpy()
    # three controls, of which two halves of one cell are read
    halves = []
    for i in (0, 1):
        own, library = z[[i]], LIBRARY[[i]]
        effect = [mean(shifted(module, own, p[None]), library) - mean(own, library) for p in CONDITIONS]
        halves.append(np.array(effect) - tensors["shift"].numpy())
    terms = {
        "reconstruction": nll.mean(),
        "kl": kl.sum() / N / G,
        "shift": (0.5 * halves[0] * halves[1] / tensors["shift_variance"].numpy()).mean(),
    }
    found = {name: value.item() for name, value in loss.extra_metrics.items()}
    assert found == pytest.approx(terms, rel=1e-2)  # means of counts are known to 1e-3
    for name in ("reconstruction", "kl"):
        assert found[name] == pytest.approx(terms[name], rel=1e-5)
    total = found["reconstruction"] + found["kl"] + 0.3 * found["shift"]
    assert loss.loss.item() == pytest.approx(total, rel=1e-6)
    # Likelihood and divergence add up to the negative bound of each cell, and the loss is its mean per gene.
    per_cell = loss.reconstruction_loss["reconstruction_loss"] + loss.kl_local["kl_local"]
    np.testing.assert_allclose(per_cell, nll.sum(1) + kl.sum(1), rtol=1e-5)
    assert found["reconstruction"] + found["kl"] == pytest.approx(per_cell.mean().item() / G, rel=1e-5)


def shift_term(module, tensors, z, n):
    return module.objective._shift(module, tensors, z[:n], n)


def test_the_product_of_halves_is_the_squared_deviation_in_expectation():
    """A response that varies between cells is not penalized for it, as it would be by the square of the mean."""
    module, tensors = made("normal"), batch()
    tensors = {name: value for name, value in tensors.items() if name != "library_size"}
    with torch.no_grad():
        module.modulator.state_weight.copy_(torch.tensor([[3.0], [-2.0]]))
        many = torch.randn(200_000, D)
        each = torch.stack([module.decode(module.modulator(many, p[None]), None, None) for p in tensor(CONDITIONS)])
        effect = each - module.decode(many, None, None)
        deviation = effect.mean(1) - tensors["shift"]
        expected = (0.5 * deviation**2 / tensors["shift_variance"]).mean().item()
        n = 8
        drawn = np.array([shift_term(module, tensors, torch.randn(n, D), n).item() for _ in range(4000)])
        error = drawn.std() / len(drawn) ** 0.5
        assert drawn.mean() == pytest.approx(expected, abs=4.5 * error)
        variance = (0.5 * effect.var(1) / n / tensors["shift_variance"]).mean().item()
        assert variance > 10 * error  # what the square of the mean over the n cells would add


def test_its_gradient_points_to_the_effects():
    """Where each half misses by the same, the gradient is that of the squared distance."""
    module, tensors = made("normal"), batch()
    tensors = {name: value for name, value in tensors.items() if name != "library_size"}
    z = torch.randn(2, D).repeat(2, 1)  # both halves are the same cells
    shift_term(module, tensors, z, 4).backward()
    found = module.decoder.linear.weight.grad.clone()
    module.zero_grad()
    effect = torch.stack([module.decode(module.modulator(z, p[None]), None, None).mean(0) for p in tensor(CONDITIONS)])
    deviation = effect - module.decode(z, None, None).mean(0) - tensors["shift"]
    (0.5 * deviation**2 / tensors["shift_variance"]).mean().backward()
    torch.testing.assert_close(found, module.decoder.linear.weight.grad, rtol=1e-4, atol=1e-5)


def test_cells_escape_gene_by_gene():
    module = made(escape=0.3)
    module.prior.escape_logit.data[1] = np.log(0.6 / 0.4)
    found = CellObjective._responding(module, tensor([[1, 1], [1, 0], [0, 0]]).repeat_interleave(20_000, 0))
    both, first, none = found.view(3, 20_000, 2)
    assert not none.any()
    assert not first[:, 1].any()
    assert not found.requires_grad
    error = 4.5 * 0.5 / 20_000**0.5
    np.testing.assert_allclose(both.mean(0), [0.7, 0.4], atol=error)
    assert both.prod(1).mean().item() == pytest.approx(0.7 * 0.4, abs=error)  # independently
    assert first[:, 0].mean().item() == pytest.approx(0.7, abs=error)


@pytest.mark.parametrize(("n_controls", "n_read"), [(1, 1), (2, 2), (3, 2), (2 * N_CELLS, N_CELLS)])
def test_effects_are_read_on_an_even_number_of_controls_or_on_one(monkeypatch, n_controls, n_read):
    module = made("normal")
    mask = np.concatenate([np.zeros((n_controls, K)), [[1.0, 0.0]]])
    tensors = {name: value for name, value in batch(mask).items() if name != "library_size"}
    tensors["X"] = torch.rand(len(mask), G)
    asked, compute = [], CellObjective._shift

    def shift(self, module, tensors, z, n):
        asked.append((len(z), n))
        return compute(self, module, tensors, z, n)

    monkeypatch.setattr(CellObjective, "_shift", shift)
    z = torch.randn(len(mask), D)
    latents = {"mean": z, "log_var": torch.zeros_like(z), "z": z, "expression": tensors["X"]}
    terms = module.objective.terms(
        module, LossConfig(), tensors, latents, module.generative(z, tensors["mask"], None, None)
    )
    assert asked == [(n_read, n_read)]
    assert torch.isfinite(terms.others["shift"][1])


def test_effects_are_left_out_where_none_are_asked_for():
    module, tensors = made("normal"), batch()
    latents = inferred(tensors)
    generated = module.generative(latents["z"], tensors["mask"], tensors["library_size"], None)
    assert not module.objective.terms(module, LossConfig(shift_weight=0.0), tensors, latents, generated).others
    empty = {name: tensors[name][:0] for name in ("condition_mask", "shift", "shift_variance")}
    assert not module.objective.terms(module, LossConfig(), tensors | empty, latents, generated).others
