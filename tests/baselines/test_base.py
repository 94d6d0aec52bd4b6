import json

import numpy as np
import pandas as pd
import pytest

from raptorgraph import tl
from raptorgraph.baselines import Additive
from raptorgraph.baselines._base import draw_controls, stack_cells


def test_a_table_of_interactions(effects):
    table = tl.interactions(Additive().fit(effects.trained()))
    assert len(table) == 28
    np.testing.assert_allclose(table["synergy"], 1)
    assert (table["interaction"] == "undetermined").all()
    assert table["measured"].sum() == 20


def test_setup_args_are_a_dict_of_the_arguments():
    baseline = Additive("guide", control=["nt", "safe"], delimiter="_", layer="counts", batch_key="lane")
    assert json.loads(json.dumps(baseline.setup_args | {"layer": None}))["layer"] is None
    assert baseline.setup_args == {
        "perturbation_key": "guide",
        "control": ["nt", "safe"],
        "delimiter": "_",
        "layer": "counts",
        "library_size_key": None,
        "batch_key": "lane",
    }


def test_a_change_of_setup_args_counts(effects):
    baseline = Additive("guide")
    baseline.setup_args["perturbation_key"] = "perturbation"
    assert baseline.fit(effects.trained()).perturbed_genes == effects.genes


def test_labels_are_those_of_the_setup(effects):
    adata = effects.screen({"P2+P0": effects.sums(["P0+P2"])[0]})
    adata.obs["guide"] = adata.obs["perturbation"].str.replace("+", "|").replace("control", "nt")
    baseline = Additive("guide", control="nt", delimiter="|").fit(adata)
    assert baseline.perturbed_genes == effects.genes
    assert baseline.conditions == ["P0", "P0|P2", *effects.genes[1:]]
    assert list(baseline.predict_effects(["P2|P0|nt", "nt"]).index) == ["P0|P2", "nt"]


@pytest.mark.parametrize("kwargs", [{"control": ""}, {"control": []}, {"delimiter": ""}])
def test_empty_spelling(kwargs):
    with pytest.raises(ValueError, match="must be"):
        Additive(**kwargs)


def test_a_batch_is_no_perturbation():
    with pytest.raises(ValueError, match="batch_key='perturbation' is the perturbation_key"):
        Additive(batch_key="perturbation")


def test_control_cells_are_all_or_drawn():
    np.testing.assert_array_equal(draw_controls(5, None, 0), range(5))
    np.testing.assert_array_equal(draw_controls(5, 5, 0), range(5))
    few = draw_controls(9, 4, 1)
    np.testing.assert_array_equal(few, np.sort(np.random.default_rng(1).choice(9, 4, replace=False)))
    assert len(set(few)) == 4
    many = draw_controls(3, 50, 0)
    np.testing.assert_array_equal(many, np.sort(many))
    assert set(many) == {0, 1, 2}
    with pytest.raises(ValueError, match="n_cells=0"):
        draw_controls(3, 0, 0)


def test_cells_of_several_perturbations_are_stacked():
    var = pd.DataFrame({"length": [7, 8]}, index=["G0", "G1"])
    X = np.arange(12.0).reshape(6, 2)
    cells = stack_cells(X, ["B", "A"], ["c2", "c5", "c6"], var)
    np.testing.assert_array_equal(cells.X, X)
    assert list(cells.obs["perturbation"]) == ["B"] * 3 + ["A"] * 3
    assert list(cells.obs["perturbation"].cat.categories) == ["B", "A"]
    assert list(cells.obs["control_cell"]) == ["c2", "c5", "c6"] * 2
    assert list(cells.obs_names) == list("012345")
    pd.testing.assert_frame_equal(cells.var, var)
    cells.var["length"] = 0
    assert list(var["length"]) == [7, 8]
