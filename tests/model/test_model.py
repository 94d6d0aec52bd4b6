"""The whole path on a small simulated screen: setup, training, what is written, saving."""

import anndata as ad
import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scvi
import torch

import raptorgraph as rg
from raptorgraph.inference._conditioning import Conditional
from raptorgraph.inference._draws import JointDraws
from raptorgraph.model import NonFiniteLossError

pytestmark = pytest.mark.usefixtures("few_steps")


def screen(**kwargs):
    arguments = {
        "n_genes": 60, "n_perturbed": 5, "n_control_cells": 120, "n_cells_per_perturbation": 40, "n_doubles": 3,
        "n_truth_cells": 50, "targets_without_gene": 0.2, "seed": 1,
    }  # fmt: skip
    return rg.datasets.simulate(**{**arguments, **kwargs})


def train(model, max_epochs=3, **kwargs):
    model.train(max_epochs=max_epochs, enable_progress_bar=False, accelerator="cpu", **kwargs)
    return model


@pytest.fixture(autouse=True)
def seeded():
    scvi.settings.seed = 0


@pytest.fixture(scope="module")
def trained():
    scvi.settings.seed = 0
    adata = screen()
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    return train(rg.RaptorGraph(adata), max_epochs=8)


# -- setup -------------------------------------------------------------------------------------------------------


def test_target_without_gene_keeps_its_latent(trained):
    missing = [g for g in trained.perturbed_genes if g not in set(trained.adata.var_names)]
    assert len(missing) == 1
    assert trained.perturbed_genes[-1] == missing[0]
    assert trained.module.encoder.preconditioned.n_targets == 4
    assert trained.latent_activity().loc[missing[0], "gene"] == missing[0]


def test_likelihood_follows_the_data_and_refuses_a_mismatch():
    adata = screen()
    log = adata.copy()
    rg.RaptorGraph.setup_anndata(adata)
    assert rg.RaptorGraph(adata).module.config.likelihood == "nb"
    log.X.data = np.log1p(log.X.data * 0.37)
    rg.RaptorGraph.setup_anndata(log)
    assert rg.RaptorGraph(log).module.config.likelihood == "normal"
    with pytest.raises(ValueError, match="log values"):
        rg.RaptorGraph(log, likelihood="nb")
    with pytest.raises(ValueError, match="n_latent=3"):
        rg.RaptorGraph(log, n_latent=3)


# -- training -----------------------------------------------------------------------------------------------------
def jacobian(model):
    module, k = model.module, model.module.encoder.preconditioned.n_targets
    x = torch.randn(1, model.adata.n_vars)
    full = torch.autograd.functional.jacobian(lambda v: module.encode(v)[0], x)
    return full[0, :, 0, :k].numpy()


def test_trained_model_keeps_its_promises(trained):
    own = jacobian(trained)
    assert (np.diag(own) != 0).all()
    np.testing.assert_array_equal(own - np.pad(np.diag(np.diag(own)), ((0, len(own) - own.shape[1]), (0, 0))), 0)
    dag = trained.get_dag()
    assert nx.is_directed_acyclic_graph(nx.from_pandas_adjacency(dag, create_using=nx.DiGraph))
    assert (np.diag(dag) == 0).all()
    assert bool(trained.module.graph.projected)
    assert trained.history["train_loss"].iloc[-1, 0] < trained.history["train_loss"].iloc[0, 0]
    assert {"reconstruction_train", "kl_train", "shift_train"} <= set(trained.history)
    assert "dag_train" not in trained.history  # the graph is inferred before, not trained


def test_forward_pass_uses_the_projected_graph():
    adata = screen()
    rg.RaptorGraph.setup_anndata(adata)
    model = train(rg.RaptorGraph(adata, graph="dagma"), max_epochs=1, plan_kwargs={"dag_threshold": 0.0})
    assert "dag_train" in model.history
    dag = model.get_dag().to_numpy()
    assert (dag != 0).sum() > 10
    assert nx.is_directed_acyclic_graph(nx.from_numpy_array(dag, create_using=nx.DiGraph))
    z, u = (model.get_latent_representation(kind=kind) for kind in ("exogenous", "causal"))
    np.testing.assert_allclose(u, z @ np.linalg.inv(np.eye(len(dag)) - dag), rtol=1e-3, atol=1e-4)


