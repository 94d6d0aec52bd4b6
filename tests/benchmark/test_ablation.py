import json

import numpy as np
import pandas as pd
import pytest
import scvi
from scipy.stats import norm

from raptorgraph import RaptorGraphModel, benchmark
from raptorgraph.benchmark import _ablation as ablation
from raptorgraph.benchmark import _ablation_network as network
from raptorgraph.benchmark import _ablation_posterior as posterior
from raptorgraph.benchmark import _variants as variants
from raptorgraph.benchmark._settings import Part, Settings, Unit

OPTIONS = {"quick": True, "n_jobs": 0, "progress": False, "n_repeats": 1, "max_epochs": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory, few_steps):
    """Folder and tables of both halves, on a screen that is simulated since none is given."""
    out = tmp_path_factory.mktemp("ablation")
    return out, benchmark.run("ablation", out=out, seeds=1, **OPTIONS)


@pytest.fixture(scope="module")
def screen():
    """The screen of that run."""
    return benchmark.load_screen(Settings(screen=ablation.SIMULATED, quick=True), 0)


@pytest.fixture(scope="module")
def value(run):
    """Scores by half, regime, variant and metric, of the one seed."""
    return run[1]["ablation_long"].set_index([*posterior.BY, "metric"])["value_mean"].sort_index()


def test_every_part_has_a_row(run):
    out, tables = run
    assert list(dict.fromkeys(tables["ablation"]["variant"])) == list(posterior.POSTERIOR)
    assert set(tables["ablation"]["regime"]) == {"singles", "doubles"}
    rows = list(network.NETWORK)
    assert tables["ablation_cells"]["variant"].tolist() == [variants.FLOOR, variants.CEILING, *rows]
    assert list(tables["ablation_cells"].columns) == ["variant", *ablation.CELL_SCORES]
    assert tables["ablation_network"]["variant"].tolist() == [variants.ADDITIVE, *rows]
    assert set(tables["ablation_network"].columns) == {"variant", *network.NETWORK_SCORES}
    assert tables["ablation_differences"]["variant"].tolist() == [name for name in rows if name != ablation.DEFAULT]
    assert set(tables["ablation_posterior_differences"]["variant"]) == set(posterior.POSTERIOR) - {ablation.DEFAULT}
    for name in ("ablation", "ablation_differences", "ablation_calibration"):
        assert (out / f"{name}.png").stat().st_size > 10_000


def test_parts_do_what_their_row_says(value):
    value = value.xs("singles", level="regime")["network"]
    assert value["without graph", network.EDGES] == 0
    # the same mean effects, and of the cells' response to them only what library sizes make of it
    assert value[network.NO_NETWORK, network.EFFECTS] == value[ablation.DEFAULT, network.EFFECTS]
    assert value[network.NO_NETWORK, network.RESPONSE] < 0.5 * value[ablation.DEFAULT, network.RESPONSE]
    shared = value["linear start, not trained", network.RESPONSE], value["one shift in all states", network.RESPONSE]
    assert shared[1] < shared[0]
    assert value["noise drawn anew", ablation.MMD] != value[ablation.DEFAULT, ablation.MMD]
    assert value["noise drawn anew", network.DECODER] == value[ablation.DEFAULT, network.DECODER]
    # one epoch was asked for of all
    assert value["one epoch"].equals(value[ablation.DEFAULT])


# -- the half of the posterior ---------------------------------------------------------------------------------------
def test_every_part_of_the_posterior_has_a_row_in_both_regimes(value):
    for regime in ("singles", "doubles"):
        assert set(value["posterior", regime].index.get_level_values("variant")) == set(posterior.POSTERIOR)
    covered = [value["posterior", "singles", posterior.DEFAULT, posterior.COVERAGE.format(x)] for x in posterior.LEVELS]
    assert (np.diff(covered) > 0).all()
    default, plain = (value["posterior", "singles", name, "relative MSE"] for name in ("default", "posterior mean"))
    assert default != plain


