from copy import deepcopy

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import NotFittedError

from raptorgraph.baselines._dvae import DiscrepancyVAE
from raptorgraph.datasets import simulate
from raptorgraph.metrics import relative_mse
from raptorgraph.nn import mk_mmd
from raptorgraph.pp import measured_effects

SETUP = {"library_size_key": "total_counts"}


def _screen(**kwargs):
    settings = {
        "n_genes": 80,
        "n_perturbed": 6,
        "n_control_cells": 200,
        "n_cells_per_perturbation": 50,
        "n_doubles": 3,
        "effect_size": 3.0,
    }
    return simulate(**settings | kwargs)


def _fit(adata, **kwargs):
    return DiscrepancyVAE(**{"max_epochs": 2, **SETUP, **kwargs}).fit(adata)


def _expression(adata):
    return np.log1p(1e4 * adata.X.toarray() / adata.obs["total_counts"].to_numpy()[:, None]).astype(np.float32)


@pytest.fixture(scope="module")
def screen():
    return _screen()


@pytest.fixture(scope="module")
def fitted(screen):
    return _fit(screen)


# -- what is learned -------------------------------------------------------------------------------------------------
def test_shapes(screen, fitted):
    labels = ["control", "P02", "P05+P01"]
    effects = fitted.predict_effects(labels)
    assert effects.shape == (3, 80)
    assert list(effects.index) == ["control", "P02", "P01+P05"]
    assert effects.columns.equals(screen.var_names)
    assert effects.to_numpy().dtype == np.float64
    assert (effects.loc["control"] == 0).all()
    assert fitted.predict_control().shape == (80,)
    assert fitted.encode(screen).shape == (screen.n_obs, 6)
    assert fitted.reconstruct(screen).shape == screen.shape
    assert fitted.strength_.index.equals(fitted.targets_.index)


def test_reconstructions_are_averaged_over_the_posterior(screen, fitted):
    fitted, cells = deepcopy(fitted), screen[:5]
    module = fitted.module_
    with torch.no_grad():
        module.encoder.variance.bias += 20  # wide, so that the decoder bends over it
        mean, log_var = module.encoder(torch.tensor(_expression(cells)))
        draws = torch.randn(4000, *mean.shape, generator=torch.Generator().manual_seed(0))
        each = module((mean + torch.exp(0.5 * log_var) * draws).flatten(0, 1)).view(4000, *cells.shape).numpy()
        of_mean = module(mean).numpy()
    off, bend = fitted.reconstruct(cells) - each.mean(0), of_mean - each.mean(0)
    assert np.square(off).mean() < 0.1 * np.square(bend).mean()


def test_tables(fitted):
    assert fitted.adjacency_.shape == (6, 6)
    assert (np.tril(fitted.adjacency_) == 0).all()
    assert list(fitted.targets_.index) == fitted.perturbed_genes
    assert list(fitted.targets_.columns) == list(fitted.adjacency_.columns)
    np.testing.assert_allclose(fitted.targets_.sum(axis=1), 1.0, rtol=1e-6)


def test_history_adds_up(fitted):
    history = fitted.history_
    assert len(history) == 2
    assert np.isfinite(history).all(axis=None)
    np.testing.assert_allclose(history["weighted_mmd"], history["mmd"] * [0.0, 10.0], rtol=1e-5)
    np.testing.assert_allclose(history["weighted_l1"], 1e-3 * history["l1"], rtol=1e-5)
    parts = history[["reconstruction", "weighted_kl", "weighted_mmd", "weighted_l1"]].sum(axis=1)
    np.testing.assert_allclose(history["loss"], parts, rtol=1e-5)


def test_predictions_use_their_own_temperature(screen, fitted):
    sharp = _fit(screen, predict_temperature=5.0)
    pd.testing.assert_frame_equal(sharp.history_, fitted.history_)
    assert (sharp.targets_.max(axis=1) > fitted.targets_.max(axis=1)).all()
    for model, temperature in ((fitted, 1.0), (sharp, 5.0)):
        with torch.no_grad():
            expected = model.module_.target.targets(temperature).numpy()
        np.testing.assert_array_equal(model.targets_, expected)
    assert not np.allclose(sharp.predict_effects("P01"), fitted.predict_effects("P01"), rtol=1e-3)


def test_number_of_latents(screen):
    fitted = _fit(screen, n_latent=9)
    assert fitted.adjacency_.shape == (9, 9)
    assert fitted.targets_.shape == (6, 9)


