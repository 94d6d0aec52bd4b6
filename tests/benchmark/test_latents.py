import numpy as np
import pandas as pd
import pytest

from raptorgraph import benchmark, datasets
from raptorgraph.benchmark import Settings
from raptorgraph.benchmark import _embeddings as embeddings
from raptorgraph.benchmark import _latents as latents
from raptorgraph.benchmark._settings import Part, Unit
from raptorgraph.screen import Screen

pytestmark = pytest.mark.usefixtures("few_steps")
SMALL = {"n_doubles": 2, "n_control_cells": 60, "n_cells_per_perturbation": 40, "n_truth_cells": 2}


def test_run(tmp_path):
    tables = benchmark.run("latents", screen="simulated", out=tmp_path, seeds=1, quick=True, n_jobs=0, progress=False)
    assert (tmp_path / "latents.png").stat().st_size > 10_000
    names = ("latents", "latents_own", "latents_differences", "latents_long", "latents_perturbations")
    assert set(tables) == set(names)
    assert all((tmp_path / f"{name}.md").exists() for name in names)
    ours = [name + kind for name in embeddings.OURS for kind in ("", ", own latents")]
    assert tables["latents"]["method"].tolist() == [*ours, "PCA", "scVI", "contrastiveVI", "chance"]
    assert tables["latents"]["latents"].tolist() == ["9", "5", "9", "5", "9", "9", "9", "-"]
    mean = tables["latents_long"].set_index(["metric", "method"])["value_mean"]
    for metric in (latents.NEIGHBORS, latents.LOGISTIC):
        assert mean[metric, "chance"] == pytest.approx(1 / 14)  # control, 5 singles and 8 doubles
        assert mean[metric, "PCA"] > 2 / 14
    assert mean[latents.RANK, "chance"] == 3
    assert tables["latents_own"]["method"].tolist() == [*embeddings.OURS, "chance"]
    assert tables["latents_differences"]["method"].tolist() == [*ours, "scVI", "contrastiveVI"]
    assert set(tables["latents_perturbations"]["perturbation"]) == {f"P{k:02d}" for k in range(1, 6)}


def test_differences_are_paired():
    rows = [
        (method, latents.ALL, latents.NEIGHBORS, seed, base + 0.1 * off + 0.05 * off * seed)
        for method, off in (("scVI", 1), ("PCA", 0), ("chance", -1))
        for seed, base in enumerate((0.2, 0.9))
    ]
    found = latents.differences(pd.DataFrame(rows, columns=["method", "perturbation", "metric", "seed", "value"]))
    assert found["method"].tolist() == ["scVI"]
    assert found["value_mean"].tolist() == pytest.approx([0.125])  # .1 and .15, whatever the seeds' level
    assert found["value_sd"].tolist() == pytest.approx([0.05 / np.sqrt(2)])


def test_scores_of_latents_that_know_the_condition_or_nothing():
    screen = Screen(datasets.simulate(40, 4, n_batches=2, **SMALL), {"batch_key": "batch"})
    parted = embeddings.hold_out(screen, 0)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(len(parted.test), 7))
    known = latents.score(noise + 30 * np.eye(7)[parted.codes], parted, 0)
    nothing, chance = latents.score(noise, parted, 0), latents.by_chance(parted)
    assert known[latents.NEIGHBORS] == known[latents.LOGISTIC] == 1
    assert known[latents.SILHOUETTE] > 0.8
    assert nothing[latents.SILHOUETTE] < 0
    for name in (latents.NEIGHBORS, latents.LOGISTIC, latents.MIXING):
        assert nothing[name] == pytest.approx(chance[name], abs=0.1)
    apart = latents.score(noise + 100 * screen.batch[parted.test, None], parted, 0)
    assert apart[latents.MIXING] == 0
    assert chance[latents.LARGEST] == 1 / 4


def test_overall_scores_of_own_latents():
    columns = [embeddings.N_CELLS, *latents.OF_OWN]
    own = pd.DataFrame([[10, 1.0, 1.0, 0.9, 2.0, 3.0], [30, 0.2, 3.0, 0.5, 1.0, 2.0]], columns=columns)
    assert list(latents.over_all(own).values()) == pytest.approx([0.4, 2.5, 0.7, 1.5, 2.5])
    assert latents.over_all(pd.DataFrame()) == {}


@pytest.mark.filterwarnings("ignore:adata.X holds logarithms")
def test_screens_of_logarithms_have_no_models_of_counts(tmp_path):
    adata = datasets.simulate(40, 3, **SMALL)
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(1e4 * adata.X.toarray() / adata.obs["total_counts"].to_numpy()[:, None])
    adata.write_h5ad(tmp_path / "screen.h5ad")
    settings = Settings(screen=str(tmp_path / "screen.h5ad"), seeds=(0,))
    found = [unit.options["method"] for unit in latents.units(settings)]
    assert found == [*embeddings.OURS, "PCA", "chance"]
    asked = Settings(screen=settings.screen, seeds=(0,), options={"methods": ["scVI"]})
    with pytest.raises(ValueError, match="'scVI' needs counts"):
        latents.units(asked)
    of_counts = Settings(screen=settings.screen, seeds=(0,), setup={"layer": "counts"}, options=asked.options)
    assert [unit.options["method"] for unit in latents.units(of_counts)] == ["scVI", "chance"]


def test_tables_without_our_model_and_pca():
    rows = pd.DataFrame([("scVI", latents.ALL, latents.NEIGHBORS, 0.5)], columns=latents._COLUMNS)
    chance = rows.assign(method=latents.CHANCE, value=0.1)
    tables = latents.tables([(Unit("a", 0), Part(pd.concat([rows, chance])))], Settings())
    assert set(tables) == {"latents", "latents_long"}
    assert tables["latents"][latents.NEIGHBORS].tolist() == ["0.500", "0.100"]
    assert len(latents.draw(tables).axes) == 1


def test_silhouettes_below_0_are_drawn_at_their_place():
    rows = [(name, latents.SILHOUETTE, value, 0.1, 2) for name, value in (("scVI", -0.3), ("PCA", -0.1))]
    long = pd.DataFrame(rows, columns=["method", "metric", "value_mean", "value_sd", "n"])
    [ax] = latents.draw({"latents_long": long}).axes
    low, high = ax.get_xlim()
    assert low < -0.4
    assert high > 0
    assert sorted(float(line.get_xdata()[0]) for line, *_ in ax.containers) == [-0.3, -0.1]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"methods": ["additive"]}, "'additive' has no latents"),
        ({"conditions": "some"}, "conditions='some' is unknown"),
    ],
)
def test_bad_options(options, match):
    with pytest.raises(ValueError, match=match):
        latents.units(Settings(screen="simulated", quick=True, seeds=(0,), options=options))
