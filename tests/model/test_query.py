"""Other cells in the shape of the training data, or an error that says what they lack."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raptorgraph.model._field import KEYS, LIBRARY_KEY
from raptorgraph.model._query import (
    align_genes,
    check_categories,
    check_genes,
    control_rows,
    known_categories,
    prepare_query,
)
from raptorgraph.screen import Setup

SETUP = Setup("guide", ["NT", "safe"], "_", batch_key="lane")
GENES = ["B", "A"]


@pytest.fixture
def cells():
    counts = np.array([[1.0, 0.0, 5.0], [2.0, 3.0, 0.0], [0.0, 4.0, 1.0]], dtype=np.float32)
    obs = pd.DataFrame({"guide": ["A", "safe", "NT"], "lane": ["x", "y", "x"]}, index=["c0", "c1", "c2"])
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame({"n": range(3)}, index=["A ", "C", "B"]))


def test_genes_are_matched_by_name(cells):
    found, _ = prepare_query(cells, GENES, SETUP, counts=True)
    assert list(found.var_names) == GENES
    np.testing.assert_array_equal(found.X, [[5, 1], [0, 2], [1, 0]])
    np.testing.assert_array_equal(found.obs[LIBRARY_KEY], [6, 2, 1])  # of the genes of the model
    assert list(found.obs["guide"]) == ["A", "safe", "NT"]
    assert list(cells.var_names) == ["A ", "C", "B"]
    assert list(cells.obs) == ["guide", "lane"]
    cells.obs["total"] = [10.0, 20.0, 30.0]
    found, _ = prepare_query(cells, GENES, replace(SETUP, library_size_key="total"), counts=True)
    np.testing.assert_array_equal(found.obs[LIBRARY_KEY], [10, 20, 30])


def test_cells_without_labels_are_taken_for_controls(cells):
    del cells.obs["guide"]
    query, stored = prepare_query(cells, GENES, SETUP, counts=True)
    assert (query.obs["guide"] == "NT").all()
    assert stored is None


def test_queries_of_another_kind_are_refused(cells):
    with pytest.raises(ValueError, match="trained on log values, and these data are not"):
        prepare_query(cells, GENES, SETUP, counts=False)
    with pytest.raises(TypeError, match="adata must be an AnnData, not DataFrame"):
        prepare_query(cells.to_df(), GENES, SETUP, counts=True)
    with pytest.raises(ValueError, match="2 of the model's 3 genes are not in var_names: D, E"):
        check_genes(cells, ["A", "D", "E"])
    cells.var_names = ["A", "A", "B"]
    with pytest.raises(ValueError, match="var_names_make_unique"):
        check_genes(cells, GENES)


def test_the_same_genes_are_ordered_in_place_and_more_on_a_copy(cells):
    some = align_genes(cells, GENES)
    assert some is not cells
    assert list(some.var_names) == GENES
    assert list(some.var["n"]) == [2, 0]
    same = align_genes(cells, ["C", "B", "A"])
    assert same is cells
    assert list(cells.var["n"]) == [1, 2, 0]
    assert align_genes(cells, ["C", "B", "A"]) is cells


def test_controls_where_there_are_some(cells):
    assert list(control_rows(cells, SETUP)) == [1, 2]
    query, _ = prepare_query(cells, GENES, SETUP, counts=True, controls=True)
    assert list(query.obs_names) == ["c1", "c2"]
    np.testing.assert_array_equal(query.X, [[0, 2], [1, 0]])
    assert control_rows(cells[:1], SETUP) is None
    del cells.obs["guide"]
    assert control_rows(cells, SETUP) is None


def test_cells_in_a_file_stay_there(cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    assert align_genes(backed, GENES) is backed
    for controls, rows in ((False, slice(None)), (True, slice(1, None))):
        query, stored = prepare_query(backed, GENES, SETUP, counts=True, controls=controls)
        assert query.X is None
        assert list(query.obs_names) == list(cells.obs_names[rows])
        assert list(query.var_names) == GENES
        np.testing.assert_array_equal(stored[:], cells.X[rows][:, [2, 0]])


def test_categories_that_a_model_knows(cells):
    fields = {
        KEYS.BATCH: {"state_registry": {"categorical_mapping": np.array(["x", "y"], dtype=object)}},
        KEYS.CATEGORICAL: {"state_registry": {"mappings": {"phase": np.array(["G1"], dtype=object)}}},
    }
    registry = {"field_registries": fields, "setup_args": SETUP}
    known = known_categories(registry)
    assert known == {KEYS.BATCH: {"lane": ["x", "y"]}, KEYS.CATEGORICAL: {"phase": ["G1"]}}
    alone = {"field_registries": {}, "setup_args": {**SETUP, "batch_key": None}}
    assert known_categories(alone) == {KEYS.BATCH: {}, KEYS.CATEGORICAL: {}}

    check_categories(cells, known[KEYS.BATCH], "lane")
    with pytest.raises(ValueError, match=r"obs\['lane'\] has 'y', .* knows 'x'\. .*transform_batch='x' takes one"):
        check_categories(cells, {"lane": ["x"]}, "lane")
    with pytest.raises(KeyError, match="categorical_covariate_keys='phase' is not a column .* knows 'G1'. Set these"):
        check_categories(cells, known[KEYS.CATEGORICAL], "lane")