def test_latents_of_the_tensor_and_of_the_cells_agree(screen, fitted):
    x = torch.tensor(_expression(screen), requires_grad=True)
    mean = fitted.encoder_mean(x)
    np.testing.assert_allclose(mean.detach().numpy(), fitted.encode(screen), atol=1e-5)
    mean.sum().backward()
    assert (x.grad != 0).all()


def test_cells_average_to_the_effects(screen, fitted):
    cells = fitted.predict(["P01", "control"], seed=fitted.settings.seed)
    assert cells.n_obs == 2 * 200
    assert list(cells.obs["perturbation"].cat.categories) == ["P01", "control"]
    assert cells.var_names.equals(screen.var_names)
    assert (screen.obs.loc[cells.obs["control_cell"], "perturbation"] == "control").all()
    means = [cells[cells.obs["perturbation"] == label].X.mean(axis=0) for label in ("P01", "control")]
    np.testing.assert_allclose(means[0] - means[1], fitted.predict_effects("P01").loc["P01"], atol=1e-5)
    np.testing.assert_allclose(means[1], fitted.predict_control(), atol=1e-5)


def test_number_and_seed_of_predicted_cells(fitted):
    few = fitted.predict("P01", n_cells=7, seed=1)
    assert few.n_obs == few.obs["control_cell"].nunique() == 7
    np.testing.assert_array_equal(few.X, fitted.predict("P01", n_cells=7, seed=1).X)
    assert not np.array_equal(few.X, fitted.predict("P01", n_cells=7, seed=2).X)
    assert fitted.predict("P01", n_cells=450).n_obs == 450


def test_a_double_is_the_sum_of_shifts_before_the_graph(fitted):
    module, temperature = fitted.module_, fitted.predict_temperature
    with torch.no_grad():
        shifts = module.target(torch.eye(6), temperature)
        z = torch.zeros(1, 6)
        expected = module(z + shifts[0] + shifts[3])
        asked = module(z + module.target(torch.tensor([[1.0, 0, 0, 1, 0, 0]]), temperature))
    torch.testing.assert_close(asked, expected)


def test_same_seed_same_bits(screen, fitted):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = _fit(screen)
    assert torch.equal(before, torch.get_rng_state())
    pd.testing.assert_frame_equal(again.history_, fitted.history_, check_exact=True)
    pd.testing.assert_frame_equal(again.predict_effects("P03"), fitted.predict_effects("P03"), check_exact=True)
    assert not _fit(screen, seed=1).history_.equals(fitted.history_)


def test_training_leaves_the_data_alone(screen):
    copy = screen.copy()
    _fit(copy, max_epochs=1)
    assert (copy.X != screen.X).nnz == 0
    assert copy.obs.equals(screen.obs)


def test_dense_sparse_and_log_data_agree(screen):
    dense = screen.copy()
    dense.X = screen.X.toarray()
    logged = ad.AnnData(sparse.csr_matrix(_expression(screen)), obs=screen.obs, var=screen.var)
    expected = _fit(screen, max_epochs=1).predict_effects("P01")
    np.testing.assert_allclose(_fit(dense, max_epochs=1).predict_effects("P01"), expected, atol=1e-5)
    np.testing.assert_allclose(_fit(logged, max_epochs=1).predict_effects("P01"), expected, atol=1e-5)


def test_order_of_genes_does_not_matter_to_given_cells(screen, fitted):
    turned = screen[:, ::-1].copy()
    np.testing.assert_allclose(fitted.encode(turned), fitted.encode(screen), atol=1e-6)


def test_it_beats_no_change():
    adata = simulate(
        60,
        3,
        4,
        n_control_cells=300,
        n_cells_per_perturbation=300,
        n_doubles=3,
        expected_degree=0.5,
        effect_size=3.0,
        library_size=20000.0,
        dispersion=10.0,
    )
    doubles = adata.obs["perturbation"].str.contains("+", regex=False).to_numpy()
    # the bandwidth of dVAE is for thousands of genes
    fitted = _fit(adata[~doubles].copy(), max_epochs=60, lr=3e-3, fix_sigma=200.0)
    truth = measured_effects(adata, **SETUP)
    control = fitted.predict_control() - _expression(adata[adata.obs["perturbation"] == "control"]).mean(axis=0)
    for kind in (truth[~truth.index.str.contains("+", regex=False)], truth[truth.index.str.contains("+", regex=False)]):
        predicted = fitted.predict_effects(list(kind.index))
        assert len(kind) == 3
        assert relative_mse(predicted, kind) < 1.0
        assert relative_mse(predicted + control, kind) < 0.7  # predicted cells against the measured control
    history = fitted.history_
    assert history["mmd"].iloc[-1] < 0.5 * history["mmd"].iloc[0]
    assert history["reconstruction"].iloc[-1] < 0.5 * history["reconstruction"].iloc[0]


