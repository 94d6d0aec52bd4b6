"""A screen whose labels come from guides in another modality."""

import contextlib
from importlib.metadata import version

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scvi
from packaging.version import Version

import raptorgraph as rg
from raptorgraph.model._field import MASK_KEY

pytestmark = pytest.mark.usefixtures("few_steps")

MODALITIES = {"expression": "rna", "guides": "crispr"}


@pytest.fixture(autouse=True)
def seeded():
    scvi.settings.seed = 0


def simulated(n_batches=1):
    return rg.datasets.simulate(
        n_genes=60, n_perturbed=5, n_control_cells=120, n_cells_per_perturbation=40, n_doubles=3, n_truth_cells=50,
        targets_without_gene=0.2, seed=1, n_batches=n_batches,
    )  # fmt: skip


def guide_counts(adata, seed=0):
    """Two guides a gene and two that do nothing, ambient counts, no count in 9 cells, three genes in 6."""
    rng = np.random.default_rng(seed)
    genes = [f"P0{i}" for i in range(1, 6)]
    targets = np.repeat([*genes, "non-targeting"], 2)
    counts = rng.poisson(0.1, size=(adata.n_obs, len(targets)))
    for i, label in enumerate(adata.obs["perturbation"]):
        for part in label.split("+"):
            own = np.flatnonzero(targets == part.replace("control", "non-targeting"))
            counts[i, rng.choice(own)] += 30 + rng.poisson(30)
    counts[:9] = 0
    counts[20:26, [0, 2, 4]] += 40
    names = [f"g{i}" for i in range(len(targets))]
    var = pd.DataFrame({"target": targets}, index=names)
    return ad.AnnData(counts.astype(np.float32), obs=adata.obs[[]].copy(), var=var)


def screen(**kwargs):
    """MuData with two guides a gene, and the labels that they were made from."""
    adata = simulated(**kwargs)
    guides = guide_counts(adata)
    labels = adata.obs.pop("perturbation").astype(str)
    return md.MuData({"rna": adata, "crispr": guides}), labels


def setup(mdata, **kwargs):
    arguments = {"modalities": MODALITIES, "library_size_key": "total_counts", "no_guide": "drop", "too_many": "drop"}
    rg.RaptorGraph.setup_mudata(mdata, **{**arguments, **kwargs})


def train(model, max_epochs=3):
    model.train(max_epochs=max_epochs, enable_progress_bar=False, accelerator="cpu")
    return model


@pytest.fixture(scope="module")
def trained():
    scvi.settings.seed = 0
    mdata, labels = screen()
    setup(mdata)
    return train(rg.RaptorGraph(mdata), max_epochs=5), mdata, labels


def test_setup_labels_drops_reorders_and_registers(trained):
    model, mdata, labels = trained
    cells = mdata["rna"]
    assert model.adata is cells
    assert mdata.n_obs == cells.n_obs == mdata["crispr"].n_obs == len(labels) - 15
    assert (cells.obs["perturbation"].astype(str) == labels[cells.obs_names]).all()
    assert list(mdata.var_names) == [*cells.var_names, *mdata["crispr"].var_names]
    present = [gene for gene in model.perturbed_genes if gene in set(cells.var_names)]
    assert len(present) == 4
    assert list(cells.var_names[:4]) == present
    assert MASK_KEY in cells.obsm
    assert MASK_KEY not in mdata["crispr"].obsm


def test_the_same_model_as_from_an_anndata(trained):
    model, _, labels = trained
    adata = simulated()[model.adata.obs_names].copy()
    assert (adata.obs["perturbation"].astype(str) == labels[adata.obs_names]).all()
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    assert list(adata.var_names) == list(model.adata.var_names)
    scvi.settings.seed = 0
    other = train(rg.RaptorGraph(adata), max_epochs=5)
    asked = ["P01", "P02+P01"]
    np.testing.assert_array_equal(other.predict_effects(asked), model.predict_effects(asked))
    np.testing.assert_array_equal(other.get_latent_representation(), model.get_latent_representation())


