"""Which estimator answers, decided by the cells and not by the object that holds them."""

import anndata as ad
import numpy as np
import pytest
import scvi

import raptorgraph as rg

pytestmark = pytest.mark.usefixtures("few_steps")

ASKED = ["P01", "P02+P03"]


def make(max_epochs=1, train=None, **kwargs):
    scvi.settings.seed = 0
    adata = rg.datasets.simulate(
        50, 4, n_doubles=2, n_control_cells=90, n_cells_per_perturbation=25, n_batches=2, n_truth_cells=10, seed=1
    )
    adata.obs["phase"] = np.resize(["G1", "S", "M"], adata.n_obs)
    adata.obs["age"] = np.linspace(-1, 1, adata.n_obs)
    rg.RaptorGraph.setup_anndata(
        adata, library_size_key="total_counts", batch_key="batch", categorical_covariate_keys=["phase"],
        continuous_covariate_keys=["age"],
    )  # fmt: skip
    model = rg.RaptorGraph(adata, n_hidden=8, **kwargs)
    model.train(max_epochs=max_epochs, accelerator="cpu", enable_progress_bar=False, **(train or {}))
    return model


@pytest.fixture(scope="module")
def trained():
    return make()


def dense(adata):
    adata.X = adata.X.toarray()
    return adata


def stored_as(kind):
    def change(adata):
        adata.X = adata.X.astype(kind)
        return adata

    return change


def bare(adata):
    """No trace of the registration, nor of the cells' names."""
    keep = ["perturbation", "total_counts", "batch", "phase", "age"]
    obs = adata.obs[keep].reset_index(drop=True)
    obs.index = obs.index.astype(str)
    return ad.AnnData(adata.X, obs=obs, var=adata.var[[]])


def unlabelled(adata):
    adata = adata[adata.obs["perturbation"] == "control"].copy()
    del adata.obs["perturbation"]
    return adata


SAME = {
    "itself": lambda adata: adata, "copy": lambda adata: adata.copy(), "dense": dense,
    "integers": stored_as(np.int32), "small integers": stored_as(np.uint16), "doubles": stored_as(np.float64),
    "cells in another order": lambda adata: adata[np.random.default_rng(0).permutation(adata.n_obs)].copy(),
    "genes in another order": lambda adata: adata[:, ::-1].copy(), "bare": bare, "no labels": unlabelled,
    "one gene more": lambda adata: ad.concat(
        [adata, ad.AnnData(np.ones((adata.n_obs, 1)), obs=adata.obs[[]], var={"more": [0]})], axis=1, merge="first"
    ),
    "controls alone": lambda adata: adata[adata.obs["perturbation"] == "control"].copy(),
    "a view": lambda adata: adata[adata.obs["perturbation"] != "P03"],
}  # fmt: skip


@pytest.mark.parametrize("how", SAME)
def test_the_training_controls_are_known_again(trained, how):
    expected, expected_sd = trained.predict_effects(ASKED, return_sd=True)
    cells = SAME[how](trained.adata if how == "itself" else trained.adata.copy())
    if how == "one gene more":
        cells.obs = trained.adata.obs.copy()
    found, sd = trained.predict_effects(ASKED, cells, return_sd=True)
    assert found.equals(expected)
    assert sd.equals(expected_sd)
    assert found.attrs["kind"] == sd.attrs["kind"] == expected.attrs["kind"] == "posterior"
    assert trained.predict_effects(ASKED, cells, kind="posterior").equals(expected)


def one_count_more(adata):
    row = np.flatnonzero(adata.obs["perturbation"] == "control")[3]
    X = adata.X.tolil()
    X[row, 7] += 1
    adata.X = X.tocsr()
    return adata


def without_a_control(adata):
    return adata[np.arange(adata.n_obs) != np.flatnonzero(adata.obs["perturbation"] == "control")[0]].copy()


def twice_a_control(adata):
    twin = adata[np.flatnonzero(adata.obs["perturbation"] == "control")[:1]].copy()
    twin.obs_names = ["twin"]
    return ad.concat([adata, twin])


def other(column, values):
    def change(adata):
        adata.obs[column] = values(adata.obs[column])
        return adata

    return change