def test_same_seed_same_result():
    effects = []
    for _ in range(2):
        scvi.settings.seed = 3
        adata = screen()
        rg.RaptorGraph.setup_anndata(adata)
        effects.append(train(rg.RaptorGraph(adata)).predict_effects(["P01", "P01+P02"]))
    np.testing.assert_array_equal(*effects)


@pytest.mark.parametrize("perturbed_prior", [True, False])
@pytest.mark.parametrize(
    "arguments", [{"likelihood": "normal"}, {"pairing": "random"}, {"linear_decoder": False, "n_layers": 2}]
)
def test_variants_train(arguments, perturbed_prior):
    adata = screen(n_batches=2)
    adata.obs["age"] = np.linspace(0, 1, adata.n_obs)
    adata.obs["donor"] = np.resize(["a", "b", "c"], adata.n_obs)
    rg.RaptorGraph.setup_anndata(
        adata, batch_key="batch", categorical_covariate_keys=["donor"], continuous_covariate_keys=["age"]
    )
    weights = {} if perturbed_prior else {"mmd_weight": 0.1, "pair_weight": 0.1}
    model = train(rg.RaptorGraph(adata, perturbed_prior=perturbed_prior, **arguments), plan_kwargs=weights)
    assert model.module.decoder.linear is None or model.module.decoder.linear.in_features == 9 + 2 + 3 + 1
    # cells of another screen are decoded, and brought to the posterior's mean
    others = model.adata[10:].copy()
    decoded, posterior = model.predict_effects(["P01+P02"], others), model.predict_effects(["P01+P02"])
    np.testing.assert_allclose(decoded, posterior, atol=0.05)
    assert np.abs(posterior).to_numpy().max() > 0.5
    assert {"shift_train", *(name.replace("weight", "train") for name in weights)} <= set(model.history)


def test_preset_paper_has_the_published_settings():
    adata = screen()
    rg.RaptorGraph.setup_anndata(adata)
    model = rg.RaptorGraph.from_preset(adata, "paper")
    assert model.module.graph.weight.abs().max() <= 0.1
    assert model.module.decoder.dense[0].out_features == 904
    assert len(model.latent_names) == 9
    train(model)
    assert model.trainer.lightning_module.lr == 1e-4
    # without noise, predicted cells are the decoded ones of which effects are the mean
    cells = model.predict(["P01", "control"], seed=0)
    found, control = np.split(cells.X, 2)
    np.testing.assert_allclose((found.mean(0) - control.mean(0)), model.predict_effects("P01").loc["P01"], atol=1e-5)
    with pytest.raises(ValueError, match="published"):
        rg.RaptorGraph.from_preset(adata, "published")


def test_a_condition_of_one_cell_and_a_gene_of_zeros_train():
    adata = screen()
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    labels[np.flatnonzero(labels == "P01")[1:]] = "control"
    adata.obs["perturbation"] = labels
    dense = adata.X.toarray()
    dense[:, 7] = 0
    adata.X = dense
    rg.RaptorGraph.setup_anndata(adata)
    zeros = adata.var_names[adata.X.sum(0) == 0]
    assert len(zeros) == 1
    effects, sd = train(rg.RaptorGraph(adata)).predict_effects(["P01", "P02"], return_sd=True)
    assert effects[zeros].abs().to_numpy().max() < 1e-2
    # what one cell shows is known less well than what forty show
    assert (sd.loc["P01"] > sd.loc["P02"]).mean() > 0.9


def test_a_loss_that_is_not_finite_stops_training_and_is_named():
    adata = screen()
    rg.RaptorGraph.setup_anndata(adata)
    model = rg.RaptorGraph(adata)
    with torch.no_grad():
        model.module.distribution.log_scale[0] = torch.nan
    with pytest.raises(NonFiniteLossError, match="reconstruction"):
        train(model)
    assert not model.is_trained


def test_unknown_arguments_of_the_plan_are_refused(trained):
    with pytest.raises(TypeError, match="shift_wieght"):
        trained.train(plan_kwargs={"shift_wieght": 1.0})