def test_setup_is_idempotent(trained):
    _, mdata, _ = trained
    copy = mdata.copy()
    setup(copy)
    pd.testing.assert_frame_equal(copy["rna"].obs, mdata["rna"].obs)
    assert list(copy.var_names) == list(mdata.var_names)
    np.testing.assert_array_equal(copy["rna"].X.toarray(), mdata["rna"].X.toarray())
    with pytest.raises(ValueError, match="[Cc]opy"):
        rg.RaptorGraph(mdata.copy())


@pytest.mark.parametrize("pull", [None, False])
def test_the_whole_follows_the_order_of_its_genes(pull):
    # mudata from 0.4 on pulls no columns; the versions before do by default, and announce it
    mdata, _ = screen()
    before = mdata.var_names.copy()
    numbers = np.arange(float(mdata.n_vars))
    mdata.var["number"], mdata.varm["number"] = numbers, numbers[:, None]
    if pull is False:
        mdata.varp["number"] = np.subtract.outer(numbers, 1000 * numbers)
    with pull_on_update(pull):
        setup(mdata)
        copy = mdata.copy()
    order = before.get_indexer([*mdata["rna"].var_names, *mdata["crispr"].var_names])
    assert (order != numbers).any()
    for found in (mdata, copy):
        assert list(found.var_names) == list(before[order])
        np.testing.assert_array_equal(found.var["number"], order)
        np.testing.assert_array_equal(found.varm["number"].ravel(), order)
        np.testing.assert_array_equal(found.varmap["rna"], [*range(1, 61), *[0] * 12])
        np.testing.assert_array_equal(found[:, "G0005"]["rna"].X.toarray(), mdata["rna"][:, "G0005"].X.toarray())
    if pull is False:
        np.testing.assert_array_equal(mdata.varp["number"], np.subtract.outer(order, 1000 * order))


def pull_on_update(pull):
    """What `MuData.update` does with columns of the modalities, where that is asked of mudata before 0.4."""
    old = Version(version("mudata")) < Version("0.4")
    return md.set_options(pull_on_update=pull) if old else contextlib.nullcontext()


def test_undecided_cells_are_an_error_that_names_the_choices():
    mdata, _ = screen()
    before = mdata.copy()
    with pytest.raises(ValueError, match="9 have no guide: no_guide='drop'.*6 have guides of more than 2 genes"):
        setup(mdata, no_guide=None, too_many=None)
    with pytest.raises(ValueError, match="6 have guides.*too_many='top'"):
        setup(mdata, too_many=None)
    with pytest.raises(ValueError, match="Of 440 cells, 9 have no guide"):
        setup(mdata, no_guide=None)
    # Errors of the setup itself come before anything is written, too.
    for wrong in ({"batch_key": "donor"}, {"layer": "spliced"}, {"library_size_key": "umis"}):
        with pytest.raises(KeyError):
            setup(mdata, **wrong)
    mdata["rna"].X.data[-1] = -1
    with pytest.raises(ValueError, match="negative"):
        setup(mdata)
    mdata["rna"].X.data[-1] = before["rna"].X.data[-1]
    for name in mdata.mod:
        pd.testing.assert_frame_equal(mdata[name].obs, before[name].obs)
        pd.testing.assert_frame_equal(mdata[name].var, before[name].var)
        assert not mdata[name].uns.keys() & {"raptorgraph_guides", "_scvi_uuid"}
    assert not mdata.uns


def test_choices_other_than_dropping():
    mdata, labels = screen()
    setup(mdata, no_guide="control", too_many="top", guide_kwargs={"min_counts": 3})
    found = mdata["rna"].obs["perturbation"].astype(str)
    assert len(found) == len(labels)
    assert (found.iloc[:9] == "control").all()
    assert found.iloc[20:26].str.count(r"\+").max() == 1
    same = np.r_[9:20, 26 : len(labels)]
    assert (found.iloc[same] == labels.iloc[same]).all()
    mdata, _ = screen()
    setup(mdata, guide_kwargs={"max_genes": 4})
    assert max(len(label.split("+")) for label in rg.RaptorGraph(mdata).conditions) > 2


