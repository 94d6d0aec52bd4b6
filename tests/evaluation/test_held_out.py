import numpy as np
import pandas as pd
import pytest

from raptorgraph import metrics
from raptorgraph.evaluation import Scores, _held_out, held_out
from raptorgraph.evaluation._held_out_scores import HALF, MODEL, PERFECT, SEEN, SINGLES, UNSEEN
from raptorgraph.screen import Screen

pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module", autouse=True)
def two_folds():
    """Two parts of the combinations in place of four: half of the fits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_held_out, "_N_FOLDS", 2)
        yield


@pytest.fixture(scope="module")
def screen(adata, setup):
    """With a column of guides, of which none of the methods knows."""
    adata = adata.copy()
    adata.obs["guide"] = adata.obs["perturbation"].astype(str) + "_1"
    return Screen(adata, {**setup, "guide_key": "guide"})


@pytest.fixture(scope="module")
def held(screen):
    return held_out(screen, seed=1)


def changed(screen, rows):
    """The same screen with the counts of some cells permuted among genes."""
    adata = screen.adata.copy()
    counts = adata.X.toarray()
    counts[rows] = counts[rows][:, ::-1]
    adata.X = counts
    return Screen(adata, screen.setup)


def test_what_is_predicted_owes_nothing_to_the_cells_it_is_compared_with(screen, held):
    _, second = screen.halves(1)
    other = held_out(changed(screen, second), seed=1)
    pd.testing.assert_frame_equal(other.predicted, held.predicted, check_exact=True)
    assert not np.allclose(other.measured, held.measured)


def test_what_is_predicted_owes_nothing_to_other_cells_of_the_same_combination(screen, held):
    label = held.predicted.index[3]
    other = held_out(changed(screen, screen.rows(label)), seed=1)
    np.testing.assert_array_equal(other.predicted.loc[label], held.predicted.loc[label])
    # and the fits that had it in their training did see it
    assert not np.allclose(other.predicted.drop(label), held.predicted.drop(label))


def test_measured_effects_are_those_of_the_second_halves(screen, held):
    first, second = screen.halves(1)
    assert set(first).isdisjoint(second)
    assert len(first) + len(second) == screen.adata.n_obs
    truth = screen.effects_of(second).loc[held.measured.index]
    pd.testing.assert_frame_equal(held.measured, truth, check_names=False)
    half = screen.effects_of(first).loc[truth.index]
    found = held.scores[UNSEEN]
    assert found.value(HALF, "relative_mse") == pytest.approx(metrics.relative_mse(half, truth))
    assert found.value(MODEL, "relative_mse") == pytest.approx(metrics.relative_mse(held.predicted, truth))
    assert found.value(MODEL, "pearson") == pytest.approx(metrics.pearson_delta(held.predicted, truth))
    assert found.value("no change", "relative_mse") == 1


def test_every_condition_is_tested_once(screen, held):
    assert held.n_fits == held.n_folds == 2
    assert held.reason == ""
    assert sorted(held.scores[UNSEEN].labels) == sorted(held.scores[SEEN].labels) == sorted(screen.combinations)
    assert sorted(held.scores[SINGLES].labels) == sorted(screen.singles)
    table = held.conditions
    assert table.loc[screen.combinations, ["unseen", "seen", "half"]].notna().all(axis=None)
    assert table.loc[screen.singles, "unseen"].isna().all()
    assert table.loc[screen.singles, "seen"].notna().all()


def test_baselines_fit_what_they_are_asked_for(held):
    methods = {name: set(scores.table["method"]) for name, scores in held.scores.items()}
    assert {"additive", "main-effects ridge", "mean double"} < methods[UNSEEN]
    # of a measured single the sum is the measurement itself, and no single needs two effects to be added
    assert methods[SINGLES] == {
        MODEL, "no change", "mean single", "shrunken additive", "low-rank additive", HALF, PERFECT
    }  # fmt: skip
    assert methods[SEEN] == {MODEL, "no change", HALF, PERFECT}


def test_a_perfect_prediction_scores_what_it_is_said_to(screen, held):
    truth = screen.adata.uns["simulation"]["effects"]
    for name, scores in held.scores.items():
        if name != UNSEEN:
            continue
        of_truth = metrics.relative_mse(truth.loc[scores.labels, held.measured.columns], held.measured)
        assert scores.value(PERFECT, "relative_mse") == pytest.approx(of_truth, rel=0.25)


def test_intervals_are_compared_with_what_was_measured(held):
    assert 0.75 < held.scores[UNSEEN].coverage < 1
    assert 0.75 < held.scores[SINGLES].coverage < 1


def test_the_same_seed_gives_the_same_scores(screen, held):
    again = held_out(screen, seed=1)
    for name, scores in held.scores.items():
        pd.testing.assert_frame_equal(again.scores[name].table, scores.table, check_exact=True)


def test_without_combinations_in_the_training(screen):
    held = held_out(screen, seed=1, singles_only=True)
    assert held.n_fits == held.n_folds == 1
    assert sorted(held.scores[UNSEEN].labels) == sorted(screen.combinations)
    assert SEEN not in held.scores
    assert "mean double" not in set(held.scores[UNSEEN].table["method"])
    assert len(held.ranks) == 5
    assert (held.ranks["n_pairs"] == 9).all()


def test_singles_alone(simulated, setup):
    screen = Screen(simulated(n_doubles=0), setup)
    held = held_out(screen)
    assert set(held.scores) == {SINGLES}
    assert held.shown == SINGLES
    assert held.ranks is None
    assert list(held.predicted.index) == screen.conditions


def test_a_preset_without_a_posterior_is_fitted_once(screen):
    held = held_out(screen, preset="paper", max_epochs=1)
    assert held.n_fits == 1
    assert held.n_folds == 2
    assert len(held.scores[UNSEEN].labels) == 5
    assert len(held.scores[SEEN].labels) == 4
    assert all(scores.coverage is None for scores in held.scores.values())


def test_too_few_cells(screen, setup):
    few = Screen(screen.adata[np.r_[screen.rows("control")[:3], screen.rows(screen.singles[0])]].copy(), setup)
    held = held_out(few)
    assert "4 cells or more" in held.reason
    assert held.scores == {}
    kept = np.setdiff1d(np.arange(screen.adata.n_obs), screen.rows(screen.singles[0])[3:])
    held = held_out(Screen(screen.adata[kept].copy(), setup))
    gone = [x for x in screen.combinations if screen.singles[0] in screen.genes_of[x]]
    assert held.left_out == [screen.singles[0]]
    assert gone
    # its combinations have no single to be compared with: seen in every fit, and not tested unseen
    assert set(gone) <= set(held.scores[SEEN].labels)
    assert set(gone).isdisjoint(held.scores[UNSEEN].labels)


def test_a_baseline_that_cannot_be_fitted_is_named(screen, monkeypatch):
    class Failing(_held_out.ladder()["mean single"]):
        def fit(self, adata):
            raise ValueError("these data do not suit")

    monkeypatch.setattr(_held_out, "ladder", lambda: {"no change": original["no change"], "mean single": Failing})
    held = held_out(screen, singles_only=True)
    assert held.failed == {"mean single": "these data do not suit"}
    assert set(held.scores[UNSEEN].table["method"]) == {MODEL, "no change", HALF, PERFECT}


original = _held_out.ladder()
LABELS = [f"A+B{k}" for k in range(50)]


@pytest.mark.parametrize(
    ("difference", "error", "verdict"),
    [(-0.1, 0.04, "better"), (0.1, 0.04, "worse"), (-0.1, 0.06, "level"), (0.1, np.inf, "level"), (0.0, 0.0, "level")],
)
def test_verdict(difference, error, verdict):
    assert Scores(LABELS, pd.DataFrame(), "no change", difference, error, None).verdict == verdict


def test_few_conditions_differ_by_chance():
    """Of three conditions an interval of 95 % has 4.3 standard errors to either side, by Student's t."""
    three, two, one = (Scores(LABELS[:n], pd.DataFrame(), "no change", -0.1, 0.024, None) for n in (3, 2, 1))
    assert [three.verdict, two.verdict, one.verdict] == ["level"] * 3
    assert Scores(LABELS[:3], pd.DataFrame(), "no change", -0.1, 0.023, None).verdict == "better"
