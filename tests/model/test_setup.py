"""A screen is checked as a whole before it is registered, and only then changed."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import raptorgraph as rg
from raptorgraph.model._field import KEYS
from raptorgraph.model._setup import check_screen, check_transfer, perturbed_genes_first, screen_manager
from raptorgraph.screen import Setup


def screen(**kwargs):
    arguments = {
        "n_genes": 60, "n_perturbed": 5, "n_control_cells": 120, "n_cells_per_perturbation": 40, "n_doubles": 3,
        "n_truth_cells": 50, "targets_without_gene": 0.2, "seed": 1,
    }  # fmt: skip
    return rg.datasets.simulate(**{**arguments, **kwargs})


def small(labels=("control", "control", "B", "A+B") * 3):
    obs = pd.DataFrame({"perturbation": labels}, index=[f"c{i}" for i in range(len(labels))])
    X = np.arange(1.0, 1 + 3 * len(labels), dtype=np.float32).reshape(-1, 3)
    return ad.AnnData(X, obs=obs.assign(lane=["x", "y"] * 6, total=100.0), var=pd.DataFrame(index=["C", "B", "A"]))


def test_what_a_screen_has():
    library, parsed = check_screen(small(), Setup())
    np.testing.assert_array_equal(library, 6 + 9 * np.arange(12))
    assert parsed.conditions == ((), ("A", "B"), ("B",))
    library, _ = check_screen(small(), Setup(library_size_key="total"))
    np.testing.assert_array_equal(library, 100)
    adata = small()
    adata.X = np.log1p(adata.X)
    assert check_screen(adata, Setup())[0] is None
    with pytest.raises(TypeError, match="must be an AnnData, not DataFrame"):
        check_screen(adata.obs, Setup())


def test_perturbed_genes_come_first():
    adata = small()
    perturbed_genes_first(adata, ["A", "B", "missing"])
    assert list(adata.var_names) == ["A", "B", "C"]
    np.testing.assert_array_equal(adata.X[0], [3, 2, 1])
    X = adata.X
    perturbed_genes_first(adata, ["A", "B"])
    assert adata.X is X


def test_a_manager_has_the_fields_that_are_asked_for():
    setup = Setup(batch_key="lane")
    found = {field.registry_key for field in screen_manager(setup, counts=True).fields}
    assert found == {KEYS.X, KEYS.PERTURBATION, KEYS.BATCH, KEYS.CATEGORICAL, KEYS.CONTINUOUS, KEYS.LIBRARY}
    only = screen_manager(setup, counts=False, only={KEYS.X, KEYS.LIBRARY}).fields
    assert [field.registry_key for field in only] == [KEYS.X]


def test_cells_are_held_against_a_saved_setup_and_stay_as_they_are():
    adata = small()
    rg.RaptorGraphModel.setup_anndata(adata, batch_key="lane")
    registry = rg.RaptorGraphModel(adata, n_hidden=4).registry_
    cells = small(["control", "control", "A", "B"] * 3)
    before = cells.copy()
    check_transfer(cells, registry)
    for name, change, words in (
        ("perturbation", ["control", "control", "A", "D"] * 3, "not trained on: D"),
        ("perturbation", ["control", *["A", "B"] * 5, "A"], r"1 control cell\(s\)"),
        ("lane", ["x", "z"] * 6, r"obs\['lane'\] has 'z'"),
    ):
        cells.obs[name] = change
        with pytest.raises(ValueError, match=words):
            check_transfer(cells, registry)
        cells.obs[name] = before.obs[name]
    cells.X = np.log1p(cells.X)
    with pytest.raises(ValueError, match="trained on counts"):
        check_transfer(cells, registry)
    pd.testing.assert_frame_equal(cells.obs, before.obs)
    assert not cells.obsm
    assert not cells.uns


def test_setup_moves_every_aligned_slot_and_nothing_else():
    adata = screen()
    rng = np.random.default_rng(0)
    adata.layers["double"] = adata.X * 2
    adata.varm["pos"] = np.arange(adata.n_vars)[:, None] * 1.0
    adata.varp["pairs"] = rng.random((adata.n_vars, adata.n_vars))
    adata.var["score"] = rng.random(adata.n_vars)
    adata.raw = adata.copy()
    before = adata.copy()
    rg.RaptorGraph.setup_anndata(adata)
    genes = [g for g in ("P01", "P02", "P03", "P04", "P05") if g in before.var_names]
    assert len(genes) == 4
    assert list(adata.var_names[:4]) == genes
    order = before.var_names.get_indexer(adata.var_names)
    assert sorted(order) == list(range(adata.n_vars))
    for after, expected in [
        (adata.X.toarray(), before.X.toarray()[:, order]),
        (adata.layers["double"].toarray(), before.layers["double"].toarray()[:, order]),
        (adata.varm["pos"], before.varm["pos"][order]),
        (adata.varp["pairs"], before.varp["pairs"][np.ix_(order, order)]),
        (adata.var["score"].to_numpy(), before.var["score"].to_numpy()[order]),
        (adata.raw.X.toarray(), before.raw.X.toarray()),
    ]:
        np.testing.assert_array_equal(after, expected)
    assert list(adata.raw.var_names) == list(before.raw.var_names)
    names, X = list(adata.var_names), adata.X.toarray()
    rg.RaptorGraph.setup_anndata(adata)
    assert list(adata.var_names) == names
    np.testing.assert_array_equal(adata.X.toarray(), X)
