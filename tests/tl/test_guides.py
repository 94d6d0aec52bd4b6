"""Guides of a trained model: one that does nothing is found, and answers by guide read the column of the setup."""

import numpy as np
import pandas as pd
import pytest
import scvi

import raptorgraph as rg
from raptorgraph.model._responders import guide_column
from raptorgraph.tl import guides, responders

COLUMNS = [
    "perturbation", "guide", "n_cells", "share", "share_low", "share_high", "told", "size", "size_low", "size_high",
    "agreement", "agreement_low", "agreement_high", "difference", "p", "q", "disagrees",
]  # fmt: skip


@pytest.fixture(scope="module")
def model(with_few_steps):
    """Three guides for each of five genes, and one for P02 whose cells are control cells in truth."""
    seed, scvi.settings.seed = scvi.settings.seed, 0
    adata = rg.datasets.simulate(
        120, 5, n_doubles=1, n_control_cells=350, n_cells_per_perturbation=100, effect_size=6.0, n_truth_cells=5, seed=2
    )
    labels = adata.obs["perturbation"].astype(str).to_numpy().astype(object)
    number = np.random.default_rng(0).integers(1, 4, adata.n_obs).astype(str)
    names = np.array([f"{label}_{k}" for label, k in zip(labels, number, strict=True)], dtype=object)
    dead = np.flatnonzero(labels == "control")[:35]
    labels[dead], names[dead] = "P02", "P02_dead"
    names[labels == "control"] = None
    adata.obs["perturbation"], adata.obs["sg"] = labels, names
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts", guide_key="sg")
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    with with_few_steps():
        model.train(max_epochs=4, accelerator="cpu", enable_progress_bar=False)
    scvi.settings.seed = seed
    return model


@pytest.fixture(scope="module")
def table(model):
    return guides(model)


def test_the_guide_that_does_nothing_is_found(model, table):
    assert list(table) == COLUMNS
    assert table["perturbation"].drop_duplicates().tolist() == model.conditions
    assert table.loc[table["disagrees"], "guide"].tolist() == ["P02_dead"]
    each = table.set_index("guide")
    assert each.at["P02_dead", "share"] < 0.5 < each.at["P02_1", "share"]
    assert each.at["P02_dead", "size_high"] < 0.5 < each.at["P02_1", "size_low"]
    singles = table[~table["perturbation"].str.contains("+", regex=False)]
    by_gene = singles.groupby("perturbation")[["size", "n_cells"]].apply(
        lambda x: np.average(x["size"], weights=x["n_cells"])
    )
    np.testing.assert_allclose(by_gene, 1.0)


def test_shares_are_those_of_responders(model, table):
    found = responders(model).dropna(subset="guide")
    expected = found.set_index("guide")[["n_cells", "share", "low", "high", "told"]]
    shown = table.set_index("guide")[["n_cells", "share", "share_low", "share_high", "told"]]
    pd.testing.assert_frame_equal(shown, expected.loc[shown.index].set_axis(list(shown), axis=1), check_dtype=False)


def test_answers_read_the_column_of_the_setup(model, table, monkeypatch):
    by_guide = model.get_response_probability()
    pd.testing.assert_series_equal(by_guide, model.get_response_probability(guide_key="sg"))
    cells = model.adata.copy()
    pd.testing.assert_series_equal(model.get_response_probability(cells), by_guide, rtol=1e-4)
    del cells.obs["sg"]
    by_gene = model.get_response_probability(cells)
    dead = (model.adata.obs["sg"] == "P02_dead").to_numpy()
    assert by_guide[dead].mean() < by_gene[dead].mean()
    assert guide_column(model) == "sg"
    found = model.diagnose()
    (row,) = found[found["check"] == "guides"].itertuples()
    assert (row.level, row.concerns) == ("warning", ("P02",))
    assert "Guides of 1 perturbation of 6 disagree" in row.found
    pd.testing.assert_frame_equal(guides(model, "sg"), table)
    monkeypatch.delitem(model.registry_["setup_args"], "guide_key")
    with pytest.raises(ValueError, match="No column of obs is known to have the guides"):
        guides(model)
    pd.testing.assert_series_equal(model.get_response_probability(), by_gene, rtol=1e-4)
    assert "guide" not in responders(model)
    model.adata.obs["sgRNA_id"] = model.adata.obs["sg"]
    try:
        with pytest.raises(ValueError, match="Column 'sgRNA_id' looks like it"):
            guides(model)
    finally:
        del model.adata.obs["sgRNA_id"]


def test_column_is_saved_with_the_model(model, table, tmp_path):
    model.save(tmp_path / "m")
    loaded = rg.RaptorGraphModel.load(tmp_path / "m", model.adata.copy())
    assert loaded.setup_args["guide_key"] == "sg"
    columns = ["guide", "size", "difference", "disagrees"]
    pd.testing.assert_frame_equal(guides(loaded)[columns], table[columns], rtol=1e-6)
    cells = model.adata.copy()
    del cells.obs["sg"]
    with pytest.raises(KeyError, match="guide_key='sg' is not a column"):
        rg.RaptorGraphModel.load(tmp_path / "m", cells)
    bare = rg.RaptorGraphModel.load(tmp_path / "m", adata=False)
    with pytest.raises(ValueError, match="without data"):
        guides(bare)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"guide_key": "nowhere"}, KeyError, "guide_key='nowhere' is not a column"),
        ({"level": 0}, ValueError, "level=0"),
        ({"n_resamples": 3}, ValueError, "n_resamples=3"),
        ({"seed": -1}, ValueError, "seed=-1"),
    ],
)
def test_bad_arguments(model, arguments, error, match):
    with pytest.raises(error, match=match):
        guides(model, **arguments)
