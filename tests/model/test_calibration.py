"""Offsets bring the mean of the reference controls to the measured control mean plus the posterior's effect."""

import re

import numpy as np
import pytest
import torch
from scipy import stats

from raptorgraph.model._calibration import Calibration, _said_of_combinations, reference_rows
from raptorgraph.model._config import ModuleConfig
from raptorgraph.model._latents import DrawnLatents
from raptorgraph.model._module import RaptorGraphModule
from raptorgraph.screen._moments import EffectMoments

K, G, N = 3, 12, 30
RNG = np.random.default_rng(0)
CONTROL_MEAN = RNG.uniform(0.3, 2.5, G)
LIBRARY = torch.linspace(2000, 6000, N)[:, None]


def calibrated(likelihood, **kwargs):
    """A network with random weights, a posterior of four conditions, and random reference controls."""
    torch.manual_seed(1)
    config = ModuleConfig(
        n_genes=G, n_perturbed=K, n_targets=K, counts=True, likelihood=likelihood, n_batch=2, **kwargs
    )
    module = RaptorGraphModule(config)
    with torch.no_grad():
        module.decoder.linear.weight.normal_(0, 0.15)
        module.decoder.base.copy_(torch.as_tensor(np.log(np.expm1(CONTROL_MEAN) / 1e4)))
        module.distribution.log_scale.copy_(torch.linspace(0.0, 1.5, G))
        module.graph.fix(torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    design = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], dtype=float)
    effect = np.vstack([np.zeros(G), RNG.normal(0, 0.4, (4, G))])
    moments = EffectMoments(effect, np.full((5, G), 0.01), np.array([400, 50, 60, 70, 40]))
    calibration = Calibration(module)
    calibration.fit(moments, CONTROL_MEAN, design, np.arange(K), None)
    batch = torch.arange(N)[:, None] % 2
    z = torch.as_tensor(RNG.standard_normal((N, config.n_latent)), dtype=torch.float32)
    calibration.keep_reference(DrawnLatents(z, {"library_size": LIBRARY, "batch": batch}))
    return calibration


def decoded(calibration, mask):
    """Decoder's output of the reference under a perturbation, cells x genes, with the graph by hand."""
    module, reference = calibration.module, calibration.module.reference
    z = reference.z.numpy().astype(float)
    z[:, :K] += 2.5 * np.asarray(mask)
    z[:, 1] += 0.5 * z[:, 0]
    inputs = np.hstack([z, np.eye(2)[np.arange(N) % 2]])
    weight = module.decoder.linear.weight.detach().numpy().astype(float)
    return inputs @ weight.T + module.decoder.base.detach().numpy()


def wanted(calibration, mask):
    mask = torch.as_tensor([mask], dtype=torch.float32)
    return CONTROL_MEAN + calibration.posterior.mean(mask)[0].numpy()


@pytest.mark.parametrize("mask", [(0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 0.0)])
@pytest.mark.usefixtures("few_steps")
def test_counts(mask):
    calibration = calibrated("nb")
    offset = calibration.offset(torch.tensor(mask)).numpy().astype(float)
    mean = LIBRARY.numpy() * np.exp(np.minimum(decoded(calibration, mask), 2.0) + offset)
    theta = np.exp(np.linspace(0.0, 1.5, G))
    counts = np.arange(6000)[:, None, None]
    probability = stats.nbinom.pmf(counts, theta, theta / (theta + mean))
    expression = (probability * np.log1p(1e4 * counts / LIBRARY.numpy())).sum(0)
    goal = np.maximum(wanted(calibration, mask), 1e-3 * CONTROL_MEAN + 1e-6)
    np.testing.assert_allclose(expression.mean(0), goal, atol=1e-3)
    assert np.abs(offset).max() > 0.1


@pytest.mark.parametrize("learn_scale", [True, False])
@pytest.mark.usefixtures("few_steps")
def test_values(learn_scale):
    calibration = calibrated("normal", learn_scale=learn_scale)
    mask = (0.0, 1.0, 1.0)
    offset = calibration.offset(torch.tensor(mask)).numpy()
    np.testing.assert_allclose(offset, wanted(calibration, mask) - decoded(calibration, mask).mean(0), atol=1e-5)


def test_without_a_posterior_nothing_is_added():
    sizes = {"n_genes": G, "n_perturbed": K, "n_targets": K, "counts": True}
    for effect_posterior in (True, False):
        calibration = Calibration(RaptorGraphModule(ModuleConfig(**sizes, effect_posterior=effect_posterior)))
        assert not calibration.is_fitted
        assert calibration.offset(torch.zeros(K)) == 0.0
        with pytest.raises(ValueError, match=r"call model.train\(\) first" if effect_posterior else "no posterior"):
            calibration.posterior  # noqa: B018


@pytest.mark.parametrize("n", [3, 100, 256, 1000])
def test_reference_takes_each_control_as_often(n):
    controls = 2 * np.arange(n)
    rows = reference_rows(controls, np.random.default_rng(0))
    assert len(rows) == 256
    assert (np.diff(rows) >= 0).all()
    times = np.bincount(rows, minlength=2 * n)
    assert not times[1::2].any()
    assert np.ptp(times[::2]) <= 1


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[1, 0, 0], [0, 1, 0], [1, 1, 0]], "Effects of pairs are about 0.80 times the sum of their single effects."),
        ([[1, 0, 0], [0, 1, 0]], "No combination was measured: that pairs are 0.80 times their sum is a prior"),
        (
            [[1, 0, 0], [0, 1, 0], [1, 0, 1]],
            "Each combination has a gene that was never perturbed alone: .* is a prior",
        ),
    ],
)
def test_the_log_says_whether_the_scale_of_pairs_is_learned(rows, said):
    text, scale = _said_of_combinations(np.array(rows, dtype=float), 0.8)
    assert re.match(said, text % scale)


def test_a_fit_logs_the_scale(caplog):
    with caplog.at_level("INFO", "raptorgraph"):
        scale = calibrated("normal").posterior.combination_scale
    assert f"Effects of pairs are about {scale:.2f} times" in caplog.text
