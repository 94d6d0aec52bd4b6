import numpy as np
import pytest
import torch

from raptorgraph import benchmark
from raptorgraph.benchmark import _ablation_network as network
from raptorgraph.benchmark import _embeddings as embeddings
from raptorgraph.benchmark import _variants as variants
from raptorgraph.benchmark._settings import Settings

pytestmark = pytest.mark.usefixtures("few_steps")
SETTINGS = Settings(screen="simulated-states", quick=True, options={"n_repeats": 1, "max_epochs": 2})
PAIR = "P01+P02"


@pytest.fixture(scope="module")
def screen():
    return benchmark.load_screen(SETTINGS, 0)


@pytest.fixture(scope="module")
def fit(few_steps, screen):
    """Fit a variant to the controls and singles."""
    found = {}

    def fitted(name):
        if name not in found:
            method = network.method_of(name, screen, SETTINGS, 0)
            found[name] = method.fit(screen.cells(screen.singles)).model
        return found[name]

    return fitted


def decoded(model, label, cells=6):
    """Log of decoded means of cells with random latents, and the offset that they have, as they are predicted."""
    _, mask = model.predictor.masks([label])
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(cells, model.module.config.n_latent, generator=generator)
    offset = model.calibration.offset(mask[0])
    with torch.inference_mode():
        mean = model.module.decode(model.module.modulator(z, mask), None, torch.full((cells, 1), 1e4), offset)
    return mean.log(), offset


def test_without_a_network_all_cells_have_one_rate_and_the_posteriors_effect(fit, screen):
    model = fit(network.NO_NETWORK)
    (before, at_control), (after, offset) = (decoded(model, label) for label in (screen.control, PAIR))
    assert (before == before[:1]).all()
    torch.testing.assert_close(after - before, (offset - at_control).expand_as(after), rtol=1e-4, atol=1e-4)
    assert (decoded(fit(network.DEFAULT), PAIR)[0].std(0) > 0).all()
    # the mean over control cells, whose libraries differ, is the posterior's
    controls = screen.adata[screen.rows(screen.control)].copy()
    change = (model.get_counterfactual(PAIR, controls) - model.get_counterfactual(screen.control, controls)).mean(0)
    posterior = model.predict_effects([PAIR]).to_numpy()[0]
    np.testing.assert_allclose(change, posterior, atol=0.02 * np.abs(posterior).max())


def test_without_a_network_measured_cells_keep_their_noise(fit, screen):
    """Where rates fall, each molecule of the control cell stays with the same probability."""
    model = fit(network.NO_NETWORK)
    cells = model.predict([PAIR], n_cells=2000, seed=1)
    start = screen.adata[cells.obs["control_cell"], cells.var_names].X.toarray()
    found = cells.layers["counts"].toarray()
    (before, _), (after, _) = (decoded(model, label) for label in (screen.control, PAIR))
    kept = (after - before)[0].exp().numpy()
    falls = (kept < 0.9) & (start.sum(0) > 200)
    assert falls.sum() > 5
    kept, start, found = kept[falls], start[:, falls], found[:, falls]
    assert (found <= start).all()
    n = start.sum(0)
    assert (np.abs(found.sum(0) - n * kept) < 4.5 * np.sqrt(n * kept * (1 - kept))).all()


def test_a_network_that_is_not_trained_is_as_it_was_started(fit):
    start, trained = fit("linear start, not trained"), fit("one epoch")
    assert start.history == {}
    assert len(trained.history["train_loss"]) == 1
    weight = start.module.decoder.linear.weight[:, : start.module.config.n_perturbed]
    # a shift of the own latent has the perturbation's effect
    effects = start.predict_effects(list(start.perturbed_genes)).to_numpy()
    for own, effect in zip(weight.detach().numpy().T, effects, strict=True):
        assert np.corrcoef(own, effect)[0, 1] > 0.5
    assert (start.module.decoder.dense[-1].weight == 0).all()
    assert (trained.module.decoder.dense[-1].weight != 0).any()
    assert not torch.equal(weight, trained.module.decoder.linear.weight[:, : weight.shape[1]])


def test_one_shift_in_all_states(fit):
    z = torch.zeros(2, fit(network.DEFAULT).module.config.n_latent)
    z[1, -3:] = 2.0  # another state
    mask = torch.ones(1, fit(network.DEFAULT).module.config.n_perturbed)
    constant = fit("one shift in all states").module.modulator
    assert torch.equal(*constant.shift(z, mask).unbind())
    assert torch.equal(constant(z, mask)[1] - z[1], constant(z, mask)[0] - z[0])
    assert not torch.allclose(*fit(network.DEFAULT).module.modulator.shift(z, mask).unbind())


def test_without_preconditioning_every_gene_reaches_every_latent(fit):
    for name, every in ((network.DEFAULT, False), ("without preconditioning", True)):
        module = fit(name).module
        jacobian = torch.autograd.functional.jacobian(lambda x, of=module: of.encode(x)[0], module.center[None])
        assert bool((jacobian[0, :, 0] != 0).all()) == every


def test_each_row_is_the_default_but_for_its_part(screen):
    default = network.method_of(network.DEFAULT, screen, SETTINGS, 5)
    names = ("preset", "seed", "max_epochs", "noise", "model_kwargs", "plan_kwargs", "train_kwargs", "setup_args")
    for name, changes in network.NETWORK.items():
        method = network.method_of(name, screen, SETTINGS, 5)
        assert type(method) is changes.get("kind", network.RaptorGraphMethod)
        for key in names:
            assert getattr(method, key) == changes.get(key, getattr(default, key))
    assert network.NETWORK["one epoch"]["max_epochs"] == 1


def test_scores_are_those_of_the_fitted_model(screen):
    found = network.network_scores("one epoch", screen, SETTINGS, 0)
    parted = embeddings.hold_out(screen, 0, combinations=False)
    model = network.method_of("one epoch", screen, SETTINGS, 0).fit(parted.fitted).model
    test, genes = list(variants.unseen_split(screen).test), screen.adata.var_names
    decoder, posterior = (model.predict_effects(test, kind=kind)[genes].to_numpy(float) for kind in ("decoder", None))
    measured = screen.effects.loc[test].to_numpy()
    expected = {
        network.EFFECTS: np.square(posterior - measured).sum() / np.square(measured).sum(),
        network.DECODER: np.square(decoder - measured).sum() / np.square(measured).sum(),
        network.AGREEMENT: np.square(decoder - posterior).sum() / np.square(posterior).sum(),
        network.AGREEMENT_PEARSON: np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(decoder, posterior, strict=True)]),
    }
    z = model.get_latent_representation(parted.held_out, "exogenous")
    k, single = len(model.perturbed_genes), parted.codes > 0
    controls = screen.adata[parted.train[screen.codes[parted.train] == 0]].copy()
    center = model.get_latent_representation(controls, "exogenous").mean(0)
    own = [model.perturbed_genes.index(screen.labels[code]) for code in parted.codes[single]]
    expected[network.LARGEST] = ((z - center)[single, :k].argmax(1) == own).mean()
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-3)
    assert {len(screen.genes_of[screen.labels[code]]) for code in parted.codes[single]} == {1}
    assert 1 / (k + 1) < found[network.NEIGHBORS] <= 1