def test_pairs_are_ranked_in_every_way(value):
    ranking = value["ranking"]
    assert set(ranking.index.get_level_values("regime")) == {"singles", "doubles"}
    by_type = ranking.drop("mean of all", level="metric")
    assert by_type.between(0, 1).all()
    for (regime, way), mean in by_type.groupby(["regime", "variant"]).mean().items():
        assert ranking[regime, way, "mean of all"] == pytest.approx(mean)
    # The sum of two effects is as long as itself: additive sums say nothing of synergy.
    chance = ranking["singles", variants.CHANCE, "synergy"]
    assert ranking["singles", variants.ADDITIVE, "synergy"] == pytest.approx(chance)


def test_scores_of_the_posterior_are_those_of_its_effects(value, screen, few_steps):
    train = posterior._some_cells(screen, screen.singles, 0)
    RaptorGraphModel.setup_anndata(train, **screen.setup)
    scvi.settings.seed = 0
    model = RaptorGraphModel(train)
    model.train(max_epochs=1, enable_progress_bar=False, enable_checkpointing=False)
    test = list(variants.unseen_split(screen).test)
    mean, sd = (frame[screen.adata.var_names] for frame in model.predict_effects(test, return_sd=True))
    measured = screen.effects.loc[test]
    off, sampling = mean - measured, screen.moments.variance[[screen.labels.index(label) for label in test]]
    expected = {
        "relative MSE": (off**2).to_numpy().sum() / (measured**2).to_numpy().sum(),
        "Pearson": mean.corrwith(measured, axis=1).mean(),
        "coverage of 90%": (off.abs() < norm.ppf(0.95) * np.sqrt(sd**2 + sampling)).to_numpy().mean(),
        "coverage of 90%, intervals alone": (off.abs() < norm.ppf(0.95) * sd).to_numpy().mean(),
    }
    found = value["posterior", "singles", posterior.DEFAULT]
    assert found[list(expected)].to_dict() == pytest.approx(expected, rel=1e-4)


# -- tables ----------------------------------------------------------------------------------------------------------
def test_differences_are_those_to_the_default_of_the_same_seed():
    def part(seed, variant, value):
        rows = [("network", "singles", variant, metric, value) for metric in (ablation.MMD, network.EDGES)]
        unit = Unit(f"{variant}{seed}", seed, {"half": "network", "variant": variant})
        return unit, Part(pd.DataFrame(rows, columns=[*ablation.BY, "metric", "value"]))

    values = {"default": (0.1, 0.5), "one epoch": (0.12, 0.54)}
    parts = [part(seed, variant, value[seed]) for seed in (0, 1) for variant, value in values.items()]
    table = ablation.tables(parts, Settings())["ablation_differences"]
    assert table.to_dict("records") == [{"variant": "one epoch", ablation.MMD: "0.0300 +- 0.0141"}]


def test_rows_that_are_asked_for_have_the_default_beside_them():
    settings = Settings(quick=True, seeds=(0, 1), options={"halves": "network", "variants": "one epoch"})
    units = ablation.ABLATION.units(settings)
    assert [unit.options["variant"] for unit in units] == 2 * [None, ablation.DEFAULT, "one epoch"]
    assert [unit.seed for unit in units] == [0, 0, 0, 1, 1, 1]
    with pytest.raises(ValueError, match="variants: 'random pairing' is unknown"):
        ablation.ABLATION.units(Settings(quick=True, options={"variants": ["random pairing"]}))
    with pytest.raises(ValueError, match="state: 'phase' is no column of obs"):
        ablation.ABLATION.units(Settings(quick=True, options={"state": "phase"}))


def test_the_default_alone_has_no_differences(tmp_path, few_steps):
    tables = benchmark.run("ablation", out=tmp_path, seeds=1, halves="network", variants="default", **OPTIONS)
    assert "ablation_differences" not in tables
    assert json.loads((tmp_path / "ablation.json").read_text())["tables"] == list(tables)