# -- predictions -----------------------------------------------------------------------------------------------------
def test_predicted_cells(trained):
    cells = trained.predict(["P01", "P02+P01", "control"], n_cells=30, seed=0)
    assert list(cells.obs["perturbation"].cat.categories) == ["P01", "P01+P02", "control"]
    assert cells.n_obs == 90
    assert list(cells.var_names) == list(trained.adata.var_names)
    counts = cells.layers["counts"].toarray()
    assert (counts == np.round(counts)).all()
    expected = np.log1p(1e4 * counts / cells.obs["library_size"].to_numpy()[:, None])
    np.testing.assert_allclose(cells.X.toarray(), expected, rtol=1e-4)
    again = trained.predict(["P01", "P02+P01", "control"], n_cells=30, seed=0)
    np.testing.assert_array_equal(cells.X.toarray(), again.X.toarray())
    other = trained.predict(["P01", "P02+P01", "control"], n_cells=30, seed=1)
    assert (other.X != cells.X).nnz > 0


def test_cells_keep_their_noise_or_draw_it_anew(trained):
    cells = trained.predict(["P01", "control"], n_cells=30, seed=0)
    control = cells[cells.obs["perturbation"] == "control"]
    start = trained.adata[control.obs["control_cell"]]
    np.testing.assert_array_equal(control.layers["counts"].toarray(), start.X.toarray())
    np.testing.assert_allclose(control.obs["library_size"], start.obs["total_counts"], rtol=1e-6)  # float32
    anew = trained.predict("control", n_cells=30, seed=0, noise="new")
    assert list(anew.obs["control_cell"]) == list(control.obs["control_cell"])
    assert (anew.layers["counts"] != control.layers["counts"]).nnz > 0
    with pytest.raises(ValueError, match="'old' is unknown"):
        trained.predict("P01", noise="old")


@pytest.mark.parametrize("noise", ["own", "new"])
def test_predicted_effects_agree_with_drawn_cells(trained, noise):
    effect = trained.predict_effects("P01", n_cells=120).loc["P01"].to_numpy()
    cells = trained.predict(["P01", "control"], n_cells=6000, seed=0, noise=noise)
    X = cells.X.toarray()
    perturbed = (cells.obs["perturbation"] == "P01").to_numpy()
    drawn = X[perturbed].mean(0) - X[~perturbed].mean(0)
    error = np.sqrt(X[perturbed].var(0) / 6000 + X[~perturbed].var(0) / 6000)
    # Drawn cells and the mean take different samples of the posterior, hence a little more than sampling error.
    assert np.mean(((drawn - effect) / error) ** 2) < 3
    assert (trained.predict_effects("control").to_numpy() == 0).all()


def test_standard_deviations_and_draws_of_effects(trained):
    asked = ["P01", "P01+P02", "control"]
    effects, sd = trained.predict_effects(asked, return_sd=True)
    assert effects.equals(trained.predict_effects(asked))
    assert effects.index.equals(sd.index)
    assert (sd.loc[["P01", "P01+P02"]] > 0).all(axis=None)
    assert (sd.loc["control"] == 0).all()
    draws = trained.sample_effects(asked[:2], n_draws=400, seed=0)
    assert draws.shape == (400, 2, 60)
    np.testing.assert_array_equal(draws, trained.sample_effects(asked[:2], n_draws=400, seed=0))
    error = draws.std(0) / np.sqrt(400)
    # Genes that are near zero expression are cut off there, which moves the mean of their draws.
    control = (trained.adata.obs["perturbation"] == "control").to_numpy()
    expressed = trained.adata.X[control].toarray().mean(0) > 1
    assert expressed.sum() > 20
    # With the error of the control mean, which both share, they are about the posterior mean, of which the
    # prediction is another summary.
    posterior, design = trained.calibration.posterior, trained.predictor.masks(asked[:2])[1].double()
    exact = posterior.posterior_mean(design).numpy()
    between = np.diff(draws.mean(0), axis=0) - np.diff(exact, axis=0)
    assert (np.abs(between) < 6 * np.sqrt((error**2).sum(0)) + 1e-3)[:, expressed].all()
    joint = JointDraws(Conditional(posterior.fitted), posterior.additivity, 400, 0)
    of_controls = joint.effects(design, controls=True).numpy()
    error = of_controls.std(0) / np.sqrt(400)
    assert (np.abs(of_controls.mean(0) - exact) < 6 * error + 1e-3)[:, expressed].all()
    measured = posterior.fitted.measured
    variance = sd.loc[asked[:2]] ** 2 - (measured.control_noise * measured.gene_noise).numpy()
    spread = (variance - (effects.loc[asked[:2]] - exact) ** 2).to_numpy() ** 0.5
    np.testing.assert_allclose((of_controls.std(0) / spread)[:, expressed].mean(), 1.0, atol=0.1)
    for bad, words in {("P01", "P01"): "twice", (): "empty"}.items():
        with pytest.raises(ValueError, match=words):
            trained.sample_effects(list(bad))
    with pytest.raises(ValueError, match="n_draws=0"):
        trained.sample_effects(["P01"], n_draws=0)


