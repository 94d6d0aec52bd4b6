"""Splits, pairs and batches against what they promise."""

import numpy as np
import pytest
import scvi

import raptorgraph as rg
from raptorgraph.model._splitter import ScreenSplitter
from raptorgraph.pp._pairing import pairing_plan, principal_components


@pytest.fixture(scope="module")
def manager():
    adata = rg.datasets.simulate(
        n_genes=40, n_perturbed=5, n_doubles=3, n_control_cells=100, n_cells_per_perturbation=30, n_truth_cells=20
    )
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    return rg.RaptorGraph(adata).adata_manager


@pytest.fixture(params=["emd", "random"])
def splitter(manager, request):
    scvi.settings.seed = 0
    splitter = ScreenSplitter(manager, batch_size=48, pairing=request.param)
    splitter.setup()
    return splitter


def labels(manager):
    return manager.adata.obs["perturbation"].astype(str).to_numpy()


def test_split_takes_its_share_of_every_condition(manager, splitter):
    names = labels(manager)
    both = np.concatenate([splitter.train_idx, splitter.val_idx])
    assert len(np.unique(both)) == len(both) == len(names)
    for name in set(names):
        n = (names == name).sum()
        assert (names[splitter.train_idx] == name).sum() == round(0.9 * n)


def test_cells_are_paired_within_their_part(manager, splitter):
    names = labels(manager)
    for split, rows in ((splitter.train_split, splitter.train_idx), (splitter.val_split, splitter.val_idx)):
        control = names[rows] == "control"
        np.testing.assert_array_equal(split.controls, rows[control])
        np.testing.assert_array_equal(split.perturbed, rows[~control])
        if splitter.pairing == "random":
            assert split.plan is None
            continue
        components = principal_components(manager.adata.X, library=manager.adata.obs["total_counts"].to_numpy())
        plan = pairing_plan(components[rows], splitter.codes[rows]).toarray()
        np.testing.assert_array_equal(split.plan.toarray()[np.ix_(rows, rows)], plan)
        assert split.plan.sum() == pytest.approx(plan.sum())


def test_loaders_read_the_parts(splitter):
    train, validation = splitter.train_dataloader(), splitter.val_dataloader()
    assert len(train) == splitter.steps_per_epoch == -(-len(splitter.train_split.perturbed) // 48)
    for loader, split in ((train, splitter.train_split), (validation, splitter.val_split)):
        cells = np.concatenate([batch.perturbed for batch in loader.sampler])
        np.testing.assert_array_equal(np.sort(cells), split.perturbed)
    assert train.sampler.shuffle
    assert not validation.sampler.shuffle


def test_parts_that_are_named(manager):
    names = labels(manager)
    train, test = np.flatnonzero(names != "P01"), np.flatnonzero(names == "P01")
    splitter = ScreenSplitter(manager, external_indexing=[train, np.array([], dtype=int), test], pairing="random")
    splitter.setup()
    np.testing.assert_array_equal(splitter.train_idx, train)
    np.testing.assert_array_equal(splitter.test_idx, test)
    assert splitter.val_dataloader() == []
    np.testing.assert_array_equal(splitter.known_rows, train)
    np.testing.assert_array_equal(splitter.known_controls, np.flatnonzero(names == "control"))
    absent = splitter.codes[test[0]]
    assert splitter.train_split.effects.n[absent] == 0
    assert np.isinf(splitter.train_split.effects.variance[absent]).all()
    for parts, words in (
        ([train, test, test], "names a cell twice"), ([[0.5]], "array of integers"), ([train] * 4, "one to three"),
        ([train, [len(names)]], rf"rows from 0 to {len(names)}, and there are {len(names)} cells"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            ScreenSplitter(manager, external_indexing=parts)


def test_bad_shares_are_refused(manager):
    with pytest.raises(ValueError, match="train_size=1.5"):
        ScreenSplitter(manager, train_size=1.5)
    with pytest.raises(ValueError, match="exceed 1"):
        ScreenSplitter(manager, train_size=0.9, validation_size=0.2)
    controls = np.flatnonzero(labels(manager) == "control")
    others = np.flatnonzero(labels(manager) != "control")
    with pytest.raises(ValueError, match="two control"):
        ScreenSplitter(manager, external_indexing=[others, controls])


def test_sums_of_the_parts_give_the_effects_of_their_cells(manager, splitter):
    X, library = manager.screen.source
    codes = splitter.codes
    for split, rows in ((splitter.train_split, splitter.train_idx), (splitter.val_split, splitter.val_idx)):
        values = np.log1p(1e4 * X[rows].toarray() / library[rows][:, None])
        control = values[codes[rows] == 0].mean(axis=0)
        for code in range(1, codes.max() + 1):
            effect = values[codes[rows] == code].mean(axis=0) - control
            np.testing.assert_allclose(split.effects.effect[code], effect, rtol=1e-5, atol=1e-6)
    known, control_mean = splitter.known_effects()
    values = np.log1p(1e4 * X.toarray() / library[:, None])
    np.testing.assert_allclose(control_mean, values[codes == 0].mean(axis=0), rtol=1e-5)
    assert known.n.tolist() == np.bincount(codes).tolist()
    assert splitter.known_log_ratios().n.tolist() == known.n.tolist()
