from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raptorgraph import benchmark, metrics
from raptorgraph.benchmark import _ablation_cells as cells
from raptorgraph.benchmark import _variants as variants
from raptorgraph.benchmark._settings import Settings
from raptorgraph.evaluation._scores import CEILING, FLOOR, draw_seed
from raptorgraph.screen import Screen

QUICK = Settings(screen="simulated-states", quick=True, options={"n_repeats": 2})


@pytest.fixture(scope="module")
def screen():
    return benchmark.load_screen(QUICK, 0)


@pytest.fixture(scope="module")
def comparison(screen):
    return cells.Comparison(screen, QUICK, 3)


def with_states(screen, values, **options):
    adata = screen.adata.copy()
    adata.obs["state"] = values
    return cells.states_of(Screen(adata, screen.setup), Settings(options=options))


def test_states_are_read_from_a_column(screen):
    obs = screen.adata.obs
    assert (cells.states_of(screen, QUICK) == obs["state"].cat.codes).all()
    n = len(obs)
    assert with_states(screen, 1) is None
    assert with_states(screen, np.arange(n) % 3).max() == 2
    some = with_states(screen, pd.Categorical(["b", None] * (n // 2), categories=["a", "b", "c"]))
    assert some is None
    some = with_states(screen, pd.Categorical(["b", "c", None, "b"] * (n // 4), categories=["a", "b", "c"]))
    assert some[:4].tolist() == [0, 1, -1, 0]
    tertiles = with_states(screen, np.arange(n, dtype=float))
    assert (np.diff(tertiles) >= 0).all()
    assert np.bincount(tertiles).max() - np.bincount(tertiles).min() <= 1
    plain = benchmark.load_screen(Settings(screen="simulated", quick=True), 0)
    assert cells.states_of(plain, Settings()) is None


@pytest.mark.parametrize(
    ("state", "words"),
    [("phase", "'phase' is no column of obs, which has"), ("one", "one value in 'one'"), (3, "3 is no")],
)
def test_a_column_that_does_not_suit_is_refused(screen, state, words):
    adata = screen.adata.copy()
    adata.obs["one"] = "a"
    with pytest.raises(ValueError, match=words):
        cells.states_of(Screen(adata, screen.setup), Settings(options={"state": state}))


def test_as_many_cells_as_half_of_the_smallest_combination_in_a_state(comparison, screen):
    counts = screen.adata.obs.groupby(["perturbation", "state"], observed=True).size().loc[screen.combinations]
    sizes = [group.n_cells for group in comparison.groups]
    assert sizes == [20, max(10, counts.min() // 2), max(10, counts.min() // 2)]
    for group in comparison.groups[1:]:
        for label, rows, draws in comparison.combinations(group):
            assert len(set(screen.adata.obs["state"].iloc[rows])) == 1
            assert set(screen.codes[rows]) == {screen.labels.index(label)}
            assert len(rows) >= 2 * draws["n_cells"]
            assert draws["seed"] == draw_seed(3, screen, label)


def test_floor_and_ceiling_are_means_over_combinations_and_states(comparison, screen):
    found, control = comparison.references(), screen.rows(screen.control)
    state, values = screen.adata.obs["state"].to_numpy(), []
    for group, name in zip(comparison.groups[1:], ("S1", "S2"), strict=True):
        for label in variants.unseen_split(screen).test:
            rows = [r[state[r] == name] for r in (screen.rows(label), control)]
            if len(rows[0]) >= 2 * group.n_cells:
                draws = {"n_cells": group.n_cells, "n_repeats": 2, "seed": draw_seed(3, screen, label)}
                measured, controls = map(screen.expression_at, rows)
                table = metrics.floor_and_ceiling(measured, controls, **draws, score=metrics.energy_distance)
                values.append(table.groupby("reference")["value"].mean())
    expected = pd.DataFrame(values).mean()
    assert found[FLOOR]["energy distance by state"] == pytest.approx(expected["floor"])
    assert found[CEILING]["energy distance by state"] == pytest.approx(expected["ceiling"])
    assert list(found[FLOOR]) == [name for name in cells.CELL_SCORES if name != cells.VARIANCE]


def test_distances_within_states_see_cells_in_the_wrong_state(comparison, screen):
    """Cells that were measured, as predictions: of the right state, or of the other one."""
    state = screen.adata.obs["state"].to_numpy()

    def method(right):
        def predict(labels, start, n_cells, seed, *, noise):
            rng, drawn = np.random.default_rng(seed), []
            for label in labels:
                rows = screen.rows(label)
                if start is not None:
                    [here], [control] = set(start.obs["state"]), set(start.obs["perturbation"])
                    assert (noise, control) == ("own", "control")
                    rows = rows[(state[rows] == here) == right]
                drawn.append(rng.choice(rows, n_cells))
            return ad.AnnData(screen.expression_at(np.concatenate(drawn)), var=screen.adata.var)[:, ::-1]

        return SimpleNamespace(model=SimpleNamespace(predict=predict), noise="own")

    right, wrong = (comparison.scores(method(each), screen.rows(screen.control)) for each in (True, False))
    references = comparison.references()
    for name in (cells.MMD, cells.ENERGY):
        floor, ceiling = (references[each][name] for each in (FLOOR, CEILING))
        assert right[name] == wrong[name] < floor + 0.2 * (ceiling - floor)
        within = cells.BY_STATE.format(name)
        floor, ceiling = (references[each][within] for each in (FLOOR, CEILING))
        assert right[within] < floor + 0.2 * (ceiling - floor) < ceiling < wrong[within]
    assert right[cells.VARIANCE] == pytest.approx(1, rel=0.2)
    assert list(right) == list(cells.CELL_SCORES)
