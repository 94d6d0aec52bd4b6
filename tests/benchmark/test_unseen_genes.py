"""Held-out genes by every method; baselines by hand."""

import numpy as np
import pandas as pd
import pytest

from raptorgraph.benchmark import Settings
from raptorgraph.benchmark._unseen_genes import _by_neighbors, _load, tables, units, work


@pytest.fixture(scope="module")
def result(quick):
    return quick("unseen-genes")


def test_tables_and_figure(result):
    found, out = result
    long = found["unseen-genes_long"]
    methods = [name + suffix for name in ("raptorgraph", "neighbors", "ridge") for suffix in ("", ", shuffled")]
    assert found["unseen-genes"]["method"].tolist() == methods
    assert long[long["metric"] == "held"]["value_mean"].between(0, 1).all()
    assert (out / "unseen-genes.png").stat().st_size > 0


def test_the_neighbors_are_the_most_similar_in_direction():
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 0.5]] + [[-1.0, -1.0]] * 9)
    effect = np.arange(12.0)[:, None]
    found = _by_neighbors(rows, effect, np.array([[2.0, 0.1]]))
    assert found[0, 0] == pytest.approx(effect[:10].mean())


def test_a_table_of_effects(tmp_path):
    """Two groups of genes that act alike, as the embedding knows: errors fall below those of the mean."""
    rng = np.random.default_rng(0)
    group = np.arange(24) % 2
    effect = rng.normal(size=(2, 30))[group] + 0.2 * rng.normal(size=(24, 30))
    genes = np.array([f"g{i}" for i in range(24)])
    np.savez(tmp_path / "table.npz", genes=genes, effect=effect)
    rows = pd.DataFrame(np.eye(2)[group] + 0.1 * rng.normal(size=(24, 2)), index=genes)
    rows.to_csv(tmp_path / "rows.csv")
    options = {"embedding": str(tmp_path / "rows.csv"), "n_folds": 3}
    settings = Settings(screen=str(tmp_path / "table.npz"), seeds=(0,), options=options)
    asked = units(settings)
    assert len(asked) == 6
    found = tables([(unit, work(unit, settings)) for unit in asked], settings)["unseen-genes_long"]
    value = found.set_index(["method", "metric"])["value_mean"]
    assert max(value[name, "error"] for name in ("raptorgraph", "ridge")) < 0.3
    assert value["raptorgraph", "error"] < 0.5 * value["raptorgraph, shuffled", "error"]
    assert 0.8 < value["raptorgraph", "held"] <= 1


def test_own_targets_and_conditions_of_the_fold_are_left_out(monkeypatch):
    from raptorgraph.benchmark import _unseen_genes

    settings = Settings(screen="simulated", quick=True, seeds=(0,))
    data, seen = _load(settings, 0), []
    monkeypatch.setattr(_unseen_genes, "_by_ours", lambda data, rows, kept, test: seen.append((kept, test)) or (
        (np.zeros((len(test), data.effect.shape[1])), np.ones((len(test), data.effect.shape[1]))), 0.0))  # fmt: skip
    for unit in units(settings):
        work(unit, settings)
    for kept, test in seen:
        assert not data.design[kept][:, test].any()
        assert data.design[~kept][:, test].any(1).all()
    tested = np.concatenate([test for _, test in seen[::2]])
    assert sorted(tested) == list(data.testable)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"screen": "simulated", "options": {"n_folds": 2}}, "too few for 2 folds"),
        ({"screen": "simulated", "options": {"n_folds": 9}}, "too few for 9 folds"),
        ({"screen": "simulated", "options": {"n_folds": 1}}, "n_folds"),
        ({"screen": "table.npz"}, "needs an embedding"),
    ],
)
def test_bad_settings(change, match):
    with pytest.raises(ValueError, match=match):
        units(Settings(quick=True, seeds=(0,), **change))
