"""Mean effects by the decoder, against cells that are decoded one way and the other."""

import numpy as np
import pandas as pd
import pytest
import scvi
import torch

import raptorgraph as rg
from raptorgraph.model._decoded_effects import check_controls, controls_by_group, decoded_effects, offsets_of
from raptorgraph.nn._expectation import FINE

pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module")
def trained():
    scvi.settings.seed = 0
    adata = rg.datasets.simulate(
        50, 4, n_doubles=0, n_control_cells=80, n_cells_per_perturbation=20, n_batches=2, n_truth_cells=10, seed=1
    )
    adata.obs["group"] = np.resize(["a", "b", "b"], adata.n_obs)
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts", batch_key="batch")
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    return model


@torch.inference_mode()
def by_hand(model, rows, mask, offsets, batch=None):
    """Draws of the same cells, decoded without and with the perturbation."""
    manager, module = model.cells.query(), model.module
    drawn = model.latents.draw(manager, rows, np.random.default_rng(5))
    tensors = dict(drawn.tensors)
    if batch is not None:
        tensors["batch"] = torch.full_like(tensors["batch"], batch)
    shifted = drawn.z.clone()
    shifted = module.modulator(shifted, mask[None])
    means = []
    for z, offset in ((drawn.z, offsets[0]), (shifted, offsets[1])):
        location = module.decode(z, module.covariates(tensors), drawn.library, offset)
        means.append(module.distribution.expected_expression(location, drawn.library, **FINE).mean(0))
    return (means[1] - means[0]).numpy()


@pytest.mark.parametrize("calibrated", [False, True])
def test_effects_are_differences_of_the_same_cells(trained, calibrated):
    predictor = trained.predictor
    _, masks = predictor.masks(["P01", "P02+P03"])
    offsets = offsets_of(predictor, masks, calibrated=calibrated)
    assert len(offsets) == 3
    if calibrated:
        for found, mask in zip(offsets, (0 * masks[0], *masks), strict=True):
            assert torch.equal(found, predictor.calibration.offset(mask))
    rows = np.array([3, 5, 8, 13])
    for codes in (None, [1], [0, 1]):
        rng = np.random.default_rng(5)
        found = decoded_effects(predictor, trained.cells.query(), rows, masks, rng, codes=codes, offsets=offsets)
        for effect, mask, offset in zip(found, masks, offsets[1:], strict=True):
            each = [by_hand(trained, rows, mask, (offsets[0], offset), batch) for batch in codes or [None]]
            np.testing.assert_allclose(effect, np.mean(each, axis=0), atol=1e-6)


def test_controls_are_drawn_from_each_group(trained):
    adata, groups = trained.adata, pd.Index(["a", "b"])
    found = [rows for rows, _ in controls_by_group(adata, "group", groups, 20)]
    again = [rows for rows, _ in controls_by_group(adata, "group", groups, 20)]
    for rows, same, group in zip(found, again, groups, strict=True):
        np.testing.assert_array_equal(rows, same)
        assert len(set(rows)) == 20
        assert (adata.obs["group"].iloc[rows] == group).all()
        assert (adata.obs["perturbation"].iloc[rows] == "control").all()
    everyone = np.concatenate([rows for rows, _ in controls_by_group(adata, "group", groups, 1000)])
    assert len(everyone) == (adata.obs["perturbation"] == "control").sum()
    with pytest.raises(ValueError, match="n_cells=0"):
        next(controls_by_group(adata, "group", groups, 0))


def test_groups_without_controls_are_named():
    groups = pd.Index(["a", "b", "c"], name="state")
    check_controls(np.array([0, 0, 1, 1, 2, 2]), groups)
    with pytest.raises(ValueError, match=r"groupby='state'.*fewer than 2: 'b' \(1\), 'c' \(0\). Merge them"):
        check_controls(np.array([0, 0, 1]), groups)
