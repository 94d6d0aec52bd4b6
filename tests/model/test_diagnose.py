"""What `diagnose` says of a model: each check fires where it should, and not on a model that is in order."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi
import torch

import raptorgraph as rg
from raptorgraph.model._network_checks import latent_responses
from raptorgraph.model._posterior_checks import held_out_errors, standardized

pytestmark = pytest.mark.usefixtures("few_steps")

SIZE = {"n_control_cells": 200, "n_cells_per_perturbation": 60, "n_truth_cells": 20, "expected_degree": 2.0}


def simulate(**options):
    return rg.datasets.simulate(80, 5, **{"n_doubles": 4, "seed": 0, **SIZE, **options})


def fitted(adata, preset="default", **options):
    scvi.settings.seed = 0
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraphModel.from_preset(adata, preset, n_hidden=8, **options)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder of a model, and its cells."""
    adata = simulate()
    folder = tmp_path_factory.mktemp("diagnose") / "model"
    fitted(adata).save(folder)
    return folder, adata


@pytest.fixture
def model(saved):
    """The model, with cells of its own, to be changed."""
    folder, adata = saved
    return rg.RaptorGraphModel.load(folder, adata.copy())


def said(model, check, **options):
    """Rows of a check."""
    table = model.diagnose(**options)
    assert (table["fires"].fillna(False).astype(bool) == (table["level"] != "")).all()
    assert table["meaning"].str.endswith(".").all()
    return table[table["check"] == check]


def fires(model, check, **options):
    return said(model, check, **options)["fires"].fillna(False).any()


def test_nothing_is_changed_and_all_checks_are_there(model):
    before = {name: value.clone() for name, value in model.module.state_dict().items() if torch.is_tensor(value)}
    obs = model.adata.obs.copy()
    table = model.diagnose()
    assert set(table["check"]) == {
        "numbers", "cells", "labels", "values", "library sizes", "batches", "targets", "effects", "combinations",
        "guides", "latents", "graph", "posterior", "held-out predictions", "saturation",
    }  # fmt: skip
    assert not (table["level"] == "warning").any()
    pd.testing.assert_frame_equal(model.diagnose(), table)
    pd.testing.assert_frame_equal(model.adata.obs, obs)
    after = model.module.state_dict()
    assert all(torch.equal(value, after[name]) or value.isnan().any() for name, value in before.items())


def test_before_the_training():
    adata = simulate()
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    table = rg.RaptorGraphModel(adata, n_hidden=8).diagnose().set_index("check")
    assert table.at["latents", "found"] == "Not checked: the model is not trained."
    assert table.loc["cells", "fires"] is not pd.NA


def test_without_data(saved):
    model = rg.RaptorGraphModel.load(saved[0], adata=False)
    table = model.diagnose().set_index("check")
    for name in ("cells", "library sizes", "effects", "guides", "held-out predictions"):
        assert table.loc[name, "fires"] is pd.NA
        assert table.at[name, "found"].startswith("Not checked: ")
    for name in ("numbers", "latents", "graph", "posterior", "saturation"):
        assert not table.loc[[name], "fires"].isna().any()


def test_paper_and_models_without_a_posterior():
    for preset, options in (("paper", {}), ("default", {"effect_posterior": False})):
        table = fitted(simulate(), preset, **options).diagnose().set_index("check")
        assert "no posterior" in table.at["posterior", "found"]
        assert not (table.loc[["numbers"], "fires"]).any()


def test_cells_in_a_file(model, saved, tmp_path):
    adata = simulate()
    adata.write_h5ad(tmp_path / "screen.h5ad")
    backed = rg.RaptorGraphModel.load(saved[0], ad.read_h5ad(tmp_path / "screen.h5ad", backed="r"))
    columns = ["check", "fires", "level", "found"]
    pd.testing.assert_frame_equal(backed.diagnose()[columns], model.diagnose()[columns])


def test_numbers_that_are_not_finite(model):
    assert not fires(model, "numbers")
    with torch.no_grad():
        model.module.decoder.base[3] = torch.nan
    table = model.diagnose()
    (row,) = table[table["check"] == "numbers"].itertuples()
    assert (row.level, row.concerns) == ("warning", (model.adata.var_names[3],))
    assert "decoder.base" in row.meaning
    assert "not finite" in table.set_index("check").at["posterior", "found"]


