import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, norm

from raptorgraph.tl import _effect_blocks
from raptorgraph.tl._effect_blocks import EffectBlock, asked_labels, effect_blocks, gene_columns, strongest


class Model:
    """Ten perturbations of four genes, pairs among them; effects and standard deviations are known."""

    setup_args = {"perturbation_key": "perturbation", "control": "control", "delimiter": "+"}
    perturbed_genes = ["A", "B", "C", "D"]
    conditions = ["A", "B", "C", "D", "A+B", "A+C", "A+D", "B+C", "B+D", "C+D"]
    has_posterior = True

    def __init__(self):
        rng = np.random.default_rng(0)
        genes = ["g0", "B", "A", *(f"g{k}" for k in range(1, 28))]
        self.mean = pd.DataFrame(rng.normal(size=(10, 30)), self.conditions, genes)
        self.sd = pd.DataFrame(rng.uniform(0.1, 1.0, size=(10, 30)), self.conditions, genes)

    def predict_effects(self, labels, return_sd=False):
        return (self.mean.loc[labels], self.sd.loc[labels]) if return_sd else self.mean.loc[labels]


def rates(model, own):
    """False discovery rates of the genes that are not perturbed, 1 for the others."""
    p = 2 * norm.cdf(-model.mean.abs() / model.sd)
    found = np.ones(p.shape)
    for row, others in enumerate(~own):
        found[row, others] = false_discovery_control(p[row, others])
    return found


@pytest.fixture
def model():
    return Model()


def test_blocks_hold_all_perturbations_in_order(model, monkeypatch):
    monkeypatch.setattr(_effect_blocks, "AT_A_TIME", 4)
    blocks = list(effect_blocks(model, model.conditions))
    assert [len(block.labels) for block in blocks] == [4, 4, 2]
    whole = blocks[0].joined(blocks[1]).joined(blocks[2])
    assert whole.labels == model.conditions
    np.testing.assert_array_equal(whole.mean, model.mean)
    np.testing.assert_array_equal(whole.lfsr, norm.cdf(-model.mean.abs() / model.sd))
    own = pd.DataFrame(whole.own, model.conditions, model.mean.columns)
    for label in model.conditions:
        assert set(own.columns[own.loc[label]]) == set(label.split("+")) & {"A", "B"}  # C and D are not measured
    np.testing.assert_array_equal(whole.without_targets()[own.to_numpy()], 0)
    np.testing.assert_array_equal(whole.sure(0.2), (rates(model, own.to_numpy()) <= 0.2) & ~own)
    np.testing.assert_array_equal(whole.columns([3, 4]).fdr, whole.fdr[:, [3, 4]])  # over all genes


@pytest.mark.parametrize("at_a_time", [3, 100])
@pytest.mark.parametrize("n", [1, 4, 10, 50])
def test_the_strongest_have_the_most_sure_effects(model, monkeypatch, n, at_a_time):
    monkeypatch.setattr(_effect_blocks, "AT_A_TIME", at_a_time)
    found = strongest(model, model.conditions, n)
    own = np.array([[gene in label.split("+") for gene in model.mean.columns] for label in model.conditions])
    n_sure = ((rates(model, own) <= 0.05) & ~own).sum(axis=1)
    length = np.linalg.norm(np.where(own, 0, model.mean), axis=1)
    best = sorted(range(10), key=lambda k: (-n_sure[k], -length[k]))[:n]
    assert found.labels == [model.conditions[k] for k in sorted(best)]
    np.testing.assert_array_equal(found.mean, model.mean.loc[found.labels])


def test_without_a_posterior_the_longest_are_the_strongest(model):
    model.has_posterior = False
    found = strongest(model, model.conditions, 3)
    assert not found.has_sd
    assert not found.sure().any()
    assert np.isnan(found.lfsr).all()
    assert np.isnan(found.fdr).all()
    length = (model.mean.drop(columns=["A", "B"]) ** 2).sum(axis=1)
    for gene in ("A", "B"):
        length += np.where([gene in label for label in model.conditions], 0, model.mean[gene] ** 2)
    assert set(found.labels) == set(length.nlargest(3).index)
    with pytest.raises(ValueError, match="no perturbation"):
        strongest(model, [], 3)


def test_labels_are_read_as_sets(model):
    assert asked_labels(model, None) == model.conditions
    assert asked_labels(model, [("B", "A"), "C", "A+B"]) == ["A+B", "C"]
    with pytest.raises(ValueError, match="E was not perturbed"):
        asked_labels(model, ["A", "E"])
    with pytest.raises(ValueError, match="'control' is what"):
        asked_labels(model, ["A", "control"])


def test_no_noise_and_no_effect_is_no_sign():
    zero = np.zeros((1, 2))
    block = EffectBlock(["A"], np.array(["g", "h"], dtype=object), np.array([[0.0, 1.0]]), zero, zero > 0)
    np.testing.assert_array_equal(block.lfsr, [[0.5, 0.0]])


def test_columns_by_name(model):
    from raptorgraph.screen import Setup

    setup = Setup.of(model.setup_args)
    assert gene_columns(["x", "y", "z"], None, setup).tolist() == [0, 1, 2]
    assert gene_columns(["x", "y", "z"], ["z", "x"], setup).tolist() == [2, 0]
    with pytest.raises(ValueError, match="'GATAI' is not a gene of the model; did you mean 'GATA1'"):
        gene_columns(["GATA1", "KLF1"], ["GATAI"], setup)
