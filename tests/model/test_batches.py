"""Cells of batches that the model does not know, and the batches that they are decoded in."""

import anndata as ad
import numpy as np
import pytest
import scvi
import torch

import raptorgraph as rg
from raptorgraph.model._batches import in_batch, in_each, transform_codes
from raptorgraph.model._field import KEYS

pytestmark = pytest.mark.usefixtures("few_steps")


def screen():
    adata = rg.datasets.simulate(
        40, 4, n_doubles=2, n_control_cells=60, n_cells_per_perturbation=20, n_batches=3, n_truth_cells=10, seed=1
    )
    adata.obs["batch"] = [name.replace("batch", "d") for name in adata.obs["batch"]]
    adata.obs["phase"] = np.resize(["G1", "S"], adata.n_obs)
    adata.obs["age"] = np.linspace(-1, 1, adata.n_obs)
    return adata


def make(likelihood="nb", **setup):
    scvi.settings.seed = 0
    adata = screen()
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts", **setup)
    model = rg.RaptorGraph(adata, n_hidden=8, likelihood=likelihood)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    return model


COVARIATES = {
    "batch_key": "batch", "categorical_covariate_keys": ["phase"], "continuous_covariate_keys": ["age"],
}  # fmt: skip


@pytest.fixture(scope="module")
def trained():
    return make(**COVARIATES)


@pytest.fixture
def donor(trained):
    """Control cells of a new donor, known to be so or not."""
    cells = trained.adata[trained.adata.obs["perturbation"] == "control"][:20].copy()
    query = ad.AnnData(cells.X, obs=cells.obs[["perturbation", "total_counts", "batch", "phase", "age"]], var=cells.var)
    query.obs["batch"] = "d4"
    return query


def moved_to(query, name):
    query = query.copy()
    query.obs["batch"] = name
    return query


ASKS = {
    "predict": lambda model, *args, **kwargs: model.predict("P01", *args, **kwargs),
    "effects": lambda model, *args, **kwargs: model.predict_effects("P01", *args, **kwargs),
    "counterfactual": lambda model, *args, **kwargs: model.get_counterfactual("P01", *args, **kwargs),
    "annotate": lambda model, *args, **kwargs: model.annotate(*args, counterfactuals=["P01"], **kwargs),
    "export": lambda model, *args, **kwargs: model.export_to_cell_eval(None, ["P01"], *args, **kwargs),
}


@pytest.mark.parametrize("ask", ASKS)
def test_an_unknown_batch_is_named_with_the_way_out(trained, donor, ask):
    if ask == "export":
        donor = ad.concat([donor, trained.adata[trained.adata.obs["perturbation"] == "P01"]], join="inner")
    before = donor.copy()
    with pytest.raises(ValueError, match=r"obs\['batch'\] has 'd4'.*'d1', 'd2', 'd3'.*transform_batch='all'"):
        ASKS[ask](trained, donor)
    assert list(donor.obs) == list(before.obs)
    assert not donor.obsm
    assert not donor.uns
    ASKS[ask](trained, donor, transform_batch="all")


@pytest.mark.parametrize("ask", [ASKS[name] for name in ASKS if name != "export"])
def test_a_missing_batch_is_named_with_the_way_out(trained, donor, ask):
    del donor.obs["batch"]
    words = "batch_key='batch' is not a column of adata.obs. The model knows 'd1', 'd2', 'd3'. .*transform_batch='all'"
    with pytest.raises(KeyError, match=words) as raised:
        ask(trained, donor)
    assert "_scvi" not in str(raised.value)
    ask(trained, donor, transform_batch="all")


def test_latents_need_no_batch_no_covariates_and_no_known_labels(trained, donor):
    expected = trained.get_latent_representation()[:0]
    whole = {kind: trained.get_latent_representation(kind=kind) for kind in ("causal", "exogenous")}
    rows = trained.adata.obs_names.get_indexer(donor.obs_names)
    donor.obs["perturbation"] = "TP53+MYC"
    bare = ad.AnnData(donor.X, obs=donor.obs[["total_counts"]], var=donor.var)
    for kind, expected in whole.items():
        for query in (donor, bare):
            np.testing.assert_allclose(trained.get_latent_representation(query, kind), expected[rows], atol=1e-5)
    trained.annotate(donor)
    np.testing.assert_allclose(donor.obsm["X_raptorgraph"], whole["causal"][rows], atol=1e-5)