def test_assignments_maps_and_other_names():
    mdata, labels = screen()
    guides = mdata["crispr"]
    targets = guides.var.pop("target").replace("non-targeting", "NT")
    guides.layers["assigned"] = (guides.X >= 5).astype(np.float32)
    setup(
        mdata,
        guide_targets=targets,
        control=["ctrl", "NT"],
        delimiter="_",
        perturbation_key="genes",
        guide_kwargs={"layer": "assigned", "method": "assigned"},
    )
    found = mdata["rna"].obs["genes"].astype(str)
    expected = labels[found.index].str.replace("+", "_").replace("control", "ctrl")
    assert (found == expected).all()
    model = train(rg.RaptorGraph(mdata), max_epochs=1)
    assert model.predict("P01_P02", n_cells=5).obs["perturbation"].tolist() == ["P01_P02"] * 5


def test_labels_that_are_there_need_no_guides():
    mdata, labels = screen(n_batches=2)
    batch = mdata["rna"].obs.pop("batch")
    mdata.obs["condition"] = labels.reindex(mdata.obs_names)
    mdata.obs["batch"] = batch.reindex(mdata.obs_names)
    arguments = {"no_guide": None, "too_many": None, "batch_key": "batch", "perturbation_key": "condition"}
    setup(mdata, modalities={"expression": "rna"}, **arguments)
    assert (mdata["rna"].obs["condition"] == labels).all()
    model = rg.RaptorGraph(mdata)
    assert model.summary_stats["n_batch"] == 2
    # Whole covariates serve queries too.
    query = md.MuData({"rna": simulated()})
    query.obs["batch"] = batch.reindex(query.obs_names)
    assert train(model, 1).get_latent_representation(query).shape == (440, 9)


def test_guides_that_were_called_before_are_not_called_over():
    mdata, _ = screen()
    choices = {"no_guide": "drop", "too_many": "drop"}
    rg.pp.assign_guides(mdata, "crispr", expression="rna", min_counts=60, **choices)
    labels = mdata["rna"].obs["perturbation"].copy()
    with pytest.raises(ValueError, match="'min_counts': 60.*not with.*'min_counts': 5.*Leave 'guides' out"):
        setup(mdata)
    setup(mdata, guide_kwargs={"min_counts": 60})
    setup(mdata, modalities={"expression": "rna"}, no_guide=None, too_many=None)
    pd.testing.assert_series_equal(mdata["rna"].obs["perturbation"], labels)


def test_wrong_arguments_are_named():
    mdata, _ = screen()
    with pytest.raises(ValueError, match="modalities={'expression': 'rna', 'guides': ...}"):
        setup(mdata, modalities={"guides": "crispr"})
    with pytest.raises(ValueError, match="'rna_layer'"):
        setup(mdata, modalities={**MODALITIES, "rna_layer": "rna"})
    with pytest.raises(KeyError, match="gdo"):
        setup(mdata, modalities={"expression": "rna", "guides": "gdo"})
    with pytest.raises(TypeError, match="min_umis.*min_counts"):
        setup(mdata, guide_kwargs={"min_umis": 3})
    with pytest.raises(TypeError, match="setup_anndata"):
        setup(mdata["rna"])
    with pytest.raises(TypeError, match="setup_mudata"):
        rg.RaptorGraph.setup_anndata(mdata)
    with pytest.raises(ValueError, match="setup_mudata first"):
        rg.RaptorGraph(mdata)
    with pytest.raises(ValueError, match="copy"):
        setup(mdata[:100])
    mdata["rna"].obs["perturbation"] = "mine"
    with pytest.raises(ValueError, match="is there already"):
        setup(mdata)


