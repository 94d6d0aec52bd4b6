"""The module against a computation by hand: expectations over draws, the loss, and states of older versions."""

import operator

import numpy as np
import pytest
import torch
from scipy import stats

from raptorgraph.model._config import ModuleConfig
from raptorgraph.model._module import _MOVED, RaptorGraphModule
from raptorgraph.nn._posterior_draws import standard_draws

N, G, K = 4, 5, 2
LIBRARY = np.array([[1500.0], [3000.0], [4500.0], [9000.0]])
COVARIATES = np.array([[0.3], [-1.0], [2.0], [0.5]])
RNG = np.random.default_rng(0)


def made(likelihood="nb", **kwargs):
    torch.manual_seed(2)
    sizes = {"n_genes": G, "n_perturbed": K, "n_targets": 1, "n_latent": 3, "n_hidden": 6, "n_continuous": 1}
    module = RaptorGraphModule(ModuleConfig(**{**sizes, **kwargs}, counts=True, likelihood=likelihood))
    with torch.no_grad():
        module.decoder.base.copy_(torch.linspace(-8.0, -5.5, G))
        module.distribution.log_scale.copy_(torch.linspace(0.5, 1.2, G))
        for layer in module.decoder.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.normal_(0, 0.3)
        module.graph.fix(torch.tensor([[0.0, 0.6], [0.0, 0.0]]))
    return module


def decoded(module, z, covariates):
    """Output of the decoder, with the graph and every layer in numpy."""
    u = z.copy()
    u[:, 1] += 0.6 * u[:, 0]
    inputs = np.hstack([u, covariates])
    state = {name: value.numpy().astype(float) for name, value in module.decoder.state_dict().items()}
    hidden = inputs @ state["dense.0.weight"].T + state["dense.0.bias"]
    hidden = hidden / (1 + np.exp(-hidden))
    return state["base"] + inputs @ state["linear.weight"].T + hidden @ state["dense.2.weight"].T


def expected_log1p(mean, theta, library):
    counts = np.arange(4000).reshape(-1, *[1] * np.ndim(mean))
    return (stats.nbinom.pmf(counts, theta, theta / (theta + mean)) * np.log1p(1e4 * counts / library)).sum(0)


def tensor(values):
    return torch.as_tensor(values, dtype=torch.float32)


@torch.no_grad()
@pytest.mark.parametrize(("likelihood", "learn_scale"), [("nb", True), ("normal", True), ("normal", False)])
def test_expected_expression(likelihood, learn_scale):
    module = made(likelihood, learn_scale=learn_scale)
    mean, sd, offset = RNG.normal(0, 1, (N, 3)), RNG.uniform(0.1, 0.5, (N, 3)), np.linspace(-0.2, 0.3, G)
    mask = np.array([[1.0, 0.0]])
    found = module.expected_expression(
        (tensor(mean), tensor(2 * np.log(sd))), tensor(mask), tensor(COVARIATES), tensor(LIBRARY), tensor(offset),
        n_draws=20, seed=5, step=0.7, lower=-30.0,
    )  # fmt: skip
    normal = standard_draws(20, 3, 5, torch.zeros((), dtype=torch.float64)).numpy()
    shift = np.array([2.5, 0.0, 0.0])
    rates = np.array([decoded(module, mean + sd * draw + shift, COVARIATES) + offset for draw in normal])
    if likelihood == "normal":
        expected = rates.mean(0)
    else:  # the three points of Gauss and Hermite for the mean and the spread of the log rate
        rates = np.minimum(rates, 2.0)
        theta = np.exp(np.linspace(0.5, 1.2, G))
        at = [
            expected_log1p(LIBRARY * np.exp(rates.mean(0) + k * np.sqrt(3) * rates.std(0)), theta, LIBRARY)
            for k in (-1, 0, 1)
        ]
        expected = (at[0] + 4 * at[1] + at[2]) / 6
        each = np.mean([expected_log1p(LIBRARY * np.exp(rate), theta, LIBRARY) for rate in rates], axis=0)
        np.testing.assert_allclose(expected, each, atol=0.02)  # and they stand for all draws
    np.testing.assert_allclose(found, expected, atol=2e-4)


def batch(module, mask):
    counts = RNG.poisson(1.5, (N, G)).astype(float)
    tensors = {
        "X": counts, "library_size": LIBRARY, "extra_continuous_covs": COVARIATES, "mask": mask,
        "shift": RNG.normal(0, 0.3, (2, G)), "shift_variance": RNG.uniform(0.05, 0.1, (2, G)),
    }  # fmt: skip
    tensors = {name: tensor(values) for name, values in tensors.items()}
    return counts, tensors | {"condition": torch.tensor([0, 0, 1, 1])}