def test_new_perturbations_beside_controls_are_no_hindrance(trained, donor):
    both = ad.concat([donor, donor], index_unique="-")
    both.obs["perturbation"] = ["control"] * 20 + ["TP53"] * 20
    for ask in ("predict", "effects"):
        found, expected = (ASKS[ask](trained, cells, transform_batch="d2") for cells in (both, donor))
        np.testing.assert_array_equal(*(x.X.toarray() if ask == "predict" else x for x in (found, expected)))
    assert trained.get_counterfactual("P01", both, transform_batch="d1").shape == (40, 40)


def test_one_batch_is_what_cells_of_that_batch_get(trained, donor):
    for name in ("d1", "d3"):
        placed = moved_to(donor, name)
        for ask in ("effects", "counterfactual"):
            found = ASKS[ask](trained, donor, transform_batch=name)
            np.testing.assert_array_equal(found, ASKS[ask](trained, placed))
        cells = trained.predict("P01", donor, transform_batch=name)
        np.testing.assert_array_equal(cells.X.toarray(), trained.predict("P01", placed).X.toarray())
        assert (cells.obs["batch"] == name).all()
    one, two = (trained.get_counterfactual("P01", donor, transform_batch=name) for name in ("d1", "d2"))
    assert not np.allclose(one, two, atol=1e-3)


def test_several_batches_are_averaged(trained, donor):
    for ask in ("effects", "counterfactual"):
        each = [np.asarray(ASKS[ask](trained, donor, transform_batch=name)) for name in ("d1", "d2", "d3")]
        for asked, parts in (("all", each), (["d3", "d1"], [each[0], each[2]]), (["d2"], [each[1]])):
            found = ASKS[ask](trained, donor, transform_batch=asked)
            np.testing.assert_allclose(found, np.mean(parts, axis=0), atol=1e-6)
    # The cells' own batch does not count.
    known = moved_to(donor, "d2")
    np.testing.assert_array_equal(
        trained.get_counterfactual("P01", known, transform_batch="all"),
        trained.get_counterfactual("P01", donor, transform_batch="all"),
    )


def test_a_batch_is_a_column_of_the_decoder():
    """For a normal likelihood and a linear decoder, batches differ by their weights."""
    scvi.settings.seed = 0
    adata = screen()
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts", **COVARIATES)
    model = rg.RaptorGraph(adata, likelihood="normal", n_layers=0, effect_posterior=False)
    model.is_trained_ = True
    weight = model.module.decoder.linear.weight.detach().numpy()[:, len(model.latent_names) :]
    one, two, both = (model.get_counterfactual("P01", transform_batch=asked) for asked in ("d1", "d2", ["d1", "d2"]))
    np.testing.assert_allclose(two - one, np.tile(weight[:, 1] - weight[:, 0], (len(one), 1)), atol=1e-5)
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-6)


def test_predicted_cells_are_spread_evenly(trained, donor):
    cells = trained.predict(["P01", "P02"], donor, n_cells=31, seed=3, transform_batch="all")
    counts = cells.obs.groupby(["perturbation", "batch"], observed=False).size()
    assert sorted(counts["P01"]) == [10, 10, 11]
    assert (counts["P01"] == counts["P02"]).all()
    again = trained.predict(["P01", "P02"], donor, n_cells=31, seed=3, transform_batch="all")
    assert (again.X != cells.X).nnz == 0
    assert again.obs.equals(cells.obs)
    order = cells.obs["batch"].to_numpy()[:31]
    assert (order[:-1] != order[1:]).sum() > 5  # in random order
    assert (trained.predict("P01", donor, seed=4, transform_batch="all").obs["batch"].to_numpy() != order[:20]).any()
    # Each as in its batch.
    drawn = trained.predict("control", donor, transform_batch="d2")
    np.testing.assert_array_equal(drawn.layers["counts"].toarray(), donor.X.toarray())
    new = {
        name: trained.predict("control", donor, n_cells=4000, noise="new", transform_batch=name)
        for name in ("d1", "d2")
    }
    mean = {name: trained.get_counterfactual("control", donor, transform_batch=name).mean(0) for name in new}
    drawn, expected = (x["d2"] - x["d1"] for x in ({k: np.asarray(v.X.mean(0)).ravel() for k, v in new.items()}, mean))
    error = np.sqrt(2 * new["d1"].X.toarray().var(0) / 4000)
    seen = error > 0
    assert seen.sum() > 30
    assert np.mean(((drawn - expected)[seen] / error[seen]) ** 2) < 2


