import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raptorgraph.benchmark import Settings, load_screen
from raptorgraph.benchmark import _variants as variants
from raptorgraph.benchmark._settings import Part, Unit


@pytest.fixture(scope="module")
def screen():
    return load_screen(Settings(screen="simulated", quick=True), seed=0)


@pytest.fixture(scope="module")
def settings():
    return Settings(screen="simulated", quick=True)


def test_the_same_seed_gives_the_same_scores(screen, settings):
    timed = {"seconds to fit", "memory, MB"}
    first, second = (
        variants.fit_and_score(variants.variant("default", 3, settings, screen), screen, settings, 3) for _ in range(2)
    )
    assert {k: v for k, v in first.items() if k not in timed} == {k: v for k, v in second.items() if k not in timed}


def test_perfect_effects_get_perfect_scores(screen):
    test = variants.unseen_split(screen).test
    found = variants.effect_scores(screen.effects, screen.effects, screen, test)
    assert found["relative MSE"] == 0
    assert found["Pearson"] == pytest.approx(1)
    # all pairs are among the first ten, hence chance
    np.testing.assert_allclose([found[name] for name in variants.PRECISION.values()], 2 / 6)
    nothing = variants.effect_scores(0 * screen.effects, screen.effects, screen, test)
    assert nothing["relative MSE"] == 1
    assert np.isnan(nothing["Pearson"])


def test_the_strongest_pairs_are_found_among_many():
    """Of 20 pairs, five are synergistic: perfect effects find them first, and additive ones score chance."""
    settings = Settings(screen="simulated", quick=False)
    screen = load_screen(settings, seed=0)
    test = variants.unseen_split(screen).test
    perfect = variants.effect_scores(screen.effects, screen.effects, screen, test)
    n_positive = int(np.ceil(0.25 * len(test)))
    assert perfect[variants.PRECISION["synergy"]] == min(n_positive, 10) / 10
    sums = variants.reference_part(screen, Settings(screen="simulated", quick=True), 0, ["preset", "name"]).rows
    sums = sums[sums["name"] == variants.ADDITIVE].set_index("metric")["value"]
    for type_ in ("synergy", "suppression", "neomorphism"):
        assert sums[variants.PRECISION[type_]] == pytest.approx(n_positive / len(test))


def test_the_sum_of_singles_is_additive(screen, settings):
    rows = variants.reference_part(screen, settings, 0, ["preset", "name"]).rows.set_index(["name", "metric"])["value"]
    error = size = 0.0
    for label in variants.unseen_split(screen).test:
        truth = screen.effects.loc[label]
        error += ((sum(screen.effects.loc[gene] for gene in label.split("+")) - truth) ** 2).sum()
        size += (truth**2).sum()
    assert rows[variants.ADDITIVE, "relative MSE"] == pytest.approx(error / size)


def test_summary_has_variants_then_references_then_printed_values():
    by = ["preset", "name"]

    def part(seed, value):
        rows = [("reference", "chance", "x", 0.5), ("a", 1.5, "x", value)]
        return Unit(f"seed{seed}", seed), Part(pd.DataFrame(rows, columns=[*by, "metric", "value"]))

    parts = [part(0, 1.0), part(1, 3.0)]
    summary = variants.summarize(parts, by, [("published", "1.5", "x", 9.0)])
    assert summary["preset"].tolist() == ["a", "reference", "published"]
    assert summary["name"].tolist() == ["1.5", "chance", "1.5"]
    assert summary["value_mean"].tolist() == [2.0, 0.5, 9.0]
    assert summary["n"].tolist() == [2, 2, 0]
    assert summary["value_sd"][0] == pytest.approx(np.sqrt(2))
    assert np.isnan(summary["value_sd"][2])
    assert variants.summarize(parts, by).equals(summary[:2])


def test_cells_are_scored_between_floor_and_ceiling_of_the_same_draws(screen, settings):
    """Measured cells as predictions score no worse than the floor, control cells as the ceiling."""

    class Copy:
        """Predicts cells that were measured: those of the condition, or of control."""

        def __init__(self, control):
            self.control = control

        def fit(self, adata):
            return self

        def predict_effects(self, labels):
            return screen.effects.loc[labels]

        def predict(self, label, n_cells, seed):
            asked.append((label, seed))
            rows = screen.rows(screen.control if self.control else label)
            return ad.AnnData(screen.expression[np.random.default_rng(seed).choice(rows, n_cells)])

    asked = []
    rows = variants.reference_part(screen, settings, 0, ["preset", "name"]).rows.set_index(["name", "metric"])["value"]
    floor, ceiling = rows[variants.FLOOR, "MK-MMD"], rows[variants.CEILING, "MK-MMD"]
    real, control = (variants.fit_and_score(Copy(control), screen, settings, 0) for control in (False, True))
    # some of them are the very cells that they are compared with
    assert real["MK-MMD"] < floor + 0.1 * (ceiling - floor)
    assert control["MK-MMD"] == pytest.approx(ceiling, rel=0.2)
    assert real["relative MSE"] == 0
    assert real["variance ratio"] == pytest.approx(1, rel=0.3)
    # each condition has draws of its own, the same for both methods
    seeds = dict(asked)
    assert len(asked) == 2 * len(seeds)
    assert len(set(seeds.values())) == len(seeds) > 1
    assert set(asked) == set(seeds.items())


def test_a_variant_has_the_epochs_and_the_arguments_of_the_request(screen):
    settings = Settings(screen="simulated", quick=True, options={"max_epochs": 7})
    method = variants.variant("paper", 3, settings, screen, plan_kwargs={"mu": 0.5})
    assert (method.preset, method.seed, method.max_epochs, method.plan_kwargs) == ("paper", 3, 7, {"mu": 0.5})
    assert variants.variant("default", 0, Settings(screen="simulated"), screen).max_epochs is None