def test_kinds_of_effects(trained):
    asked = ["P01", "P01+P02"]
    assert trained.predict_effects(asked, kind="posterior").equals(trained.predict_effects(asked))
    assert not trained.predict_effects(asked, kind="decoder").equals(trained.predict_effects(asked))
    query = trained.adata[10:].copy()
    with pytest.raises(ValueError, match="leave out `adata`"):
        trained.predict_effects(asked, query, return_sd=True)
    with pytest.raises(ValueError, match="'mean' is unknown"):
        trained.predict_effects(asked, kind="mean")
    adata = screen()
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    plain = train(rg.RaptorGraph(adata, effect_posterior=False), max_epochs=1)
    assert plain.predict_effects(asked).shape == (2, 60)
    with pytest.raises(ValueError, match="effect_posterior=True"):
        plain.sample_effects(asked)
    options = {"constrained": False, "noise_fraction": 1.0}
    mean = train(rg.RaptorGraph(adata, effect_posterior=options), max_epochs=1)
    plain_mean = mean.calibration.posterior.posterior_mean(mean.predictor.masks(asked)[1]).numpy()
    control = mean.screen.control_mean
    np.testing.assert_allclose(mean.predict_effects(asked), np.maximum(plain_mean, -control), atol=1e-5)
    with pytest.raises(ValueError, match="noise_fraction=0"):
        rg.RaptorGraph(adata, effect_posterior={"noise_fraction": 0})


def test_combinations_are_sets(trained):
    a, b = (trained.predict_effects(label).to_numpy() for label in ("P01+P02", "control+P02+P01+P02"))
    np.testing.assert_array_equal(a, b)
    assert trained.predict_effects("P01+P02+P03").shape == (1, 60)
    with pytest.raises(ValueError, match="TP53"):
        trained.predict("P01+TP53")


def test_genes_are_taken_wherever_labels_are(trained):
    pair = trained.predict_effects("P01+P02")
    for given in (("P02", "P01"), {"P01", "P02"}, frozenset({"P01", "P02"}), [("P01", "P02")], [["P02", "P01"]]):
        pd.testing.assert_frame_equal(trained.predict_effects(given), pair)
        assert trained.predict(given, n_cells=2, seed=0).obs["perturbation"].tolist() == ["P01+P02"] * 2
    assert trained.predict_effects(["P01", "P02"]).index.tolist() == ["P01", "P02"]
    np.testing.assert_array_equal(
        trained.sample_effects([{"P02", "P01"}, "P01"], 3, seed=0),
        trained.sample_effects(["P01+P02", "P01"], 3, seed=0),
    )
    expected = trained.get_counterfactual("P01+P02")
    for given in (("P01", "P02"), {"P01", "P02"}, ["P01", "P02"]):
        np.testing.assert_array_equal(trained.get_counterfactual(given), expected)
    labels = [label for label in trained.conditions if "+" in label][:1]
    predicted, _ = trained.export_to_cell_eval(None, set(labels[0].split("+")), n_cells=2)
    assert set(predicted.obs["perturbation"]) == {*labels, "control"}
    with pytest.raises(ValueError, match=r"did you mean 'P01\+P02'\?"):
        trained.predict_effects("P01_p02")
    with pytest.raises(ValueError, match="did you mean 'P01'"):
        trained.get_counterfactual("p01")


def test_counterfactuals_differ_between_cells(trained):
    factual = trained.get_counterfactual("control")
    counterfactual = trained.get_counterfactual("P01")
    assert counterfactual.shape == trained.adata.shape
    assert (counterfactual.std(0) > 0).mean() > 0.9
    control = (trained.adata.obs["perturbation"] == "control").to_numpy()
    change = (counterfactual - factual)[control].mean(0)
    np.testing.assert_allclose(change, trained.predict_effects("P01").loc["P01"], atol=0.03)