def test_collapsed_latents(model):
    own = said(model, "latents")["concerns"].explode()
    assert "P02" not in set(own)
    encoder = model.module.encoder
    with torch.no_grad():  # the prior, whatever the cell
        encoder.aggregation[:, :, 1] = 0
        encoder.offset[:, 1] = 0
    rows = said(model, "latents")
    (row,) = rows[rows["found"].str.contains("says nothing of a cell")].itertuples()
    assert "P02" in row.concerns


def test_latents_that_do_nothing(model):
    before = latent_responses(model.module)
    assert not said(model, "latents")["found"].str.contains("does not read").any()
    with torch.no_grad():
        model.module.decoder.linear.weight[:, 2] = 0
        model.module.decoder.dense[0].weight[:, 2] = 0
        model.module.graph.weight[2] = 0
    after = latent_responses(model.module)
    assert after[2] == 0
    np.testing.assert_allclose(np.delete(after, 2) > 0, True)
    rows = said(model, "latents")
    (row,) = rows[rows["found"].str.contains("does not read")].itertuples()
    assert (row.level, row.concerns) == ("warning", ("P03",))
    assert before[2] > 0


def test_response_of_a_latent_is_its_column(model):
    module = model.module
    with torch.no_grad():
        torch.nn.init.zeros_(module.decoder.dense[-1].weight)  # the linear path alone
    graph = np.linalg.inv(np.eye(module.config.n_latent) - module.graph.adjacency().detach().numpy())
    expected = np.linalg.norm(graph @ module.decoder.linear.weight.detach().numpy().T, axis=1)
    np.testing.assert_allclose(latent_responses(module), expected, rtol=1e-4)


def test_unstable_graph(model):
    genes = len(model.perturbed_genes)
    assert model.edges.called.any()
    model.edges.keep_stability(np.ones((genes, genes)), np.zeros((genes, genes)))
    with torch.no_grad():
        model.module.edge_probability[model.module.edge_probability >= 0.5] = 0.95
    assert not said(model, "graph")["found"].str.contains("a few cells only").any()
    model.edges.keep_stability(np.full((genes, genes), 0.3), np.zeros((genes, genes)))
    rows = said(model, "graph")
    (row,) = rows[rows["found"].str.contains("a few cells only")].itertuples()
    assert row.level == "warning"
    assert set(row.concerns) <= set(model.perturbed_genes)


def test_posterior_that_does_not_fit(model):
    assert not fires(model, "posterior")
    assert standardized(model, model.screen).max() < 1.2
    stored = standardized(model, None)  # by the noise of a typical condition
    np.testing.assert_allclose(stored, standardized(model, model.screen)[stored.index], rtol=0.35, atol=0.1)
    # cells of another experiment, in which two labels were swapped
    other = model.adata.copy()
    labels = other.obs["perturbation"].astype(str).replace({"P01": "P02", "P02": "P01"})
    other.obs["perturbation"] = labels.to_numpy()
    swapped = rg.RaptorGraphModel.load(_again(model), other)
    (row,) = said(swapped, "posterior").itertuples()
    assert set(row.concerns) == {"P01", "P02"}


def _again(model):
    import tempfile

    folder = tempfile.mkdtemp()
    model.save(folder, overwrite=True)
    return folder


def test_standardized_effects_by_hand(model):
    screen = model.screen
    label = screen.conditions[0]
    # both are against the very control cells of the screen
    mean, sd = (x[0].numpy() for x in model.calibration.posterior.mean_and_sd(model.predictor.masks([label])[1]))
    square = (screen.effects.loc[label] - mean) ** 2 / (sd**2 + screen.moments.variance[1])
    assert standardized(model, screen)[label] == pytest.approx(square.mean(), rel=1e-4)


def test_guides_that_disagree():
    adata = rg.datasets.simulate(
        150, 4, effect_size=8.0, escape=0.5, n_control_cells=250, n_cells_per_perturbation=80, n_doubles=0,
        n_truth_cells=20, seed=0,
    )  # fmt: skip
    labels = adata.obs["perturbation"].astype(str)
    works = np.where(labels == "P01", adata.obs["responded"], np.arange(adata.n_obs) % 2 == 0)
    adata.obs["guide"] = (labels + np.where(works, "_1", "_2")).to_numpy()
    adata.obs["other"] = (labels + np.where(np.arange(adata.n_obs) % 2, "_1", "_2")).to_numpy()
    model = fitted(adata)
    (row,) = said(model, "guides").itertuples()
    assert (row.level, row.concerns) == ("warning", ("P01",))
    (row,) = said(model, "guides", guide_key="other").itertuples()
    assert not row.fires
    table = rg.tl.responders(model, "guide")
    assert table.loc[table["disagree"], "perturbation"].tolist() == ["P01"]
    with pytest.raises(KeyError, match="nowhere"):
        model.diagnose(guide_key="nowhere")


