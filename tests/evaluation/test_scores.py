import numpy as np
import pytest

from raptorgraph import metrics
from raptorgraph.evaluation import _scores, cell_references, cell_scores
from raptorgraph.screen import Screen


@pytest.fixture(scope="module")
def screen(adata, setup):
    return Screen(adata.copy(), setup)


def test_conditions_draw_anew_and_the_same_each_time(screen):
    seeds = [_scores.draw_seed(seed, screen, label) for seed in (0, 1) for label in screen.labels]
    assert len(set(seeds)) == 2 * len(screen.labels)
    assert seeds == [_scores.draw_seed(seed, screen, label) for seed in (0, 1) for label in screen.labels]
    assert all(0 <= seed < 2**32 for seed in seeds)  # what numpy and torch take


def test_pairs_and_their_genes(screen):
    effects = screen.effects.sample(frac=1, random_state=0)
    a, b, ab = _scores.pair_effects(effects, screen.combinations, screen)
    for k, pair in enumerate(screen.combinations):
        first, second = pair.split("+")
        for found, label in ((a, first), (b, second), (ab, pair)):
            np.testing.assert_array_equal(found[k], screen.effects.loc[label])
    scores = _scores.interaction_scores(a, b, ab)
    assert list(scores) == list(_scores.TYPES)
    for type_, values in scores.items():
        assert values[0] == pytest.approx(float(getattr(metrics, type_)(a[0], b[0], ab[0])), rel=1e-9)


def test_cells_enough_for_two_samples(screen):
    n = len(screen.rows("P01"))
    assert _scores.large_enough(screen, ["P01", "control"], n // 2) == ["P01", "control"]
    assert _scores.large_enough(screen, ["P01", "control"], n // 2 + 1) == ["control"]
    assert _scores.sample_size(screen) == 20  # half of 40 cells
    assert [_scores.size_of_half(sizes) for sizes in ([90, 61], [3, 800], [501, 999])] == [30, 10, 250]


def test_measured_cells_in_place_of_a_prediction_are_right_about_everything(screen):
    cells = screen.adata[screen.codes > 0].copy()
    cells.X = screen.expression[screen.codes > 0]
    table = cell_scores(cells, screen, np.zeros(cells.n_vars), n_repeats=2, seed=1)
    found = table.pivot(index="condition", columns="metric", values="value").loc[screen.conditions]
    np.testing.assert_allclose(
        found[["variance_ratio", "overlap_at_50", "overlap_at_N", "precision_at_N"]], 1, rtol=1e-6
    )
    np.testing.assert_array_equal(found["de_direction_match"], 1)
    # and an added constant is a drift that is taken off before genes are tested
    cells.X = cells.X.toarray() + 0.5
    shifted = cell_scores(cells, screen, np.full(cells.n_vars, 0.5), n_repeats=2, seed=1)
    shifted = shifted.pivot(index="condition", columns="metric", values="value").loc[screen.conditions]
    np.testing.assert_array_equal(shifted["de_direction_match"], 1)
    assert (shifted["energy_distance"] > found["energy_distance"] + 0.1).all()


def test_floor_and_ceiling_are_those_of_samples_of_real_cells(screen):
    table = cell_references(screen, ["P01", "P02"], n_cells=15, n_repeats=3, seed=4)
    assert table["method"].unique().tolist() == [_scores.FLOOR, _scores.CEILING]
    real, control = screen.expression_of("P02"), screen.expression_of("control")
    seed = _scores.draw_seed(4, screen, "P02")
    draws = metrics.floor_and_ceiling(real, control, n_cells=15, n_repeats=3, seed=seed)
    means = draws.groupby("reference")["energy_distance"].mean()
    here = table[(table["condition"] == "P02") & (table["metric"] == "energy_distance")].set_index("method")["value"]
    assert here[_scores.FLOOR] == pytest.approx(means["floor"])
    assert here[_scores.CEILING] == pytest.approx(means["ceiling"])
    few = cell_references(screen, ["P01"], n_cells=10_000)
    assert few.empty
    assert few.columns.tolist() == ["method", "condition", "metric", "value"]


def test_effect_scores_of_a_known_error(screen):
    measured = screen.effects.loc[screen.combinations]
    found = _scores.effect_scores(0.5 * measured, measured, screen, screen.singles)
    assert found["relative_mse"] == pytest.approx(0.25)
    assert found["pearson_delta"] == found["cosine_delta"] == pytest.approx(1)
    assert found["mse"] == pytest.approx(0.25 * (measured.to_numpy() ** 2).mean())
    assert found["mae"] == pytest.approx(0.5 * measured.abs().to_numpy().mean())
    nothing = _scores.effect_scores(0 * measured, measured, screen, screen.singles)
    assert nothing["relative_mse"] == pytest.approx(1)
