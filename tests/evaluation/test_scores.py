import numpy as np
import pytest

from raptorgraph import metrics
from raptorgraph.benchmark import Settings, load_screen
from raptorgraph.evaluation import _scores


@pytest.fixture(scope="module")
def screen():
    return load_screen(Settings("simulated", quick=True))


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


def test_number_of_samples():
    assert [_scores.n_repeats_of(Settings(quick=quick)) for quick in (True, False)] == [2, 5]
    assert _scores.n_repeats_of(Settings(options={"n_repeats": 9})) == 9