OTHER = {
    "a count": one_count_more, "a cell less": without_a_control, "a cell twice": twice_a_control,
    "library sizes": other("total_counts", lambda x: x + 1),
    "batches": other("batch", lambda x: x.iloc[::-1].to_numpy()),
    "categories": other("phase", lambda x: np.roll(x, 1)), "covariates": other("age", lambda x: x + 0.1),
    "labels": other("perturbation", lambda x: x.astype(str).replace({"P01": "control"})),
}  # fmt: skip


@pytest.mark.parametrize("how", OTHER)
def test_other_controls_are_decoded(trained, how):
    cells = OTHER[how](trained.adata.copy())
    found = trained.predict_effects(ASKED, cells)
    assert found.attrs["kind"] == "shifted decoder"
    expected = trained.predict_effects(ASKED)
    assert not found.equals(expected)
    np.testing.assert_allclose(found, expected, atol=0.1)  # the decoder is brought to the posterior
    with pytest.raises(ValueError, match="leave out `adata`"):
        trained.predict_effects(ASKED, cells, return_sd=True)


def test_kinds_are_named(trained):
    plain = trained.predict_effects(ASKED, kind="decoder")
    assert plain.attrs["kind"] == "decoder"
    assert trained.predict_effects(ASKED, trained.adata.copy(), kind="decoder").equals(plain)


def test_saved_models_know_their_controls(trained, tmp_path):
    trained.save(tmp_path / "m", save_anndata=True)
    expected = trained.predict_effects(ASKED)
    cells = bare(trained.adata)[::-1, ::-1].copy()
    without = rg.RaptorGraph.load(tmp_path / "m", adata=False)
    with_data = rg.RaptorGraph.load(tmp_path / "m")
    with_other = rg.RaptorGraph.load(tmp_path / "m", without_a_control(bare(trained.adata)))
    for model in (without, with_data, with_other):
        assert model.predict_effects(ASKED).equals(expected)
        found = model.predict_effects(ASKED, cells)
        assert found.equals(expected)
        assert found.attrs["kind"] == "posterior"
    assert with_other.predict_effects(ASKED, with_other.adata).attrs["kind"] == "shifted decoder"


def test_controls_kept_for_a_test_are_no_other_controls():
    model = make(train={"train_size": 0.6, "validation_size": 0.2})
    expected = model.predict_effects(ASKED)
    assert model.predict_effects(ASKED, model.adata.copy()).equals(expected)
    known = np.sort(np.concatenate([model.train_indices, model.validation_indices]))
    assert len(known) < model.adata.n_obs
    assert model.predict_effects(ASKED, model.adata[known].copy()).equals(expected)


def test_annotation_does_not_depend_on_the_object(trained, tmp_path):
    own, copy = trained.adata, trained.adata.copy()
    part = copy[(copy.obs["perturbation"] != "control") | (np.arange(copy.n_obs) % 3 == 0)].copy()
    order = np.random.default_rng(0).permutation(copy.n_obs)
    shuffled = copy[order].copy()
    for cells in (None, copy, part, shuffled):
        trained.annotate(cells, counterfactuals=["P02"])
    for cells, rows in ((copy, slice(None)), (part, own.obs_names.get_indexer(part.obs_names)), (shuffled, order)):
        found, expected = cells.uns["raptorgraph"], own.uns["raptorgraph"]
        assert found["effects"].equals(expected["effects"])
        assert found["dag"].equals(expected["dag"])
        assert found["settings"] == expected["settings"]
        assert found["settings"]["effects"] == "posterior"
        for key in ("X_raptorgraph", "X_raptorgraph_exogenous", "counterfactual_P02"):
            np.testing.assert_allclose(cells.obsm[key], own.obsm[key][rows], atol=1e-5)
    copy.write_h5ad(tmp_path / "copy.h5ad")
    assert ad.read_h5ad(tmp_path / "copy.h5ad").uns["raptorgraph"]["settings"]["effects"] == "posterior"


def test_a_model_without_posterior_says_so():
    model = make(effect_posterior=False)
    effects = model.predict_effects(ASKED)
    assert effects.attrs["kind"] == "decoder"
    assert model.predict_effects(ASKED, model.adata.copy()).equals(effects)
    copy = model.adata.copy()
    model.annotate(copy)
    assert copy.uns["raptorgraph"]["settings"]["effects"] == "decoder"
    found = copy.uns["raptorgraph"]["effects"].pivot(index="perturbation", columns="gene", values="effect")
    np.testing.assert_array_equal(found.loc[ASKED, effects.columns], effects)
