import numpy as np
import pytest

from raptorgraph import metrics
from raptorgraph.benchmark import _intervals_questions as questions


@pytest.fixture(scope="module")
def effects():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(4, 40))
    return true, true + 0.1 * rng.normal(size=(50, 4, 40))


def test_the_true_answers(effects):
    true, draws = effects
    single = true[:2]
    found = {
        name: (drawn, answer)
        for name, drawn, answer in questions.answers(
            draws, true, true, (draws[:, :2], single), [(0, 1), (), (), ()], {"random gene sets": [np.array([3, 5])]}
        )
    }
    assert set(found) == {*questions.QUESTIONS, questions.KNOWN_TURN} - {questions.TOGETHER, questions.GENE_SETS}
    assert all(drawn.shape == (50, *answer.shape) for drawn, answer in found.values())
    np.testing.assert_allclose(found["random gene sets"][1][:, 0], true[:, [3, 5]].mean(1))
    np.testing.assert_allclose(found[questions.ALONG][1], np.linalg.norm(true, axis=1))
    np.testing.assert_allclose(np.diag(found[questions.COSINE][1]), 1.0)
    np.testing.assert_allclose(found["synergy"][1], metrics.synergy(true[:1], true[1:2], true[:1]))
    # The query of a row is the effect of the perturbation before, which is the most like itself.
    ranks = found[questions.RANK][1]
    assert ranks[np.arange(4), np.arange(4) - 1].tolist() == [0, 0, 0, 0]


def test_held_counts_what_lies_within():
    drawn = np.linspace(0, 1, 101)[:, None] + np.array([0.0, 0.0, 0.0, 0.0])
    true = np.array([0.5, 0.07, 0.96, 2.0])
    found = dict(questions.held(drawn, true))
    assert found["held at 50%"] == 0.25
    assert found["held at 90%"] == 0.5
    assert found["width"] == pytest.approx(0.9)
    below = np.zeros_like(drawn)
    assert dict(questions.held(drawn, np.array([0.0, 0.02, 0.89, 0.96]), below))["held at 90%"] == 0.75


def test_sets_of_genes_leave_the_perturbed_ones_out():
    rng = np.random.default_rng(1)
    programs = np.repeat(rng.normal(size=(6, 4)), 15, axis=1)
    own = np.arange(60) < 5
    sets = questions.sets_of_genes(programs + 0.01 * rng.normal(size=programs.shape), own, 0)
    for columns in sets.values():
        assert len(columns) == 20
        assert all(not own[c].any() for c in columns)
    # Thirteen genes a set, of fifteen (or ten, less the perturbed ones) that move together.
    assert all(len(np.unique(c // 15)) <= 2 for c in sets[questions.TOGETHER])
