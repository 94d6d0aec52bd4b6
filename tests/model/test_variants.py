"""The network with a perturbed prior in all its variants, and on screens that have little of what it reads."""

from itertools import combinations

import numpy as np
import pytest
import scvi
import torch

import raptorgraph as rg
from raptorgraph.model import _training
from raptorgraph.model._splitter import ScreenSplitter

pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(autouse=True)
def seeded():
    scvi.settings.seed = 0


@pytest.fixture(scope="module")
def cells():
    return rg.datasets.simulate(
        60, 5, n_doubles=4, n_control_cells=150, n_cells_per_perturbation=50, effect_size=2.0, n_truth_cells=20, seed=1
    )


def registered(cells, **kwargs):
    cells = cells.copy()
    rg.RaptorGraphModel.setup_anndata(cells, library_size_key="total_counts", **kwargs)
    return cells


def train(model, max_epochs=3, **kwargs):
    model.train(max_epochs=max_epochs, accelerator="cpu", enable_progress_bar=False, **kwargs)
    return model


def relative_error(found, expected):
    return ((found - expected) ** 2).to_numpy().sum() / (expected**2).to_numpy().sum()


VARIANTS = [
    {"likelihood": "normal"},
    {"likelihood": "normal", "learn_scale": False},
    {"n_latent": 5},  # no latent but those of the perturbed genes
    {"n_subgraphs": 1},
    {"n_layers": 0, "linear_decoder": False},  # which is linear
    {"graph": "dagma"},
    {"graph": "fixed"},
    {"init_strength": 2.0},
]


@pytest.mark.parametrize("arguments", VARIANTS, ids=str)
def test_the_network_alone_says_what_the_posterior_says(cells, arguments):
    """Of measured conditions and of a pair that was not measured, since training holds it to both."""
    model = train(rg.RaptorGraphModel(registered(cells), **arguments))
    pairs = [f"{a}+{b}" for a, b in combinations(model.perturbed_genes, 2)]
    unseen = next(pair for pair in pairs if pair not in model.conditions)
    for asked in (model.conditions, [unseen]):
        found, expected = (model.predict_effects(asked, kind=kind) for kind in ("decoder", "posterior"))
        assert relative_error(found, expected) < 0.1
    z = model.get_latent_representation(kind="exogenous")
    assert z.shape == (model.adata.n_obs, model.module.config.n_latent)
    # the own latents of perturbed cells stand out
    labels = model.adata.obs["perturbation"].astype(str).to_numpy()
    for i, gene in enumerate(model.perturbed_genes):
        assert z[labels == gene, i].mean() - z[labels == "control", i].mean() > 0.5


@pytest.mark.parametrize("arguments", [{"linear_decoder": False}, {"latent_norm": "layer"}], ids=str)
def test_a_decoder_that_is_not_linear_at_first_learns_the_effects(cells, arguments):
    model = train(rg.RaptorGraphModel(registered(cells), n_hidden=32, **arguments), max_epochs=1)
    asked = model.conditions
    posterior = model.predict_effects(asked)
    early = relative_error(model.predict_effects(asked, kind="decoder"), posterior)
    train(model, max_epochs=30, plan_kwargs={"lr": 0.02})
    late = relative_error(model.predict_effects(asked, kind="decoder"), model.predict_effects(asked))
    assert late < min(early, 0.5)


def test_without_a_posterior_it_learns_what_was_measured(cells):
    model = train(rg.RaptorGraphModel(registered(cells), effect_posterior=False))
    measured = model.measured_effects()
    singles = [label for label in measured.index if "+" not in label]
    assert relative_error(model.predict_effects(singles), measured.loc[singles]) < 0.3
    assert not model.has_posterior


def test_batches_and_covariates_are_the_decoders(cells):
    cells = cells.copy()
    rng = np.random.default_rng(0)
    cells.obs["lane"] = rng.choice(["a", "b"], cells.n_obs)
    cells.obs["age"] = rng.normal(size=cells.n_obs)
    cells.obs["donor"] = rng.choice(["x", "y", "z"], cells.n_obs)
    covariates = {"categorical_covariate_keys": ["donor"], "continuous_covariate_keys": ["age"]}
    model = train(rg.RaptorGraphModel(registered(cells, batch_key="lane", **covariates)))
    assert model.module.decoder.linear.in_features == model.module.config.n_latent + 2 + 3 + 1
    found, expected = (model.predict_effects(model.conditions, kind=kind) for kind in ("decoder", "posterior"))
    assert relative_error(found, expected) < 0.1


# -- training --------------------------------------------------------------------------------------------------------
def bits(model):
    return {name: value.detach().clone() for name, value in model.module.named_parameters()}


def test_same_seed_same_bits(cells):
    def trained(seed):
        scvi.settings.seed = seed
        return bits(train(rg.RaptorGraphModel(registered(cells))))

    first, again, other = trained(0), trained(0), trained(1)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["encoder.preconditioned.weight"], other["encoder.preconditioned.weight"])


