import numpy as np
import pandas as pd
import pytest

from raptorgraph import benchmark
from raptorgraph.benchmark import Settings
from raptorgraph.benchmark import _intervals as intervals
from raptorgraph.benchmark import _intervals_screens as screens
from raptorgraph.benchmark._intervals_questions import GENES, LENGTH, QUESTIONS, TOGETHER

QUICK = {"quick": True, "n_jobs": 0, "progress": False}


def test_run(tmp_path):
    tables = benchmark.run("intervals", out=tmp_path, seeds=1, kinds=["interacting"], **QUICK)
    table, long = tables["intervals"], tables["intervals_long"]
    assert table.columns.tolist() == ["asked", "question", "interacting"]
    assert long["of"].unique().tolist() == [screens.UNSEEN, screens.TRIPLES, screens.SEEN, screens.NEVER_ALONE]
    assert set(long["question"]) == set(QUESTIONS) - {"gene sets"}
    held = long[long["metric"].str.startswith("held")]
    assert held["value_mean"].between(0, 1).all()
    # a wider interval holds no less
    by_level = held.pivot_table("value_mean", ["seen", "of", "question"], "metric", sort=False)
    assert (by_level.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    assert {"intervals.csv", "intervals_levels.csv", "intervals.png"} <= {path.name for path in tmp_path.iterdir()}


class Knows:
    """A model whose draws are the truth and known errors: a fifth of the genes is off by more than any draw."""

    def __init__(self, case):
        self.case, self.perturbed_genes = case, ["P01"]
        self.names = self.var_names_ = case.screen.var_names

    def sample_effects(self, labels, n_draws, seed):
        true = self.case.truth.loc[list(labels), self.names].to_numpy()
        error = np.linspace(-1, 1, n_draws)[:, None, None]
        off = np.where(np.arange(true.shape[1]) % 5 == 0, 100.0, 0.0)
        return true + error + off

    def predict_effects(self, labels):
        return self.case.truth.loc[list(labels), self.names]


def test_what_is_held_of_a_model_that_is_off_by_known_amounts():
    case = screens.simulated("additive", screens.SINGLES, 0, quick=True)
    rows = pd.DataFrame(
        intervals.counted(Knows(case), case, Settings(quick=True), 0), columns=["of", "question", "metric", "value"]
    ).set_index(["of", "question", "metric"])["value"]
    n_genes = len(case.screen.adata.var_names)
    for kind in case.asked:
        right = 1 - len(range(0, n_genes, 5)) / n_genes
        assert rows[kind, GENES, "held at 90%"] == pytest.approx(right)
        assert rows[kind, GENES, "width"] == pytest.approx(1.8, rel=0.02)  # 90 % of a width of 2
        assert rows[kind, LENGTH, "held at 95%"] == 0
        assert rows[kind, TOGETHER, "width"] == pytest.approx(1.8, rel=0.02)  # the error is common to all genes


def test_what_a_model_is_shown():
    singles, pairs, missing = (screens.simulated("additive", regime, 1, quick=True) for regime in screens.REGIMES)
    assert not singles.screen.combinations
    assert len(singles.asked[screens.UNSEEN]) == 10
    assert len(singles.asked[screens.TRIPLES]) == 10
    assert len(pairs.screen.combinations) == 3
    assert not set(pairs.asked[screens.UNSEEN]) & set(pairs.screen.combinations)
    hidden = missing.asked[screens.NEVER_ALONE]
    assert hidden
    assert not set(hidden) & set(missing.screen.conditions)
    shown = [gene for label in missing.screen.combinations for gene in missing.screen.genes_of[label]]
    assert all(shown.count(label) > 1 for label in hidden)


def test_a_measured_truth_has_an_error_that_genes_share(tmp_path):
    settings = Settings(screen="simulated", quick=True)
    case = screens.measured(settings, screens.SINGLES, 0)
    labels = case.asked[screens.UNSEEN]
    genes = sorted(case.screen.var_names)  # in any order
    noise = case.noise(labels, genes, 400, 0)
    np.testing.assert_allclose(noise.var(0), case.variance.loc[labels, genes], rtol=0.6)
    assert np.abs(noise.mean(0)).max() < 0.3 * np.sqrt(case.variance.to_numpy().max())
    assert screens.simulated("additive", screens.SINGLES, 0, quick=True).noise(labels, genes, 3, 0) == 0.0


def test_the_error_of_the_controls_is_in_the_draws_and_not_in_the_truth():
    """The model has seen these control cells: what they add to a measured effect is not another error."""
    case = screens.measured(Settings(screen="simulated", quick=True), screens.SINGLES, 0)
    cells, label = case.screen.condition_moments, case.screen.singles[0]
    of_controls = pd.Series(cells.var[0] / cells.n[0], case.screen.var_names)
    code = case.screen.labels.index(label)
    whole = pd.Series(case.screen.moments.variance[code], case.screen.var_names)
    pd.testing.assert_series_equal(case.variance.loc[label] + of_controls, whole, check_names=False)


@pytest.mark.parametrize(
    ("screen", "options", "match"),
    [
        ("simulated", {"kinds": ["additive"]}, "leave them or --screen out"),
        (None, {"kinds": ["odd"]}, "'odd'"),
        (None, {"regimes": ["odd"]}, "'odd'"),
        (None, {"n_draws": 3}, "n_draws: 3"),
    ],
)
def test_bad_options(screen, options, match):
    with pytest.raises(ValueError, match=match):
        intervals.units(Settings(screen=screen, options=options, quick=True))


def test_a_screen_without_combinations(monkeypatch):
    screen = screens.simulated("additive", screens.SINGLES, 0, quick=True).screen
    monkeypatch.setattr(screens, "load_screen", lambda settings, seed: screen)
    with pytest.raises(ValueError, match="the screen has none"):
        intervals.units(Settings(screen="simulated", quick=True))