def test_query_is_matched_by_name_and_left_alone(trained):
    query = ad.AnnData(trained.adata.X.copy(), obs=trained.adata.obs[["total_counts"]].copy())
    query.var_names = trained.adata.var_names
    expected = trained.get_latent_representation()
    shuffled = query[:, ::-1].copy()
    np.testing.assert_allclose(trained.get_latent_representation(shuffled), expected, rtol=1e-4, atol=1e-5)
    assert list(shuffled.obs) == ["total_counts"]
    assert not shuffled.uns
    with pytest.raises(ValueError, match=query.var_names[3]):
        trained.get_latent_representation(query[:, np.arange(60) != 3].copy())


def test_annotation_survives_a_file(trained, tmp_path):
    adata = trained.adata.copy()
    trained.annotate(adata, counterfactuals=["P02+P01"])
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(back.obsm["X_raptorgraph"], trained.get_latent_representation())
    assert back.obsm["counterfactual_P01+P02"].shape == adata.shape
    written = back.uns["raptorgraph"]
    assert list(written["perturbed_genes"]) == trained.perturbed_genes
    assert list(written["effects"]["perturbation"].unique()) == trained.conditions
    assert list(written["dag"].columns) == list(trained.get_edges().columns)
    assert {"source", "target", "weight", "probability", "share", "direction_support", "module"} == {*written["dag"]}
    assert written["settings"]["likelihood"] == "nb"


def test_loaded_model_predicts_the_same(trained, tmp_path):
    trained.save(tmp_path / "m")
    expected = trained.predict_effects(["P01+P03"])
    copy = ad.AnnData(trained.adata.X, obs=trained.adata.obs[["perturbation", "total_counts"]], var=trained.adata.var)
    shuffled = copy[:, ::-1].copy()
    loaded = rg.RaptorGraph.load(tmp_path / "m", shuffled)
    np.testing.assert_array_equal(loaded.predict_effects(["P01+P03"]), expected)
    bare = rg.RaptorGraph.load(tmp_path / "m", adata=False)
    assert bare.get_dag().equals(trained.get_dag())
    np.testing.assert_array_equal(bare.predict_effects(["P01+P03"]), expected)  # what was learned needs no data
    given = bare.predict_effects(["P01+P03"], copy[:, ::-1].copy())
    np.testing.assert_array_equal(given, trained.predict_effects(["P01+P03"], copy))
    np.testing.assert_array_equal(given, expected)  # they are the training controls
    # Other cells are decoded, and the decoder is brought to what was learned of their means.
    np.testing.assert_allclose(bare.predict_effects(["P01+P03"], copy[10:].copy()), expected, atol=0.05)
    with pytest.raises(ValueError, match="without data"):
        bare.predict(["P01+P03"])


# -- real screens ---------------------------------------------------------------------------------------------------
def test_carpool_singles(shared_data):
    adata = ad.read_h5ad(shared_data / "carpool_semireal.h5ad")
    singles = ~adata.obs["perturbation"].astype(str).str.contains("+", regex=False)
    adata = adata[singles.to_numpy(), ~rg.pp.guide_features(adata)].copy()[:, ::3].copy()  # every third gene
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    model = train(rg.RaptorGraph(adata), max_epochs=12)
    measured = model.measured_effects()
    learned = model.predict_effects(list(measured.index), kind="decoder")
    predicted = model.predict_effects(list(measured.index))
    # Predictions are freed of noise, and so farther from what was measured than the network could be.
    assert 0.8 < rg.metrics.pearson_delta(predicted.to_numpy(), measured.to_numpy()) < 0.95
    # The network says what they say.
    assert rg.metrics.pearson_delta(learned.to_numpy(), predicted.to_numpy()) > 0.98
    off = ((learned - predicted) ** 2).to_numpy().sum() / (predicted**2).to_numpy().sum()
    assert off < 0.03
    assert model.latent_activity()["active"].mean() > 0.5


def test_early_stopping_and_training_without_validation():
    adata = screen()
    rg.RaptorGraph.setup_anndata(adata)
    model = train(rg.RaptorGraph(adata), max_epochs=30, early_stopping=True, early_stopping_patience=1,
                  plan_kwargs={"lr": 1e-6})  # fmt: skip
    assert bool(model.module.graph.projected)
    assert len(model.history["train_loss"]) < 30
    model = train(rg.RaptorGraph(adata), train_size=1.0)
    assert "validation_loss" not in model.history
    with pytest.raises(ValueError, match="early_stopping"):
        train(model, train_size=1.0, early_stopping=True)
