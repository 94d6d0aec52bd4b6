import numpy as np
import pytest

from raptorgraph import benchmark
from raptorgraph.benchmark import _ablation_posterior as posterior
from raptorgraph.benchmark import _variants as variants
from raptorgraph.benchmark._settings import Settings


def test_ranks_of_a_perfect_model_are_those_of_the_truth():
    screen = benchmark.load_screen(Settings(screen="simulated-interacting"), 1)
    pairs = [label for label in screen.combinations if len(screen.genes_of[label]) == 2]
    a, b, ab = posterior.pair_effects(screen.effects, pairs, screen)
    true = posterior.interaction_scores(a, b, ab)
    drawn = {}
    for i, label in enumerate(pairs):
        drawn[label] = np.stack([a[i], b[i], ab[i]]), {type_: np.full(8, true[type_][i]) for type_ in posterior.TYPES}
    found = {table["variant"].iloc[0]: table.set_index("metric")["value"] for table in posterior._ranking(
        drawn, screen, "singles"
    )}  # fmt: skip
    for type_ in posterior.TYPES:
        # Of 40 pairs ten are positive, and all of them are among the first ten.
        assert found["score"][type_] == found["probability"][type_] == 1
        assert found[variants.CHANCE][type_] == pytest.approx(0.25)


def test_cells_of_a_seed_are_a_part_of_each_condition():
    screen = benchmark.load_screen(Settings(screen="simulated", quick=True), 1)
    first, again, other = (posterior._some_cells(screen, screen.singles, seed) for seed in (0, 0, 1))
    assert list(first.obs_names) == list(again.obs_names) != list(other.obs_names)
    counts = first.obs["perturbation"].value_counts()
    for label in [screen.control, *screen.singles]:
        assert counts[label] == round(0.9 * len(screen.rows(label)))