def test_methods_take_a_mudata(trained):
    model, mdata, _ = trained
    np.testing.assert_array_equal(model.get_latent_representation(mdata), model.get_latent_representation())
    np.testing.assert_array_equal(model.predict_effects("P01", mdata), model.predict_effects("P01"))
    np.testing.assert_array_equal(model.get_counterfactual("P01", mdata), model.get_counterfactual("P01", mdata["rna"]))
    same = (model.predict("P01", source, n_cells=20, seed=0).X.toarray() for source in (mdata, None))
    np.testing.assert_array_equal(*same)
    copy = mdata.copy()
    model.annotate(copy)
    np.testing.assert_array_equal(copy["rna"].obsm["X_raptorgraph"], model.get_latent_representation())
    with pytest.raises(TypeError, match=r"mdata\['rna'\]"):
        rg.RaptorGraph._get_most_recent_anndata_manager(mdata)


def test_cells_of_another_mudata(trained):
    model, _, labels = trained
    query, _ = screen()
    all_cells = model.get_latent_representation(query)
    assert all_cells.shape == (len(labels), 9)
    assert "perturbation" not in query["rna"].obs
    for method in (model.predict, model.predict_effects):
        with pytest.raises(ValueError, match="assign_guides"):
            method("P01", query)
    assert model.predict("P01", query["rna"]).n_obs == len(labels)  # from all cells, as asked
    rg.pp.assign_guides(query, "crispr", expression="rna", no_guide="drop", too_many="drop")
    n_controls = int((query["rna"].obs["perturbation"] == "control").sum())
    assert model.predict("P01", query).n_obs == n_controls < len(query["rna"])


def test_a_model_of_an_anndata_says_so():
    adata = simulated()
    rg.RaptorGraph.setup_anndata(adata)
    model = train(rg.RaptorGraph(adata), 1)
    with pytest.raises(ValueError, match="set up with an AnnData"):
        model.get_latent_representation(screen()[0])


def test_save_and_load(trained, tmp_path):
    model, mdata, _ = trained
    expected = model.get_latent_representation()
    model.save(tmp_path / "m", save_anndata=True)
    with_data = rg.RaptorGraph.load(tmp_path / "m")
    np.testing.assert_array_equal(with_data.get_latent_representation(), expected)
    fresh, _ = screen()
    loaded = rg.RaptorGraph.load(tmp_path / "m", fresh)  # calls the guides as in training
    np.testing.assert_array_equal(loaded.get_latent_representation(), expected)
    assert loaded.adata is fresh["rna"]
    assert list(fresh["rna"].obs["perturbation"]) == list(mdata["rna"].obs["perturbation"])
    assert list(fresh.var_names) == list(mdata.var_names)
    np.testing.assert_array_equal(loaded.predict_effects("P01"), model.predict_effects("P01"))
    again = rg.RaptorGraph.load(tmp_path / "m", fresh)  # which has labels by now
    np.testing.assert_array_equal(again.get_latent_representation(fresh), expected)
    fresh.write_h5mu(tmp_path / "fresh.h5mu")
    back = md.read_h5mu(tmp_path / "fresh.h5mu")
    setup(back)
    pd.testing.assert_frame_equal(back["rna"].obs, fresh["rna"].obs, check_categorical=False)
    np.testing.assert_array_equal(rg.RaptorGraph.load(tmp_path / "m", back).get_latent_representation(), expected)
    of_cells = rg.RaptorGraph.load(tmp_path / "m", fresh["rna"].copy())
    np.testing.assert_array_equal(of_cells.get_latent_representation(), expected)
    bare = rg.RaptorGraph.load(tmp_path / "m", adata=False)
    np.testing.assert_array_equal(bare.get_latent_representation(fresh), expected)
    of_cells.save(tmp_path / "again")
    np.testing.assert_array_equal(
        rg.RaptorGraph.load(tmp_path / "again", screen()[0]).get_latent_representation(), expected
    )


def test_presets_take_a_mudata():
    mdata, _ = screen()
    setup(mdata)
    model = rg.RaptorGraph.from_preset(mdata, "paper", n_hidden=8)
    assert model.adata is mdata["rna"]
    assert len(model.latent_names) == 9


