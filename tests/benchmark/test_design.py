from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from raptorgraph import benchmark
from raptorgraph.benchmark import Settings, load_screen
from raptorgraph.benchmark import _design as design
from raptorgraph.benchmark import _design_rules as rules
from raptorgraph.benchmark._settings import Unit

pytestmark = pytest.mark.usefixtures("few_steps")

QUICK = {"quick": True, "n_jobs": 0, "progress": False}
PAIRS = np.array([np.isin(np.arange(6), pair) for pair in combinations(range(6), 2)], dtype=float)


def test_run(tmp_path):
    tables = benchmark.run("design", out=tmp_path, seeds=2, kinds="interacting", **QUICK)
    long = tables["design_long"].set_index(["goal", "pairs", "method", "metric"])["value_mean"].sort_index()
    for metric in ("error on others", "error on the rest"):
        assert set(long["learn", 2][:, metric].index) == {design.OURS, "chance", design.LARGEST, design.RIDGE}
    # ten pairs of five genes; the strongest quarter are three of them
    assert long["interactions", 2, "chance", "strong among chosen"] == pytest.approx(0.3)
    assert long["state", 5, "chance", "state found"] == pytest.approx(0.5)
    assert long["state", 1, design.OURS, "state found"] <= long["state", 5, design.OURS, "state found"]
    less = tables["design_differences"]
    assert "chance" not in set(less["method"])
    assert {"design.csv", "design.png", "design_differences.md"} <= {path.name for path in tmp_path.iterdir()}


def test_batches_are_revealed_and_scored_on_pairs_that_were_not(monkeypatch):
    """The posterior is one that knows what it was shown, and predicts half of the truth of the rest."""
    settings = Settings(quick=True)
    screen, truth = design._screen(Unit("a", 0, {"kind": "additive", "goal": "learn"}), settings)
    shown, pairs = [], rules.open_pairs(screen)
    assert pairs == screen.combinations
    monkeypatch.setattr(design, "refit", lambda screen, conditions: shown.append(conditions) or conditions)
    monkeypatch.setattr(
        design,
        "predicted",
        lambda known, screen, labels: np.array([truth.loc[x] * (1.0 if x in known else 0.5) for x in labels]),
    )
    monkeypatch.setattr(
        design.tl, "next_pairs", lambda model, n, **options: pd.DataFrame(index=options["candidates"][:n])
    )
    model = SimpleNamespace(predict_effects=lambda labels: truth.loc[labels])
    rows = pd.DataFrame(
        design._learn(model, screen, truth, 0, settings), columns=["pairs", "method", "metric", "value"]
    )
    assert rows["value"].to_numpy() == pytest.approx(0.25)  # no pair that is scored was shown
    assert len(shown) == 4
    assert all(conditions[: len(screen.singles)] == screen.singles for conditions in shown)
    size = np.linalg.norm(truth.loc[pairs], axis=1)
    pool = set(np.array(pairs)[np.sort(np.array_split(np.random.default_rng([0, 11]).permutation(10), 2)[0])])
    largest = sorted(pool, key=lambda label: -size[pairs.index(label)])[:2]
    assert shown[2][len(screen.singles) :] == largest


def test_ridge_variance_by_brute_force():
    """Each choice leaves least of the summed variance of a ridge that has it, too."""
    rng = np.random.default_rng(3)
    chosen = rules.ridge_variance(PAIRS, PAIRS, 5, rng)

    def left(rows):
        x = np.column_stack([PAIRS[rows], np.ones(len(rows))])
        inverse = np.linalg.inv(x.T @ x + np.diag([*np.full(6, rules.RIDGE), 1e-3]))
        every = np.column_stack([PAIRS, np.ones(len(PAIRS))])
        return ((every @ inverse) * every).sum()

    for k, best in enumerate(chosen):
        others = [row for row in range(len(PAIRS)) if row not in chosen[:k]]
        assert left([*chosen[:k], best]) == pytest.approx(min(left([*chosen[:k], row]) for row in others))
    assert (PAIRS[chosen[:3]].sum(0) == 1).all()  # every gene once, before one comes again


def test_refit_is_the_posterior_of_what_it_is_shown():
    screen = load_screen(Settings(screen="simulated", quick=True), 0)
    pairs = rules.open_pairs(screen)
    posterior = rules.refit(screen, [*screen.singles, pairs[0]])
    measured = posterior.fitted.measured
    np.testing.assert_allclose(measured.effect[-1].numpy(), screen.effects.loc[pairs[0]])
    assert len(measured.design) == len(screen.singles) + 1
    predicted = rules.predicted(posterior, screen, pairs)
    near = np.linalg.norm(predicted - screen.effects.loc[pairs], axis=1) / np.linalg.norm(predicted, axis=1)
    assert near[0] < near[1:].min()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"kinds": ["odd"]}, "kinds: 'odd'"),
        ({"goals": ["win"]}, "goals: 'win'"),
        ({"goals": ["state"], "screen": "simulated"}, "leave --screen out"),
    ],
)
def test_bad_settings(options, match):
    settings = {key: options.pop(key) for key in ("screen",) if key in options}
    with pytest.raises(ValueError, match=match):
        design.units(Settings(quick=True, seeds=(0,), options=options, **settings))


def test_bad_numbers_of_pairs():
    with pytest.raises(ValueError, match="n_pairs: \\[9\\]"):
        design._numbers(Settings(options={"n_pairs": [9]}), [2], 4)


def test_units_of_a_screen_are_to_learn_alone():
    units = design.units(Settings(screen="simulated", quick=True, seeds=(0, 1)))
    assert [unit.options for unit in units] == 2 * [{"kind": "screen", "goal": "learn"}]