def test_effects_in_a_batch_are_decoded(trained):
    plain = trained.predict_effects("P01")
    assert plain.attrs["kind"] == "posterior"
    assert trained.predict_effects("P01", transform_batch="all").attrs["kind"] == "shifted decoder"
    with pytest.raises(ValueError, match="transform_batch"):
        trained.predict_effects("P01", kind="posterior", transform_batch="d1")


@pytest.mark.parametrize(
    ("asked", "words"), [("d9", "'d9'.*'d1', 'd2', 'd3'"), (["d1", "d9"], "'d9'.*'d1'"), ([], "'d1'"), (1, "'d1'")]
)
@pytest.mark.parametrize("ask", ["predict", "effects", "counterfactual"])
def test_batches_that_are_not_there_are_named(trained, ask, asked, words):
    with pytest.raises(ValueError, match=f"transform_batch=.*{words}"):
        ASKS[ask](trained, transform_batch=asked)


def test_categories_are_named_too(trained, donor):
    donor.obs["phase"] = "M"
    with pytest.raises(ValueError, match=r"obs\['phase'\] has 'M'.*'G1', 'S'"):
        trained.get_counterfactual("P01", donor, transform_batch="all")
    del donor.obs["phase"]
    with pytest.raises(KeyError, match="categorical_covariate_keys='phase'"):
        trained.get_counterfactual("P01", donor, transform_batch="all")
    assert trained.get_latent_representation(donor).shape == (20, 8)


def test_models_without_batches_and_without_data(trained, donor, tmp_path):
    plain = make()
    assert plain.get_counterfactual("P01", donor).shape == (20, 40)
    with pytest.raises(ValueError, match="knows no batches"):
        plain.predict("P01", transform_batch="all")
    trained.save(tmp_path / "m")
    bare = rg.RaptorGraph.load(tmp_path / "m", adata=False)
    with pytest.raises(ValueError, match=r"'d4'.*'d1', 'd2', 'd3'"):
        bare.predict("P01", donor)
    for ask in ("effects", "counterfactual"):
        np.testing.assert_array_equal(*(ASKS[ask](model, donor, transform_batch="all") for model in (bare, trained)))
    assert bare.adata is None
    np.testing.assert_array_equal(*(model.get_latent_representation(donor) for model in (bare, trained)))


def test_numbers_are_names_of_batches():
    scvi.settings.seed = 0
    adata = screen()
    adata.obs["batch"] = adata.obs["batch"].str[1:].astype(int)
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts", batch_key="batch")
    model = rg.RaptorGraph(adata, n_hidden=4)
    model.is_trained_ = True
    query = adata[:5].copy()
    query.obs["batch"] = 7
    with pytest.raises(ValueError, match=r"has 7, which.*knows 1, 2, 3\..*transform_batch=1 takes"):
        model.get_counterfactual("P01", query)
    assert model.get_counterfactual("P01", query, transform_batch=2).shape == (5, 40)
    assert set(next(model.cells.batches(model.cells.query(query, "cells", batch=False)))) == {
        KEYS.X, KEYS.LIBRARY,
    }  # fmt: skip


# -- codes and tensors -------------------------------------------------------------------------------------------------
def registry(*names, batch_key="batch"):
    state = {"state_registry": {"categorical_mapping": np.array(names, dtype=object)}}
    return {"field_registries": {KEYS.BATCH: state}, "setup_args": {"batch_key": batch_key}}


@pytest.mark.parametrize(
    ("asked", "codes"),
    [(None, None), ("all", [0, 1, 2]), ("d2", [1]), (["d3", "d1", "d3"], [0, 2]), (np.array(["d3"]), [2])],
)
def test_codes_of_the_batches_that_are_asked_for(asked, codes):
    assert transform_codes(registry("d1", "d2", "d3"), asked) == codes


def test_a_batch_may_be_called_all():
    assert transform_codes(registry("all", "x"), "all") == [0]
    assert transform_codes(registry(3, 5), 5) == [1]
    with pytest.raises(ValueError, match="knows no batches"):
        transform_codes(registry(batch_key=None), "all")


def test_cells_in_other_batches():
    x, own = torch.ones(3, 2), torch.tensor([[0], [2], [1]])
    cells = {KEYS.X: x, KEYS.BATCH: own}
    (same,) = in_each(cells, None)
    assert same is cells
    assert [one[KEYS.BATCH].ravel().tolist() for one in in_each(cells, [2, 0])] == [[2, 2, 2], [0, 0, 0]]
    placed = in_batch(cells, torch.tensor([1, 0, 1]))
    assert placed[KEYS.BATCH].tolist() == [[1], [0], [1]]
    assert placed[KEYS.X] is x
    assert cells[KEYS.BATCH] is own