def test_it_learns_from_doubles_alone():
    adata = _screen(n_doubles=4)
    pairs = adata.obs["perturbation"].str.contains("+", regex=False).to_numpy()
    control = (adata.obs["perturbation"] == "control").to_numpy()
    fitted = _fit(adata[pairs | control].copy(), max_epochs=1)
    measured = {gene for label in fitted.conditions for gene in label.split("+")}
    assert fitted.perturbed_genes == sorted(measured)
    assert fitted.adjacency_.shape == (len(measured), len(measured))


def test_the_mmd_of_the_history_is_biased(screen):
    """Before training, predictions are near 0, and the MMD that of zeros against the cells."""
    fitted = _fit(screen, max_epochs=1, lr=1e-12)
    x = torch.tensor(_expression(screen))
    cells = np.flatnonzero(screen.obs["perturbation"] == "P01")[:32]
    expected = mk_mmd(torch.zeros(32, 80), x[cells], fix_sigma=1000.0, biased=True).item()
    assert fitted.history_["mmd"].iloc[0] == pytest.approx(expected, rel=0.15)


# -- errors ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "wrong",
    [
        {"n_latent": 0},
        {"n_hidden": 0},
        {"max_epochs": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"temperature": -1.0},
        {"predict_temperature": 0.0},
        {"fix_sigma": float("nan")},
        {"mmd_weight": -1.0},
        {"kl_weight": -0.1},
        {"l1_weight": -1e-3},
    ],
)
def test_numbers_out_of_range(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name}="):
        DiscrepancyVAE(**wrong)


@pytest.mark.parametrize("ask", ["predict_control", "encode", "predict_effects", "predict", "reconstruct"])
def test_unfitted(ask, screen):
    arguments = {"predict_control": (), "encode": (screen,), "reconstruct": (screen,)}.get(ask, ("P01",))
    with pytest.raises(NotFittedError, match="call fit"):
        getattr(DiscrepancyVAE(), ask)(*arguments)


def test_wrong_questions(screen, fitted):
    with pytest.raises(ValueError, match="XYZ was not perturbed"):
        fitted.predict_effects(["P01+XYZ"])
    with pytest.raises(ValueError, match="n_cells=0"):
        fitted.predict("P01", n_cells=0)
    with pytest.raises(ValueError, match=f"1 of the 80 genes .*{screen.var_names[0]}"):
        fitted.encode(screen[:, 1:].copy())


def test_no_control_or_no_perturbation(screen):
    control = (screen.obs["perturbation"] == "control").to_numpy()
    with pytest.raises(ValueError, match="there is no perturbation"):
        _fit(screen[control].copy())
    with pytest.raises(ValueError, match="control"):
        _fit(screen[~control].copy())


def test_a_diverging_run_says_so(screen):
    with pytest.raises(FloatingPointError, match="lower the learning rate, lr=1e"):
        _fit(screen, lr=1e20)


def test_the_profile_of_control_is_the_reconstruction_of_the_mean_control(screen):
    """Eq. S17, with log values, of which the mean is a cell too."""
    cells = ad.AnnData(_expression(screen), obs=screen.obs[["perturbation"]], var=screen.var[[]])
    fitted = DiscrepancyVAE(max_epochs=2).fit(cells)
    control = (cells.obs["perturbation"] == "control").to_numpy()
    mean = ad.AnnData(cells.X[control].mean(axis=0, keepdims=True), var=cells.var)
    profiles = fitted.predict_profiles(["control", "P01"])
    np.testing.assert_allclose(profiles.loc["control"], fitted.reconstruct(mean)[0], atol=1e-5)
    # one draw that all perturbations share, shifted
    z = torch.as_tensor(fitted.encode(mean))
    module, shift = fitted.module_, fitted._shifts(fitted._masks([("P01",)]))
    with torch.no_grad():
        linear = module(z + shift) - module(z)
    change = (profiles.loc["P01"] - profiles.loc["control"]).to_numpy()
    assert np.corrcoef(change, linear[0].numpy())[0, 1] > 0.9