@pytest.fixture(scope="module")
def additive():
    """Model of the singles of a screen in which effects add up, and all of its cells."""
    adata = simulate(n_doubles=8, mechanism="linear", interaction_strength=0.0, n_cells_per_perturbation=150)
    single = ~adata.obs["perturbation"].str.contains("+", regex=False)
    return fitted(adata[single.to_numpy()].copy()), adata


def test_predictions_that_are_worse_than_addition(additive):
    model, adata = additive
    assert said(model, "held-out predictions")["fires"].isna().all()
    assert not fires(model, "held-out predictions", held_out=adata)
    effects = model.module.effects
    before = effects.fitted
    scale = before.hyperparameters.scale
    try:
        effects._set(replace(before, hyperparameters=replace(before.hyperparameters, scale=0.05 * scale)))
        (row,) = said(model, "held-out predictions", held_out=adata).itertuples()
    finally:
        effects._set(before)
    assert row.level == "warning"
    assert set(row.concerns) <= set(adata.obs["perturbation"])


def test_held_out_errors_by_hand(additive):
    model, adata = additive
    errors = held_out_errors(model, adata)
    doubles = sorted(x for x in adata.obs["perturbation"].unique() if "+" in x)
    assert sorted(errors.index) == doubles
    truth = rg.pp.measured_effects(adata, library_size_key="total_counts")[list(model.adata.var_names)]
    label = doubles[0]
    a, b = label.split("+")
    measured, size = model.measured_effects(), (truth.loc[label] ** 2).sum()
    expected = ((measured.loc[a] + measured.loc[b] - truth.loc[label]) ** 2).sum() / size
    assert errors.at[label, "sum"] == pytest.approx(expected, rel=1e-6)
    predicted = model.predict_effects(label).loc[label].astype(float)
    assert errors.at[label, "model"] == pytest.approx(((predicted - truth.loc[label]) ** 2).sum() / size, rel=1e-5)


def test_combinations_that_were_left_out_of_the_training():
    adata = simulate()
    label = next(x for x in adata.obs["perturbation"].unique() if "+" in x)
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    left = (adata.obs["perturbation"] == label).to_numpy()
    parts = [np.flatnonzero(~left), np.array([], dtype=int), np.flatnonzero(left)]
    model.train(
        max_epochs=1, accelerator="cpu", enable_progress_bar=False, datasplitter_kwargs={"external_indexing": parts}
    )
    assert held_out_errors(model, None).index.tolist() == [label]
    assert not said(model, "held-out predictions")["fires"].isna().any()


def test_saturation(model):
    assert not fires(model, "saturation")
    with torch.no_grad():
        model.module.encoder.offset[1, 4] = 50.0
    rows = said(model, "saturation")
    assert rows["concerns"].tolist() == [("P05",)]
    assert "variance at the end" in rows["found"].item()
    with torch.no_grad():
        model.module.encoder.offset[1, 4] = 0.0
        model.module.spread[:40] = 1e-4
    assert said(model, "saturation")["found"].str.contains("beyond what the encoder").any()


def test_pairs_that_saturate(model, monkeypatch):
    effects = model.module.effects
    before = effects.fitted.hyperparameters
    effects._set(replace(effects.fitted, hyperparameters=replace(before, scale=torch.tensor(0.4).double())))
    (row,) = said(model, "saturation").itertuples()
    assert (row.level, "about 0.40 times" in row.found) == ("note", True)
    # where single effects are not known, neither is what pairs do of them
    monkeypatch.setattr(type(effects), "mean_and_sd", lambda self, design: (design[:, :1] * 0.1, design[:, :1]))
    assert not fires(model, "saturation")


def test_bad_arguments(model):
    with pytest.raises(TypeError, match="seed"):
        model.diagnose(seed="0")
