"""Names of the user's are values wherever something is stored: no name becomes a key of HDF5 or of zarr."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi

import raptorgraph as rg
from raptorgraph.model._export import counterfactual_keys, long_effects

pytestmark = pytest.mark.usefixtures("few_steps")

NAMES = [
    "IFNA/B",
    "a.b c",
    "ß→漢字",
    "x,y\"z'",
    "<b>P</b>",
    "back\\slash",
    "__lead",
    "two\nlines",
    "L" * 200,
    "p.safe-1_",
]
STORES = {
    "h5ad": (lambda adata, path: adata.write_h5ad(path), ad.read_h5ad),
    "zarr": (lambda adata, path: adata.write_zarr(path), ad.read_zarr),
}


@pytest.fixture(scope="module")
def model():
    """Perturbed genes with such names, one of which is not measured, and doubles of them."""
    adata = rg.datasets.simulate(
        30, 10, n_doubles=3, n_control_cells=80, n_cells_per_perturbation=15, n_truth_cells=10, seed=0
    )
    del adata.uns["simulation"]
    name_of = {f"P{i:02d}": name for i, name in enumerate(NAMES, 1)}
    adata.var_names = [name_of.get(name, name) if name != "P02" else "gene/two" for name in adata.var_names]
    labels = [[name_of.get(gene, gene) for gene in label.split("+")] for label in adata.obs["perturbation"]]
    adata.obs["perturbation"] = pd.Categorical(["+".join(genes) for genes in labels])
    adata.obs["total_counts"] = np.maximum(adata.obs["total_counts"], np.asarray(adata.X.sum(axis=1)).ravel())
    adata.obs["lane"] = pd.Categorical(np.resize(["1/2", "a b"], adata.n_obs))
    scvi.settings.seed = 0
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts", batch_key="lane")
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.parametrize("store", STORES)
def test_annotation_survives_whatever_the_names(model, store, tmp_path):
    write, read = STORES[store]
    asked = [*NAMES, next(label for label in model.conditions if "+" in label)]
    model.annotate(counterfactuals=asked)
    path = tmp_path / f"screen.{store}"
    write(model.adata, path)
    back = read(path)
    assert list(back.var_names) == list(model.adata.var_names)
    assert list(back.obs["perturbation"]) == list(model.adata.obs["perturbation"])
    note = back.uns["raptorgraph"]
    assert list(note["perturbed_genes"]) == model.perturbed_genes

    effects, sd = model.predict_effects(model.conditions, return_sd=True)
    for column, expected in (("effect", effects), ("sd", sd)):
        found = note["effects"].pivot(index="perturbation", columns="gene", values=column)
        assert set(found.index) == set(expected.index)
        assert set(found.columns) == set(expected.columns)
        np.testing.assert_array_equal(found.loc[expected.index, expected.columns], expected)
    assert note["effects"]["effect"].dtype == note["effects"]["sd"].dtype == np.float32

    key_of = note["counterfactuals"].set_index("perturbation")["key"]
    assert set(key_of.index) == set(asked)
    assert key_of["p.safe-1_"] == "counterfactual_p.safe-1_"
    assert key_of["IFNA/B"] == "counterfactual_1"
    assert sorted(key_of) == sorted(key for key in back.obsm if key.startswith("counterfactual_"))
    for label, key in key_of.items():
        np.testing.assert_array_equal(back.obsm[key], model.get_counterfactual(label))


def test_another_call_leaves_nothing_of_the_last_one(model):
    model.annotate()
    model.adata.obsm["counterfactual_1"] = mine = np.zeros((model.adata.n_obs, 1))
    model.annotate(counterfactuals=["IFNA/B", "p.safe-1_"])
    assert model.adata.obsm["counterfactual_1"] is mine
    np.testing.assert_array_equal(model.adata.obsm["counterfactual_2"], model.get_counterfactual("IFNA/B"))
    model.annotate(counterfactuals=["__lead", "a.b c"])
    np.testing.assert_array_equal(model.adata.obsm["counterfactual_2"], model.get_counterfactual("a.b c"))
    assert "counterfactual_p.safe-1_" not in model.adata.obsm
    assert "counterfactual___lead" in model.adata.obsm
    model.annotate()
    assert [key for key in model.adata.obsm if key.startswith("counterfactual_")] == ["counterfactual_1"]
    assert model.adata.uns["raptorgraph"]["counterfactuals"].empty
    del model.adata.obsm["counterfactual_1"]


def test_other_cells_get_the_effects_of_the_screen(model):
    query = model.adata[:, ::-1].copy()
    query = query[query.obs["lane"] == "a b"].copy()
    model.annotate(query)
    found = query.uns["raptorgraph"]["effects"].pivot(index="perturbation", columns="gene", values="effect")
    expected = model.predict_effects(model.conditions)
    np.testing.assert_array_equal(found.loc[expected.index, expected.columns], expected)


@pytest.mark.parametrize(
    ("labels", "others", "expected"),
    [
        (["A", "A+B", "A"], (), {"A": "counterfactual_A", "A+B": "counterfactual_A+B"}),
        (["A", "a"], (), {"A": "counterfactual_A", "a": "counterfactual_1"}),
        (["x/y", "1", "2"], (), {"x/y": "counterfactual_3", "1": "counterfactual_1", "2": "counterfactual_2"}),
        (["x/y", "A"], ["counterfactual_1", "counterfactual_A"], {"x/y": "counterfactual_2", "A": "counterfactual_A"}),
        (["L" * 100, "L" * 101], (), {"L" * 100: "counterfactual_" + "L" * 100, "L" * 101: "counterfactual_1"}),
        (["ä", "A\n", "A B"], (), {"ä": "counterfactual_1", "A\n": "counterfactual_2", "A B": "counterfactual_3"}),
    ],
)
def test_keys_of_counterfactuals(labels, others, expected):
    assert counterfactual_keys(labels, others) == expected


def test_a_long_table_has_every_value_beside_its_names():
    wide = pd.DataFrame([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], index=["b", "a"], columns=["z", "y", "x"])
    table = long_effects({"effect": wide, "sd": wide / 10})
    assert table[["perturbation", "gene"]].astype(str).agg("".join, axis=1).tolist() == "bz by bx az ay ax".split()
    assert table["effect"].tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(table["sd"], table["effect"] / 10, rtol=1e-6)


def test_a_saved_model_knows_them(model, tmp_path):
    model.save(tmp_path / "model")
    cells = ad.AnnData(
        model.adata.X, obs=model.adata.obs[["perturbation", "total_counts", "lane"]], var=model.adata.var
    )
    loaded = rg.RaptorGraphModel.load(tmp_path / "model", cells[:, ::-1].copy())
    assert loaded.perturbed_genes == model.perturbed_genes
    assert loaded.conditions == model.conditions
    pd.testing.assert_frame_equal(loaded.predict_effects(NAMES), model.predict_effects(NAMES))


def test_graph_files_hold_them(model, tmp_path):
    import networkx as nx

    rg.tl.write_dag(model, tmp_path / "graph.graphml")
    # XML has no line breaks within an attribute: they are read as blanks
    plain = {" ".join(name.split()) for name in model.latent_names}
    assert {" ".join(name.split()) for name in nx.read_graphml(tmp_path / "graph.graphml")} == plain
    edges = model.get_edges()
    rg.tl.write_dag(model, tmp_path / "graph.csv")
    back = pd.read_csv(tmp_path / "graph.csv", keep_default_na=False)
    assert back[["source", "target"]].to_numpy().tolist() == edges[["source", "target"]].to_numpy().tolist()


def test_cells_for_others_keep_them(model, tmp_path):
    predicted, _ = model.export_to_cell_eval(tmp_path, NAMES[:2], n_cells=5, seed=0)
    back = ad.read_h5ad(tmp_path / "pred.h5ad")
    assert list(back.obs["perturbation"]) == list(predicted.obs["perturbation"])
    assert set(back.obs["perturbation"]) == {"control", *NAMES[:2]}


def test_cells_for_others_need_a_column_that_a_file_can_hold(model, tmp_path, monkeypatch):
    monkeypatch.setitem(model.registry_["setup_args"], "perturbation_key", "a/b")
    with pytest.raises(ValueError, match="'a/b'"):
        model.export_to_cell_eval(tmp_path)
    assert not list(tmp_path.iterdir())
