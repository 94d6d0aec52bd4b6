"""Splits, pairs and batches against what they promise."""

import numpy as np
import pytest
import scvi

import raptorgraph as rg
from raptorgraph.model._splitter import ScreenSplitter


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


def test_an_epoch_passes_over_each_perturbed_cell_once(manager, splitter):
    names = labels(manager)
    sampler = splitter.train_dataloader().sampler
    epochs = [list(sampler) for _ in range(2)]
    for epoch in epochs:
        assert len(epoch) == len(sampler)
        seen = np.concatenate([batch.perturbed for batch in epoch])
        assert sorted(seen) == sorted(i for i in splitter.train_idx if names[i] != "control")
        partners = np.concatenate([batch.controls for batch in epoch])
        assert set(names[partners]) == {"control"}
        assert set(partners) <= set(splitter.train_idx)
        # a condition of 27 cells fits into one chunk: at most two batches share it
        for name in set(names) - {"control"}:
            assert sum((names[batch.perturbed] == name).any() for batch in epoch) <= 2
    first, second = (np.concatenate([b.perturbed for b in epoch]) for epoch in epochs)
    assert (first != second).any()


def test_partners_follow_the_plan(splitter):
    if splitter.train_split.plan is None:
        pytest.skip("random pairing draws from all controls")
    plan = splitter.train_split.plan
    for batch in splitter.train_dataloader().sampler:
        assert (np.asarray(plan[batch.perturbed, batch.controls]).ravel() > 0).all()


def test_a_batch_holds_what_the_module_reads(manager, splitter):
    names = labels(manager)
    loader = splitter.val_dataloader()
    codes = splitter.codes
    X = manager.adata.X
    for indices, tensors in zip(list(loader.sampler), loader, strict=True):
        np.testing.assert_array_equal(tensors["X"].numpy(), X[indices.controls].toarray())
        np.testing.assert_array_equal(tensors["partner"]["X"].numpy(), X[indices.perturbed].toarray())
        condition = np.unique(codes[indices.perturbed])[tensors["condition"].numpy()]
        np.testing.assert_array_equal(condition, codes[indices.perturbed])
        # shifts are those of the validation cells alone
        for k, code in enumerate(np.unique(codes[indices.perturbed])):
            cells = [i for i in splitter.val_idx if codes[i] == code]
            controls = [i for i in splitter.val_idx if names[i] == "control"]
            scale = manager.adata.obs["total_counts"].to_numpy()[:, None]
            expression = np.log1p(1e4 * X.toarray() / scale)
            expected = expression[cells].mean(0) - expression[controls].mean(0)
            np.testing.assert_allclose(tensors["shift"][k].numpy(), expected, rtol=1e-4, atol=1e-5)


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
