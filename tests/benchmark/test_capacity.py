import numpy as np
import pandas as pd
import pytest

from raptorgraph import benchmark
from raptorgraph.benchmark import Settings, load_screen
from raptorgraph.benchmark import _capacity as capacity
from raptorgraph.benchmark._settings import Part, Unit

QUICK = {"screen": "simulated", "quick": True, "n_jobs": 0, "progress": False}


@pytest.fixture(scope="module")
def screen():
    return load_screen(Settings(screen="simulated", quick=True), seed=0)


@pytest.fixture(scope="module")
def settings():
    return Settings(screen="simulated", quick=True)


def test_it_runs_and_writes_tables_and_figure(tmp_path):
    found = benchmark.run("capacity", out=tmp_path, seeds=2, **QUICK)
    assert {"capacity.csv", "capacity.md", "capacity_long.csv", "capacity.png"} <= {p.name for p in tmp_path.iterdir()}
    long = found["capacity_long"].set_index(["preset", "latents per gene", "metric"]).sort_index()
    values, spread = long["value_mean"], long["value_sd"]

    # 5 perturbed genes
    for preset in capacity.PRESETS:
        assert values[preset, "1", "latents"] == 5 and values[preset, "1.5", "latents"] == round(7.5)
        assert values[preset, "1.5", "parameters"] > values[preset, "1", "parameters"]
        for ratio in ("1", "1.5"):
            here = values[preset, ratio]
            assert 0 <= here["active latents"] <= here["latents"]
            assert here["relative MSE"] > 0 and -1 <= here["Pearson"] <= 1 and here["MK-MMD"] < 20
            assert here[list(capacity.PRECISION.values())].between(0, 1).all()
            assert here["seconds to fit"] > 0
    # other seeds are other screens
    assert spread["default", "1", "relative MSE"] > 0
    # printed values keep their place, beside floor and ceiling of the same data
    assert values["published", "1.5", "MK-MMD"] == 0.091
    reference = values["reference"]
    assert abs(reference[capacity.FLOOR, "MK-MMD"]) < 0.2 * reference[capacity.CEILING, "MK-MMD"]
    assert reference[capacity.CHANCE, capacity.PRECISION["synergy"]] == pytest.approx(2 / 6)  # 2 positive of 6 pairs
    table = found["capacity"]
    assert list(table["preset"]) == ["default"] * 2 + ["paper"] * 2 + ["reference"] * 5 + ["published"] * 5
    assert not table.isna().any().any()


def test_the_same_seed_gives_the_same_scores(screen, settings):
    timed = {"seconds to fit", "memory, MB"}
    first, second = (capacity.fit_and_score(screen, 3, settings, "default")[1] for _ in range(2))
    assert {k: v for k, v in first.items() if k not in timed} == {k: v for k, v in second.items() if k not in timed}


def test_options_are_checked_before_any_work(settings):
    def units(**options):
        return capacity.units(Settings(screen="simulated", quick=True, seeds=(0, 1), options=options))

    keys = [unit.key for unit in units(presets=["paper"], ratios=[1, 2.5])]
    assert keys == ["reference-seed0", "reference-seed1", *(f"paper-{r}-seed{s}" for r in ("1", "2.5") for s in (0, 1))]
    assert {unit.options["preset"] for unit in units(presets="paper")[2:]} == {"paper"}
    with pytest.raises(ValueError, match="ratios: 0.5 is below 1"):
        units(ratios=[0.5])
    with pytest.raises(ValueError, match="presets: 'best' is unknown; there are default, paper"):
        units(presets=["best"])
    full = capacity.units(Settings(screen="simulated", seeds=(0,)))
    assert [unit.options.get("ratio") for unit in full[1:6]] == [1, 1.25, 1.5, 2, 3] and len(full) == 11


def test_a_screen_without_combinations_is_refused(tmp_path):
    screen = load_screen(Settings(screen="simulated", quick=True), seed=0)
    path = tmp_path / "singles.h5ad"
    screen.cells(screen.singles).write_h5ad(path)
    with pytest.raises(ValueError, match="No combination is left to test"):
        capacity.units(Settings(screen=str(path), setup={"library_size_key": "total_counts"}))


def test_perfect_effects_get_perfect_scores(screen):
    test = capacity.unseen_split(screen).test
    found = capacity.effect_scores(screen.effects, screen.effects, screen, test)
    assert found["relative MSE"] == 0 and found["Pearson"] == pytest.approx(1)
    # all pairs are among the first ten, hence chance
    np.testing.assert_allclose([found[name] for name in capacity.PRECISION.values()], 2 / 6)
    nothing = capacity.effect_scores(0 * screen.effects, screen.effects, screen, test)
    assert nothing["relative MSE"] == 1 and np.isnan(nothing["Pearson"])


def test_the_strongest_pairs_are_found_among_many():
    """Of 20 pairs, five are synergistic: perfect effects find them first, and additive ones score chance."""
    settings = Settings(screen="simulated", quick=False)
    screen = load_screen(settings, seed=0)
    test = capacity.unseen_split(screen).test
    perfect = capacity.effect_scores(screen.effects, screen.effects, screen, test)
    n_positive = int(np.ceil(0.25 * len(test)))
    assert perfect[capacity.PRECISION["synergy"]] == min(n_positive, 10) / 10
    sums = capacity.reference_part(screen, 0, Settings(screen="simulated", quick=True), ["preset", "name"]).rows
    sums = sums[sums["name"] == capacity.ADDITIVE].set_index("metric")["value"]
    for type_ in ("synergy", "suppression", "neomorphism"):
        assert sums[capacity.PRECISION[type_]] == pytest.approx(n_positive / len(test))


def test_the_sum_of_singles_is_additive(screen, settings):
    rows = capacity.reference_part(screen, 0, settings, ["preset", "name"]).rows.set_index(["name", "metric"])["value"]
    error = size = 0.0
    for label in capacity.unseen_split(screen).test:
        truth = screen.effects.loc[label]
        error += ((sum(screen.effects.loc[gene] for gene in label.split("+")) - truth) ** 2).sum()
        size += (truth**2).sum()
    assert rows[capacity.ADDITIVE, "relative MSE"] == pytest.approx(error / size)


def test_summary_has_variants_then_references_then_printed_values():
    by = ["preset", "name"]

    def part(seed, value):
        rows = [("reference", "chance", "x", 0.5), ("a", 1.5, "x", value)]
        return Unit(f"seed{seed}", seed), Part(pd.DataFrame(rows, columns=[*by, "metric", "value"]))

    printed = pd.DataFrame([("published", "1.5", "x", 9.0)], columns=[*by, "metric", "value"])
    summary = capacity.summarize([part(0, 1.0), part(1, 3.0)], printed, by)
    assert summary["preset"].tolist() == ["a", "reference", "published"]
    assert summary["name"].tolist() == ["1.5", "chance", "1.5"]
    assert summary["value_mean"].tolist() == [2.0, 0.5, 9.0] and summary["n"].tolist() == [2, 2, 0]
    assert summary["value_sd"][0] == pytest.approx(np.sqrt(2)) and np.isnan(summary["value_sd"][2])
