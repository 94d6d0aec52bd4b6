"""What the network is before its first update: the linear model of the cells, held against it and the posterior."""

import numpy as np
import pytest
import scvi
import torch

import raptorgraph as rg
from raptorgraph.model import _start, _training
from raptorgraph.model._linear import fit_linear

pytestmark = pytest.mark.usefixtures("few_steps")

ASKED = [f"P0{i}" for i in range(1, 6)]


class Started(Exception):
    """The network stands before its first update."""


def started(adata, monkeypatch, **kwargs):
    """Model that was started and not trained, and the linear model that it was started from."""
    scvi.settings.seed = 0
    fitted = []

    def run(*args):
        raise Started

    def fit(*args):
        fitted.append(fit_linear(*args))
        return fitted[-1]

    monkeypatch.setattr(_training, "_run", run)
    monkeypatch.setattr(_start, "fit_linear", fit)
    model = rg.RaptorGraphModel(adata, n_hidden=8, **kwargs)
    with pytest.raises(Started):
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    return model, fitted[-1]


@pytest.fixture(scope="module")
def adata():
    data = rg.datasets.simulate(
        60, 5, n_doubles=3, n_control_cells=200, n_cells_per_perturbation=60, effect_size=2.0, n_truth_cells=20, seed=1
    )
    rg.RaptorGraphModel.setup_anndata(data, library_size_key="total_counts")
    return data


def log_screen(**kwargs):
    data = rg.datasets.simulate(60, 5, n_control_cells=200, n_cells_per_perturbation=60, n_truth_cells=20, **kwargs)
    data.X = np.log1p(1e4 * data.X.toarray() / data.obs["total_counts"].to_numpy()[:, None]).astype(np.float32)
    rg.RaptorGraphModel.setup_anndata(data)
    return data


def singles(model):
    """Effects of the posterior, of all cells and of those that responded."""
    mean = model.calibration.posterior.mean(torch.eye(len(ASKED))).double()
    escape = model.module.prior.escape_logit.detach().sigmoid().double()
    return mean, mean / (1 - escape[:, None])


@torch.no_grad()
def test_decoded_effects_are_those_of_the_posterior_exactly_on_the_expression_scale(monkeypatch):
    """The decoder is linear, and the mean response is 1: the mean at z = 0 without dependence on the state is exact.

    Escape is estimated once more after the decoder was set: it is compared with the one that was taken.
    """
    model, linear = started(log_screen(n_doubles=3, seed=1), monkeypatch)
    module = model.module
    module.modulator.state_weight.zero_()
    module.modulator.state_bias.zero_()
    z = torch.zeros(1, module.config.n_latent)
    found = torch.cat([module.decode(module.modulator(z, row[None]), None, None) for row in torch.eye(5)])
    effect = (found - module.decode(z, None, None)).double()
    mean, _ = singles(model)
    ratio = (effect * mean).sum(1) / mean.square().sum(1)  # 1 / (1 - escape), the same in all genes
    np.testing.assert_allclose(effect, ratio[:, None] * mean, atol=2e-5)
    assert ((ratio > 1) & (ratio < 1.1)).all()
    # in units of the spread they are what the linear model was given
    own = torch.as_tensor(linear.loading[:5] * linear.strength)
    np.testing.assert_allclose(effect / module.spread.double(), own, atol=1e-5 / module.spread.min().item())


@torch.no_grad()
def test_decoded_effects_of_counts_are_those_of_the_posterior(adata, monkeypatch):
    """At z = 0 the mean expression over the cells' library sizes is read from a curve of 41 offsets.

    A straight line between offsets that lie h = 0.2 apart misses a curve by h^2 / 8 of its curvature, and expression,
    which grows like a softplus of its log rate, has one below 1/4 there, or below its slope, 1: at most .005. The
    quadrature of the training is coarse, and eight quantiles stand for the library sizes: .005 more.
    """
    model, _ = started(adata, monkeypatch)
    module, library = model.module, torch.as_tensor(adata.obs["total_counts"].to_numpy(), dtype=torch.float32)[:, None]
    module.modulator.state_weight.zero_()
    module.modulator.state_bias.zero_()
    z = torch.zeros(len(library), module.config.n_latent)

    def mean(z):
        return module.distribution.expected_expression(module.decode(z, None, library), library).mean(0)

    control = mean(z)
    effect = torch.stack([mean(module.modulator(z, row[None])) for row in torch.eye(5)]) - control
    _, of_responders = singles(model)
    assert (module.prior.escape_logit.sigmoid() < 0.01).all()
    # no mean of counts falls below 0
    reachable = control.double() + of_responders > 0.02
    assert reachable.double().mean() > 0.95
    off = (effect.double() - of_responders).abs()
    assert off[reachable].max() < 0.01
    assert of_responders.abs().max() > 1


