import numpy as np
import pytest

from raptorgraph.inference._graph_modules import cautious_support, module_labels

NAN = np.nan


def test_the_more_cautious_of_evidence_and_resampled_graphs():
    support = np.array([[NAN, 0.99, 0.7, 0.9], [0.01, NAN, NAN, 0.9], [0.3, NAN, NAN, NAN], [0.1, 0.1, NAN, NAN]])
    frequency = np.zeros((4, 4))
    frequency[0, 1], frequency[1, 0] = 0.6, 0.2  # three quarters
    frequency[0, 2] = 0.4  # always this way
    frequency[3, 0] = 0.5  # always the other way
    frequency[1, 2], frequency[2, 1] = 0.3, 0.1  # the evidence is not known
    found = cautious_support(support, frequency)
    assert found[0, 1] == pytest.approx(0.75)
    assert found[1, 0] == pytest.approx(0.25)
    assert found[0, 2] == pytest.approx(0.7)
    assert found[0, 3] == found[3, 0] == 0.5
    assert found[1, 3] == 0.5  # not found again
    assert found[1, 2] == pytest.approx(0.75)
    assert np.isnan(found[2, 3])
    np.testing.assert_array_equal(cautious_support(support, np.full((4, 4), NAN)), support)


def test_modules_are_what_edges_without_a_direction_join():
    edges, support = np.zeros((7, 7), dtype=bool), np.full((7, 7), NAN)
    for i, j, s in [(5, 6, 0.5), (0, 1, 0.6), (2, 1, 0.3), (0, 2, 0.95), (3, 4, 0.8)]:
        edges[i, j], support[i, j], support[j, i] = True, s, 1 - s
    share = np.where(edges, 0.5, 0.0)
    labels = module_labels(edges, support, share)
    assert labels[0, 1] == labels[2, 1] == "M1"  # the largest comes first
    assert labels[5, 6] == "M2"
    assert labels[0, 2] == ""  # has a direction, although both genes are in a module
    assert (labels != "").sum() == 3
    support[3, 4] = NAN
    assert module_labels(edges, support, share)[3, 4] == "M2"  # of equal size, the first genes
    share[2, 1] = 0.4  # carries too little to join its genes
    labels = module_labels(edges, support, share)
    assert labels[2, 1] == ""
    assert [labels[0, 1], labels[3, 4], labels[5, 6]] == ["M1", "M2", "M3"]
    nothing = np.zeros((3, 3))
    assert not (module_labels(nothing > 0, nothing, nothing) != "").any()
