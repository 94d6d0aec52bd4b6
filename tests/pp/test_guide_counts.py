"""Reading guides and calling them, against their definitions and an independent fit of the mixture."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import norm

from raptorgraph.pp._guide_counts import GuideSettings, call_guides, read_guides

TARGETS = {"g1": "A", "g2": "B", "g3": "NT"}


def holder(counts=((9, 0, 3), (0, 7, 0)), **obs):
    names = [f"c{k}" for k in range(len(counts))]
    cells = ad.AnnData(np.zeros((len(counts), 1)), obs=pd.DataFrame(obs, index=names))
    cells.obsm["guides"] = np.array(counts)
    cells.uns |= {"names": list(TARGETS), "genes": list(TARGETS.values())}
    return cells


def settings(**given):
    return GuideSettings(**{"guides": "guides", "guide_names": "names", "targets": TARGETS, **given})


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"method": "best"}, ValueError, "method='best' is unknown; use one of 'threshold', 'mixture', 'assigned'"),
        ({"min_counts": 0}, ValueError, "min_counts=0 is too small"),
        ({"min_counts": True}, TypeError, "min_counts=True"),
        ({"min_fraction": 1.5}, ValueError, "min_fraction=1.5 is out of range"),
        ({"control": " "}, ValueError, "control='' is empty"),
        ({"layer": 3}, TypeError, "layer=3 must be a name"),
        ({"non_targeting": ["NT", 1]}, TypeError, r"non_targeting=\['NT', 1\] must be a target"),
        ({"non_targeting": 1}, TypeError, "non_targeting=1 must be a target"),
        ({"guide_names": 1}, TypeError, "guide_names=1 must be a list"),
        ({"targets": ["A"]}, TypeError, r"targets=\['A'\] must be the name of a column"),
        ({"no_guide": "top"}, ValueError, "no_guide='top' is unknown; use one of 'control', 'drop'"),
        ({"too_many": "top", "calls": "x"}, ValueError, "these are assignments: use 'drop'"),
    ],
)
def test_arguments_are_checked_without_data(given, error, match):
    with pytest.raises(error, match=match):
        settings(**given)


def test_controls_have_the_label_of_cells_first():
    assert settings(control=" ctrl ", non_targeting=["safe", "NT"]).controls == ("ctrl", "safe", "NT")
    assert settings(non_targeting="NT").controls == ("control", "NT")
    assert [settings(**x).has_counts for x in ({}, {"calls": "x"}, {"method": "assigned"})] == [True, False, False]


def test_counts_and_targets_are_read_from_obsm():
    counts, targets = read_guides(holder(), settings(non_targeting="NT"), is_modality=False)
    np.testing.assert_array_equal(counts.toarray(), [[9, 0, 3], [0, 7, 0]])
    assert targets.to_dict() == TARGETS
    _, again = read_guides(holder(), settings(targets="genes", guide_names=list(TARGETS)), is_modality=False)
    pd.testing.assert_series_equal(again, targets)


def test_calls_are_read_with_repeats_blanks_and_missing_ones():
    calls = ["g3; g1", "g2;g2", None, "", "None", "g1"]
    cells = holder(((0, 0, 0),) * 6, calls=calls)
    given = settings(calls="calls", calls_delimiter=";", non_targeting="NT")
    counts, targets = read_guides(cells, given, is_modality=False)
    assert list(targets.index) == ["g1", "g2", "g3"]
    np.testing.assert_array_equal(counts.toarray(), [[1, 0, 1], [0, 1, 0], [0] * 3, [0] * 3, [0] * 3, [1, 0, 0]])
    # a guide may be named so
    given = settings(calls="calls", calls_delimiter=";", non_targeting="NT", targets={**TARGETS, "None": "C"})
    counts, targets = read_guides(cells, given, is_modality=False)
    assert targets.to_dict() == {"None": "C", **TARGETS}
    assert counts.toarray()[:, list(targets.index).index("None")].tolist() == [0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("table", "match"),
    [
        (((9, -1, 3),), "whole numbers from 0; it has -1"),
        (((9, 0.5, 3),), "whole numbers from 0; it has 0.5"),
        (((9, np.inf, 3),), "whole numbers from 0; it has inf"),
        (((1, 0, 1),), "use method='assigned'"),
    ],
)
def test_what_are_no_counts_is_refused(table, match):
    with pytest.raises(ValueError, match=match):
        read_guides(holder(table), settings(), is_modality=False)


def test_text_in_a_table_is_refused():
    cells = holder()
    cells.obsm["guides"] = pd.DataFrame({"g1": ["9", "x"]}, index=cells.obs_names)
    with pytest.raises(ValueError, match=r"obsm\['guides'\] must hold counts .* from 0: could not"):
        read_guides(cells, settings(guide_names=None), is_modality=False)


def test_guides_without_a_target_are_named():
    with pytest.raises(ValueError, match="2 of 3 guides have no target: g2, g3"):
        read_guides(holder(), settings(targets={"g1": "A", "g2": "nan"}), is_modality=False)
    read_guides(holder(), settings(targets={**TARGETS, "g3": "none"}, non_targeting="none"), is_modality=False)
    cells = holder()
    cells.uns["genes"] = ["A", "B"]
    with pytest.raises(ValueError, match=r"uns\['genes'\] has 2 targets for 3 guides"):
        read_guides(cells, settings(targets="genes"), is_modality=False)


def test_called_are_counts_above_both_thresholds():
    counts = sparse.csr_matrix(np.array([[5.0, 4.0, 0.0], [6.0, 100.0, 14.0], [0.0, 0.0, 0.0]]))
    called, thresholds = call_guides(counts, settings(min_counts=5, min_fraction=0.05))
    np.testing.assert_array_equal(called.toarray(), [[1, 0, 0], [1, 1, 1], [0, 0, 0]])  # 6 are 5 % of 120
    assert thresholds.tolist() == [5, 5, 5]
    called, _ = call_guides(counts, settings(min_counts=5, min_fraction=0.06))
    np.testing.assert_array_equal(called.toarray(), [[1, 0, 0], [0, 1, 1], [0, 0, 0]])
    called, thresholds = call_guides(counts, settings(method="assigned"))
    np.testing.assert_array_equal(called.toarray(), counts.toarray() > 0)
    assert thresholds is None
    assert counts.max() == 100  # as it was


def fitted_threshold(values):
    """Smallest count of the upper of two normal components with one variance, by expectation and maximization."""
    x = np.log2(values)
    mean, sd, share = np.quantile(x, [0.1, 0.95]), x.std(), np.full(2, 0.5)
    for _ in range(5000):
        weight = share * norm.pdf(x[:, None], mean, sd)
        weight /= weight.sum(axis=1, keepdims=True)
        share = weight.mean(axis=0)
        mean = (weight * x[:, None]).sum(axis=0) / weight.sum(axis=0)
        sd = np.sqrt((weight * (x[:, None] - mean) ** 2).sum() / len(x))
    # where the densities, times the shares, are equal
    cut = mean.mean() + sd**2 * np.log(share[0] / share[1]) / (mean[1] - mean[0])
    return np.ceil(2**cut)


def test_mixture_has_the_threshold_of_an_independent_fit():
    rng = np.random.default_rng(0)
    ambient, carried = rng.poisson(3.0, size=(600, 2)), rng.poisson([60.0, 400.0], size=(600, 2))
    counts = np.where(rng.random((600, 2)) < [0.2, 0.5], carried, ambient)
    counts = np.column_stack([counts, np.r_[np.full(19, 50), np.zeros(581)], np.full(600, 30)]).astype(float)
    _, thresholds = call_guides(sparse.csr_matrix(counts), settings(method="mixture", min_counts=1, min_fraction=0))
    expected = [fitted_threshold(column[column > 0]) for column in counts.T[:2]]
    np.testing.assert_allclose(thresholds[:2], expected, atol=1)
    assert thresholds[2:].tolist() == [1, 1]  # too few cells, and too little spread
    _, thresholds = call_guides(sparse.csr_matrix(counts), settings(method="mixture", min_counts=25))
    np.testing.assert_allclose(thresholds, [25, max(25, expected[1]), 25, 25], atol=1)