def test_papalexi(shared_data):
    adata = ad.read_h5ad(shared_data / "papalexi2021_eccite.h5ad")[::4].copy()
    published = adata.obs["perturbation"].astype(str)
    counts, names, targets = adata.obsm.pop("grna_counts"), adata.uns["grna_ids"], adata.uns["grna_targets"]
    adata.obs = adata.obs[["bio_rep"]]
    var = pd.DataFrame({"target": targets}, index=names)
    mdata = md.MuData({"rna": adata, "gdo": ad.AnnData(counts, obs=adata.obs[[]].copy(), var=var)})
    modalities = {"expression": "rna", "guides": "gdo"}
    with pytest.raises(ValueError, match="have guides of more than 2 genes"):
        rg.RaptorGraph.setup_mudata(mdata, modalities=modalities)
    rg.RaptorGraph.setup_mudata(mdata, modalities=modalities, too_many="drop", batch_key="bio_rep")
    labels = mdata["rna"].obs["perturbation"].astype(str)
    singles = ~labels.str.contains("+", regex=False)
    assert 300 < (~singles).sum() < 500  # of a quarter of the cells
    assert (labels == published[labels.index])[singles].mean() > 0.985
    model = train(rg.RaptorGraph(mdata, n_hidden=16, graph="fixed"), max_epochs=1)
    assert len(model.perturbed_genes) == 25
    assert list(mdata["rna"].var_names[:9]) == model.perturbed_genes[:9]
    assert model.predict("STAT1+JAK2", n_cells=10).obs["perturbation"].unique().tolist() == ["JAK2+STAT1"]
    effects = model.predict_effects(["JAK2", "STAT1"])
    assert (effects["JAK2"]["JAK2"], effects["STAT1"]["STAT1"]) < (0, 0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"control": None}, ValueError, "control=None must be a label"),
        ({"categorical_covariate_keys": "phase"}, TypeError, "must be a list"),
        ({"continuous_covariate_keys": ["words"]}, ValueError, "continuous_covariate_keys: 'words' holds text"),
        ({"library_size_key": "factor"}, ValueError, "library_size_key='factor': .*100%"),
        ({"layer": 3}, TypeError, "layer=3 must be"),
        ({"guide_targets": None}, TypeError, "guide_targets=None must be"),
        ({"guide_kwargs": "min_counts"}, TypeError, "guide_kwargs='min_counts' must be a dict"),
        ({"guide_kwargs": {"non_targeting": 5}}, TypeError, "non_targeting=.* all strings"),
        ({"guide_kwargs": {"min_fraction": float("nan")}}, ValueError, "min_fraction=nan"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_written(arguments, error, message):
    mdata, _ = screen()
    mdata["rna"].obs = mdata["rna"].obs.assign(words="a", factor=1.0)
    before = mdata.copy()
    with pytest.raises(error, match=message):
        setup(mdata, **arguments)
    for name, part in before.mod.items():
        pd.testing.assert_frame_equal(mdata[name].obs, part.obs)
        assert list(mdata[name].var_names) == list(part.var_names)
        assert set(mdata[name].uns) == set(part.uns)
    assert set(mdata.uns) == set(before.uns)


def test_called_guides_can_be_the_column_of_guides():
    mdata, _ = screen()
    setup(mdata, guide_key="perturbation_guides")
    model = rg.RaptorGraph(mdata, n_hidden=4)
    assert model.setup_args["guide_key"] == "perturbation_guides"
    single = model.adata.obs["perturbation"] == "P01"
    assert set(model.adata.obs.loc[single, "perturbation_guides"]) <= {"g0", "g1", "g0|g1"}


def test_column_of_guides_comes_from_the_whole_and_is_checked_before_anything_is_written():
    mdata, labels = screen()
    mdata.obs["construct"] = labels.reindex(mdata.obs_names) + "_1"
    setup(mdata, guide_key="construct")
    assert (mdata["rna"].obs["construct"] == labels[mdata["rna"].obs_names] + "_1").all()
    other, _ = screen()
    other.obs["construct"] = "one"
    with pytest.raises(ValueError, match="'one' is in cells of"):
        setup(other, guide_key="construct")
    assert "perturbation" not in other["rna"].obs
