import pandas as pd
import pytest
import scvi

from raptorgraph import RaptorGraphModel, benchmark
from raptorgraph.benchmark import Settings, load_screen
from raptorgraph.benchmark import _capacity as capacity
from raptorgraph.benchmark import _variants as variants

pytestmark = pytest.mark.usefixtures("few_steps")

QUICK = {"screen": "simulated", "quick": True, "n_jobs": 0, "progress": False}


def by_hand(seed):
    """Relative MSE, correlation and number of parameters of the model with 5 latents; errors of sums and of halves."""
    screen = load_screen(Settings(screen="simulated", quick=True), seed)
    train, test = screen.cells(screen.singles), list(variants.unseen_split(screen).test)
    scvi.settings.seed = seed
    RaptorGraphModel.setup_anndata(train, **screen.setup)
    model = RaptorGraphModel(train, n_latent=5, effect_posterior=False)
    model.train(max_epochs=2, enable_progress_bar=False, enable_checkpointing=False)
    measured = screen.effects.loc[test]

    def error(predicted, true=measured):
        return ((predicted - true).to_numpy() ** 2).sum() / (true.to_numpy() ** 2).sum()

    predicted = model.predict_effects(test)[measured.columns].astype(float)
    sums = pd.DataFrame([screen.effects.loc[label.split("+")].sum() for label in test], test)
    first, second = (screen.effects_of(rows).loc[test] for rows in screen.halves(seed))
    return {
        "relative MSE": error(predicted),
        "Pearson": predicted.corrwith(measured, axis=1).mean(),
        "parameters": sum(p.numel() for p in model.module.parameters() if p.requires_grad),
        "sums": error(sums),
        "halves": error(first, second),
    }


def test_it_runs_and_writes_tables_and_figure(tmp_path):
    found = benchmark.run("capacity", out=tmp_path, seeds=2, **QUICK)
    assert {"capacity.csv", "capacity.md", "capacity_long.csv", "capacity.png"} <= {p.name for p in tmp_path.iterdir()}
    long = found["capacity_long"].set_index(["preset", "latents per gene", "metric"]).sort_index()
    values, spread = long["value_mean"], long["value_sd"]

    # 5 perturbed genes
    for preset in variants.PRESETS:
        assert values[preset, "1", "latents"] == 5
        assert values[preset, "1.5", "latents"] == round(7.5)
        assert values[preset, "1.5", "parameters"] > values[preset, "1", "parameters"]
        for ratio in ("1", "1.5"):
            here = values[preset, ratio]
            assert 0 <= here["active latents"] <= here["latents"]
            # Precision@10 of 6 pairs is that of chance: 2 of them are positive
            assert here[list(variants.PRECISION.values())].to_numpy() == pytest.approx(2 / 6)
    hand = pd.DataFrame([by_hand(seed) for seed in (0, 1)])
    for metric in ("relative MSE", "Pearson", "parameters"):
        assert values["default", "1", metric] == pytest.approx(hand[metric].mean(), rel=1e-5)
        assert spread["default", "1", metric] == pytest.approx(hand[metric].std(), rel=1e-4, abs=1e-6)
    assert values["reference", variants.ADDITIVE, "relative MSE"] == pytest.approx(hand["sums"].mean())
    assert values["reference", variants.HALF, "relative MSE"] == pytest.approx(hand["halves"].mean())
    # other seeds are other screens
    assert spread["default", "1", "relative MSE"] > 0
    # printed values keep their place, beside floor and ceiling of the same data
    assert values["published", "1.5", "MK-MMD"] == 0.091
    reference = values["reference"]
    assert abs(reference[variants.FLOOR, "MK-MMD"]) < 0.2 * reference[variants.CEILING, "MK-MMD"]
    assert reference[variants.CHANCE, variants.PRECISION["synergy"]] == pytest.approx(2 / 6)  # 2 positive of 6 pairs
    table = found["capacity"]
    assert list(table["preset"]) == ["default"] * 2 + ["paper"] * 2 + ["reference"] * 5 + ["published"] * 5
    assert not table.isna().any().any()


def test_options_are_checked_before_any_work():
    def units(**options):
        return capacity.units(Settings(screen="simulated", quick=True, seeds=(0, 1), options=options))

    keys = [unit.key for unit in units(presets=["paper"], ratios=[1, 2.5])]
    assert keys == [f"{piece}-seed{seed}" for seed in (0, 1) for piece in ("reference", "paper-1", "paper-2.5")]
    assert {unit.options["preset"] for unit in units(presets="paper") if unit.options} == {"paper"}
    with pytest.raises(ValueError, match="ratios: 0.5 is below 1"):
        units(ratios=[0.5])
    with pytest.raises(ValueError, match="presets: 'best' is unknown; there are default, paper"):
        units(presets=["best"])
    full = capacity.units(Settings(screen="simulated", seeds=(0,)))
    assert [unit.options.get("ratio") for unit in full[1:6]] == [1, 1.25, 1.5, 2, 3]
    assert len(full) == 11


def test_a_screen_without_combinations_is_refused(tmp_path):
    screen = load_screen(Settings(screen="simulated", quick=True), seed=0)
    path = tmp_path / "singles.h5ad"
    screen.cells(screen.singles).write_h5ad(path)
    with pytest.raises(ValueError, match="No combination is left to test"):
        capacity.units(Settings(screen=str(path), setup={"library_size_key": "total_counts"}))