def test_a_second_training_goes_on_from_the_first(cells, tmp_path, monkeypatch):
    model = train(rg.RaptorGraphModel(registered(cells)))
    model.save(tmp_path / "model")
    loaded = rg.RaptorGraphModel.load(tmp_path / "model", registered(cells))
    assert loaded.module.config.perturbed_prior
    monkeypatch.setattr(_training, "start_from_effects", None)
    for each in (model, loaded):
        before = bits(each)
        train(each, max_epochs=1, plan_kwargs={"lr": 1e-9})
        moved = {name: (value - before[name]).abs().max().item() for name, value in bits(each).items()}
        assert max(moved.values()) < 1e-6
        assert moved["modulator.strength"] == 0
        assert not each.module.modulator.strength.requires_grad
        assert moved["encoder.preconditioned.weight"] > 0


def test_a_training_that_failed_starts_anew(cells, monkeypatch):
    model, started, start = rg.RaptorGraphModel(registered(cells)), [], _training.start_from_effects
    monkeypatch.setattr(_training, "start_from_effects", lambda *args: (started.append(1), start(*args)))
    with torch.no_grad():
        model.module.distribution.log_scale[0] = torch.nan
    with pytest.raises(rg.model.NonFiniteLossError):
        train(model)
    model.module.distribution.log_scale.data[0] = 0.0
    train(model, max_epochs=1)
    assert len(started) == 2
    train(model, max_epochs=1)
    assert len(started) == 2


@pytest.mark.parametrize("weight", ["mmd_weight", "pair_weight"])
def test_losses_on_pairs_are_refused(cells, weight):
    model = rg.RaptorGraphModel(registered(cells))
    with pytest.raises(ValueError, match=rf"{weight}=0.5.*perturbed_prior=False"):
        train(model, plan_kwargs={weight: 0.5})
    assert not model.is_trained


def test_nothing_is_paired(cells, monkeypatch):
    monkeypatch.setattr("raptorgraph.model._splitter.principal_components", None)
    monkeypatch.setattr("raptorgraph.model._splitter.pairing_plan", None)
    train(rg.RaptorGraphModel(registered(cells)), max_epochs=1)


def test_validation_cells_are_held_to_what_they_show(cells, monkeypatch):
    kept = []
    loader = ScreenSplitter.val_dataloader
    monkeypatch.setattr(ScreenSplitter, "val_dataloader", lambda self: (kept.append(self), loader(self))[1])
    train(rg.RaptorGraphModel(registered(cells)), max_epochs=1)
    known, validation = kept[0].targets
    effects = kept[0].val_split.effects
    assert validation.n_core == len(validation.mask) == int((effects.n[1:] > 0).sum())
    np.testing.assert_allclose(validation.effect, effects.effect[1:][effects.n[1:] > 0], rtol=1e-5, atol=1e-6)
    assert len(known.mask) == 5 * 6 // 2  # all singles and pairs


# -- screens ---------------------------------------------------------------------------------------------------------
def rows_of(cells, n):
    """Rows of the first cells of each label; `n` by label."""
    labels = cells.obs["perturbation"].astype(str).to_numpy()
    return np.concatenate([np.flatnonzero(labels == label)[:k] for label, k in n.items()])


def expect_answers(model, asked):
    effects = model.predict_effects(asked, kind="decoder")
    assert np.isfinite(effects.to_numpy()).all()
    assert np.isfinite(model.predict_effects(asked).to_numpy()).all()
    assert np.isfinite(model.get_latent_representation()).all()
    assert all(torch.isfinite(parameter).all() for parameter in model.module.parameters())


@pytest.mark.parametrize("effect_posterior", [True, False])
@pytest.mark.parametrize("likelihood", ["nb", "normal"])
def test_two_controls_and_one_perturbed_cell(cells, likelihood, effect_posterior):
    tiny = cells[rows_of(cells, {"control": 2, "P01": 1})].copy()
    model = rg.RaptorGraphModel(registered(tiny), likelihood=likelihood, effect_posterior=effect_posterior)
    expect_answers(train(model), "P01")


def test_combinations_alone(cells):
    labels = [label for label in cells.obs["perturbation"].unique() if "+" in label]
    pairs = cells[rows_of(cells, {"control": 150, **dict.fromkeys(labels, 50)})].copy()
    model = train(rg.RaptorGraphModel(registered(pairs)))
    expect_answers(model, [*labels, *model.perturbed_genes])
    found, expected = (model.predict_effects(labels, kind=kind) for kind in ("decoder", "posterior"))
    assert relative_error(found, expected) < 0.1
    without = train(rg.RaptorGraphModel(registered(pairs), effect_posterior=False))
    expect_answers(without, labels)


@pytest.mark.parametrize("arguments", [{}, {"likelihood": "normal"}, {"effect_posterior": False}], ids=str)
def test_genes_that_are_constant(cells, arguments):
    cells = cells.copy()
    dense = cells.X.toarray()
    dense[:, [10, 20]] = 0.0
    cells.X = dense
    zeros = list(cells.var_names[[10, 20]])
    model = train(rg.RaptorGraphModel(registered(cells), **arguments))
    expect_answers(model, model.conditions)
    assert model.predict_effects(model.conditions, kind="decoder")[zeros].abs().to_numpy().max() < 0.02