@torch.no_grad()
@pytest.mark.parametrize("n_subgraphs", [1, 2, 3])
def test_the_encoder_is_the_posterior_mean_of_the_linear_model(adata, monkeypatch, n_subgraphs):
    model, linear = started(adata, monkeypatch, n_subgraphs=n_subgraphs)
    module, (weight, variance) = model.module, linear.posterior
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, model.adata.n_vars))
    x[:, : module.config.n_targets] = 0.0  # transcripts of the perturbed genes at their mean
    expression = torch.as_tensor(module.center.numpy() + module.spread.numpy() * x, dtype=torch.float32)
    mean, log_var = module.encode(expression)
    # silu(10 + a) - 10 is a to (10 + a) exp(-10 - a)
    np.testing.assert_allclose(mean, x @ weight.T, atol=1e-4 if n_subgraphs > 1 else 0.02)
    np.testing.assert_allclose(log_var, np.broadcast_to(np.log(variance), log_var.shape), atol=1e-5)
    # and of these each reaches its own latent, by its own weight
    t = module.config.n_targets
    for g in range(t):
        x[:] = 0.0
        x[:, g] = 1.0
        expression = torch.as_tensor(module.center.numpy() + module.spread.numpy() * x, dtype=torch.float32)
        change = (module.encode(expression)[0] - module.encode(module.center[None])[0])[0]
        expected = np.zeros(len(weight))
        expected[g] = weight[g, g]
        np.testing.assert_allclose(change, expected, atol=1e-5 if n_subgraphs > 1 else 2e-3)


def off_target(model):
    """Derivatives of the latents in the transcripts of perturbed genes that are not their own."""
    module, t = model.module, model.module.encoder.preconditioned.n_targets
    x = torch.randn(1, model.adata.n_vars)
    full = torch.autograd.functional.jacobian(lambda v: torch.cat(module.encode(v)), x)  # mean and log variance
    part = full[:, :, 0, :t].abs()
    own = torch.stack([part[:, g, g] for g in range(t)])
    part[:, torch.arange(t), torch.arange(t)] = 0
    return own, part


def test_a_transcript_reaches_its_own_latent_alone_before_and_after_training(adata, monkeypatch):
    with monkeypatch.context() as patch:
        model, _ = started(adata, patch)
    own, other = off_target(model)
    assert not other.any()
    model.train(max_epochs=3, accelerator="cpu", enable_progress_bar=False)
    own, other = off_target(model)
    assert (own[:, 0] != 0).all()
    assert not other.any()


@torch.no_grad()
def test_loadings_hold_whatever_the_graph(adata, monkeypatch):
    """z, and not u, has the loadings: with a graph the decoder's weights are others, and what z does the same."""
    effects = []
    for weight in (0.0, 0.5):
        with monkeypatch.context() as patch:
            scvi.settings.seed = 0
            set_graph = _start._widen

            def widen(module, sums, weight=weight, set_graph=set_graph):
                graph = torch.zeros(module.config.n_latent, module.config.n_latent)
                graph[0, 1] = graph[1, 6] = weight
                module.graph.fix(graph)
                set_graph(module, sums)

            patch.setattr(_start, "_widen", widen)
            model, _ = started(adata, patch, graph="fixed")
        assert model.module.graph.adjacency()[0, 1] == weight
        z = torch.eye(model.module.config.n_latent)
        effects.append(model.module.decode(z, None, torch.full((len(z), 1), 5e3)).log())
    torch.testing.assert_close(effects[1], effects[0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_prior_starts_from_the_posterior(adata, monkeypatch):
    model, linear = started(adata, monkeypatch)
    modulator = model.module.modulator
    scale = model.calibration.posterior.combination_scale
    assert modulator.log_combination.exp().item() == pytest.approx(scale, rel=1e-6)
    assert set(modulator.strength.tolist()) == {linear.strength}
    assert not modulator.log_spread.any()
    given, _ = started(adata, monkeypatch, init_strength=2.75)
    assert set(given.module.modulator.strength.tolist()) == {2.75}


def test_a_decoder_without_a_linear_path_starts_as_it_is(adata, monkeypatch):
    before = {}

    def remember(module, *args):
        before.update({name: value.clone() for name, value in module.named_parameters()})
        _start.start_from_effects(module, *args)

    monkeypatch.setattr(_training, "start_from_effects", remember)
    monkeypatch.setattr(_start, "fit_linear", None)
    scvi.settings.seed = 0
    monkeypatch.setattr(_training, "_run", lambda *args: (_ for _ in ()).throw(Started))
    model = rg.RaptorGraphModel(adata, n_hidden=8, linear_decoder=False)
    with pytest.raises(Started):
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    assert all(torch.equal(value, before[name]) for name, value in model.module.named_parameters())


def test_background_latents_are_not_of_the_batch(monkeypatch):
    """Batches are the decoder's: what the linear model is fitted to has the same mean in all of them."""
    data = rg.datasets.simulate(
        60, 5, n_doubles=3, n_control_cells=200, n_cells_per_perturbation=60, n_batches=2, n_truth_cells=20, seed=1
    )
    rg.RaptorGraphModel.setup_anndata(data, library_size_key="total_counts", batch_key="batch")
    fitted = []
    monkeypatch.setattr(
        _start, "fit_linear", lambda residual, *args: (fitted.append(residual), fit_linear(residual, *args))[1]
    )
    model = rg.RaptorGraphModel(data, n_hidden=8)
    scvi.settings.seed = 0
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False, train_size=1.0)
    batch = model.screen.batch
    batch = batch[np.argsort(data.obs_names.to_numpy().astype(str))]
    assert len(fitted[0]) == len(batch)  # all cells, in the order of their names
    for each in np.unique(batch):
        np.testing.assert_allclose(fitted[0][batch == each].mean(0), 0, atol=1e-5)