def test_loss_is_the_weighted_sum_of_its_terms():
    module = made(perturbed_prior=False)
    mask = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    counts, tensors = batch(module, mask)
    mean, log_var = RNG.normal(0, 1, (N, 3)), RNG.normal(-1, 0.3, (N, 3))
    z = mean + np.exp(log_var / 2) * RNG.standard_normal((N, 3))
    inference = {"mean": tensor(mean), "log_var": tensor(log_var), "z": tensor(z),
                 "expression": torch.log1p(1e4 * tensors["X"] / tensors["library_size"])}  # fmt: skip
    generative = module.generative(inference["z"], tensors["mask"], tensors["library_size"], tensor(COVARIATES))
    weights = {"kl_weight": 0.7, "free_bits": 0.05, "shift_weight": 0.3, "dag_weight": 0.2, "mu": 0.5, "lambda1": 0.1}
    loss = module.loss(tensors, inference, generative, **weights)

    theta = np.exp(np.linspace(0.5, 1.2, G))
    at_control, perturbed = (
        LIBRARY * np.exp(decoded(module, z + shift, COVARIATES))
        for shift in (0.0, np.hstack([2.5 * mask, np.zeros((N, 1))]))
    )
    nll = -stats.nbinom.logpmf(counts, theta, theta / (theta + at_control))
    kl = 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var)
    change = expected_log1p(perturbed, theta, LIBRARY) - expected_log1p(at_control, theta, LIBRARY)
    change = np.array([change[:2].mean(0), change[2:].mean(0)])
    shift, variance = tensors["shift"].numpy(), tensors["shift_variance"].numpy()
    A = np.zeros((3, 3))
    A[0, 1] = 0.6
    residual = z - z @ A
    terms = {
        "reconstruction": nll.mean(),
        "kl": np.maximum(kl.mean(0), 0.05).sum() / G,
        "shift": ((change - shift) ** 2 / (2 * variance)).mean(),
        "dag": 0.5 * ((residual**2).sum() / (2 * N) + 0.1 * np.abs(A).sum()),
    }
    found = {name: value.item() for name, value in loss.extra_metrics.items()}
    assert found == pytest.approx(terms, rel=2e-2)  # the quadrature of the training is coarse
    assert found["reconstruction"] == pytest.approx(terms["reconstruction"], rel=1e-5)
    assert found["kl"] == pytest.approx(terms["kl"], rel=1e-5)
    weight = {"reconstruction": 1.0, "kl": 0.7, "shift": 0.3, "dag": 0.2}
    assert loss.loss.item() == pytest.approx(sum(weight[name] * value for name, value in found.items()), rel=1e-6)
    np.testing.assert_allclose(loss.reconstruction_loss["reconstruction_loss"], nll.sum(1), rtol=1e-5)
    whole = module.loss(tensors, inference, generative, kl_per_gene=False, shift_weight=0.0, dag_weight=0.0)
    assert list(whole.extra_metrics) == ["reconstruction", "kl"]
    assert whole.extra_metrics["kl"].item() == pytest.approx(kl.mean(0).sum(), rel=1e-5)


def test_states_of_older_versions():
    module = made()
    module.reference.store(torch.ones(2, 3), torch.ones(2, 1), None)
    old = module.state_dict()
    old["log_scale"] = old.pop("distribution.log_scale")
    kept = old.pop("reference._extra_state")
    old["effects._extra_state"] = {f"reference_{name}": value for name, value in kept.items()}
    other = RaptorGraphModule(module.config)
    other.effects.set_extra_state = lambda state: None
    other.load_state_dict(old)
    torch.testing.assert_close(other.distribution.log_scale, module.distribution.log_scale)
    torch.testing.assert_close(other.reference.z, torch.ones(2, 3))
    assert other.reference.covariates is None


def test_states_without_a_perturbed_prior_have_a_constant_shift():
    """As older defaults have them: what they train is then what they trained."""
    old, new = made(perturbed_prior=False), made()
    with torch.no_grad():
        old.modulator.strength.copy_(torch.tensor([1.5, 3.0]))
    new.load_state_dict(old.state_dict())
    assert not new.config.perturbed_prior
    assert new.prior is None
    assert new.modulator.strength.requires_grad
    z, mask = torch.randn(4, 3), torch.eye(2).repeat(2, 1)
    torch.testing.assert_close(
        new.modulator(z, mask), z + torch.nn.functional.pad(mask * torch.tensor([1.5, 3.0]), (0, 1))
    )
    far = torch.full((1, G), 40.0)  # their encoder reads expression as far out as it is
    assert all(torch.equal(a, b) for a, b in zip(new.encode(far), old.encode(far), strict=True))
    again = made()
    again.load_state_dict(new.state_dict())
    assert again.prior is None


def test_old_names_of_what_moved_to_config_and_likelihood():
    module = made()
    for name, new in _MOVED.items():
        with pytest.warns(FutureWarning, match=f"module.{name} is now module.{new}"):
            found = getattr(module, name)
        assert found is operator.attrgetter(new)(module) or found == operator.attrgetter(new)(module)
    with pytest.raises(AttributeError, match="gess"):
        module.gess  # noqa: B018
