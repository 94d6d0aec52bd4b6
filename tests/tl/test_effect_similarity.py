import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

import raptorgraph as rg
from raptorgraph.tl import _effect_blocks, effect_similarity
from raptorgraph.tl._common_direction import CommonDirection


def effects_without_targets(model, labels):
    """Predicted effects, 0 for the genes that a perturbation is of."""
    found = model.predict_effects(labels).astype(float)
    for label in labels:
        found.loc[label, [gene for gene in label.split("+") if gene in found.columns]] = 0.0
    return found


def test_cosines_without_the_perturbed_genes(pairs_model):
    labels = ["P01", "P02", "P01+P02", "P03", "P01+P03"]  # the last was not measured
    found = effect_similarity(pairs_model, ["P01", "P02", ("P02", "P01"), "P03", "P03+P01", "P01"])
    assert list(found.index) == list(found.columns) == labels
    expected = 1 - cdist(*[effects_without_targets(pairs_model, labels)] * 2, "cosine")
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_array_equal(np.diag(found), 1.0)


def test_what_all_have_in_common_is_taken_out(known_screen, monkeypatch):
    model = known_screen.model
    found = effect_similarity(model, kind="specific")
    assert list(found.index) == model.conditions
    values = effects_without_targets(model, model.conditions)
    units = values.div(np.linalg.norm(values, axis=1), axis=0)
    sure = rg.tl.effects(model, max_fdr=0.05, exclude_targets=True)["perturbation"].unique()
    expected = CommonDirection(units.to_numpy(), units.index.isin(sure)).specific()
    np.fill_diagonal(expected, 1.0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # the two halves of one perturbation are each other's nearest
    off = found.to_numpy() - 2 * np.eye(len(found))
    a, b = (model.conditions.index(name) for name in known_screen.twins)
    assert off[a].argmax() == b
    assert off[b].argmax() == a
    assert off[a, b] > 0.4
    monkeypatch.setattr(_effect_blocks, "AT_A_TIME", 5)
    pd.testing.assert_frame_equal(effect_similarity(model, kind="specific"), found, atol=1e-5)


def test_a_baseline_has_no_sure_effects_and_an_answer(known_screen):
    baseline = rg.baselines.Additive(library_size_key="total_counts").fit(known_screen.adata)
    labels = ["P01", "P02", "P03"]
    found = effect_similarity(baseline, labels, kind="specific")
    values = effects_without_targets(baseline, labels)
    units = values.div(np.linalg.norm(values, axis=1), axis=0).to_numpy()
    c = units[2]  # of the first pair the only other one
    a, b = units[0] - (units[0] @ c) * c, units[1] - (units[1] @ c) * c
    assert found.loc["P01", "P02"] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_bad_input(pairs_model):
    with pytest.raises(ValueError, match="kind='pearson'"):
        effect_similarity(pairs_model, kind="pearson")
    with pytest.raises(ValueError, match=r"\['P01'\]: name others"):
        effect_similarity(pairs_model, ["P01", "P01"])
    with pytest.raises(ValueError, match="P77 was not perturbed"):
        effect_similarity(pairs_model, ["P01", "P77"])
