import numpy as np
import pandas as pd
import pytest

from raptorgraph import benchmark
from raptorgraph.benchmark import Settings, _scale
from raptorgraph.benchmark._cost import CPU, METRICS
from raptorgraph.benchmark._settings import Part, Unit


def test_it_runs_and_writes_tables_and_figure(tmp_path):
    options = {"quick": True, "seeds": 1, "n_jobs": 0, "progress": False, "axes": ["perturbations"]}
    found = benchmark.run("scale", out=tmp_path, **options)
    assert {"scale.csv", "scale_projection.csv", "scale_long.csv", "scale.png"} <= {p.name for p in tmp_path.iterdir()}
    long = found["scale_long"]
    assert set(long["stage"]) == set(_scale.STAGES)
    sizes = long[["cells", "genes", "perturbations", "latents"]].drop_duplicates()
    assert sizes.to_numpy().tolist() == [[200, 30, 4, 9], [200, 30, 6, 11]]
    assert len(long) == 2 * len(_scale.STAGES) * len(METRICS)
    assert (long.loc[long["metric"] == CPU, "value_mean"] > 0).all()
    assert list(found["scale"].columns) == ["stage", "metric", "common screen", "perturbations"]


def parts(seeds=(0, 1, 2)):
    """Costs that are powers of the sizes."""
    settings = Settings(seeds=seeds)
    for unit in _scale.units(settings):
        size = dict(unit.options)
        cost = 2e-3 * size["cells"] * (size["genes"] / 1000) ** 0.5 * (size["perturbations"] / 50) ** 2
        rows = [(stage, metric, cost) for stage in _scale.STAGES for metric in METRICS]
        yield unit, Part(pd.DataFrame(rows, columns=["stage", "metric", "value"]).assign(**size))


def test_exponents_and_projection_of_powers_are_theirs():
    found = _scale.tables(list(parts()), Settings(seeds=(0, 1, 2)))
    slopes = found["scale_exponents"].set_index(["stage", "metric", "axis"])["exponent"]
    for axis, power in {"cells": 1, "genes": 0.5, "perturbations": 2, "latents": 0}.items():
        np.testing.assert_allclose(slopes.xs(axis, level="axis"), power, atol=1e-9)
    assert found["scale"]["common screen"].iloc[0] == "40.0 +- 0.0"
    assert found["scale"]["perturbations"].iloc[0] == "2.00 +- 0.00"
    hours = 40 / 3600 * 125 * 5**0.5 * (9900 / 50) ** 2
    projected = found["scale_projection"].set_index(["machine", "stage"])["projected hours"].astype(float)
    assert projected["1 machine", "epoch"] == pytest.approx(hours, rel=0.05)
    assert projected["8 GPUs", "epoch"] == pytest.approx(hours / 8, rel=0.05)
    assert projected["16 Dask workers", "sums"] == pytest.approx(hours / 16, rel=0.05)
    assert projected["8 GPUs", "posterior"] == pytest.approx(hours, rel=0.05)
    assert projected["8 GPUs", "all"] == pytest.approx(8 * hours + hours / 8, rel=0.05)


def test_options_are_checked_before_any_work():
    def units(**options):
        return _scale.units(Settings(seeds=(0,), options=options))

    assert len(units()) == 1 + 4 * 3  # the common screen is on all axes
    assert isinstance(units(axes="cells")[0], Unit)
    assert len({unit.options["genes"] for unit in units(axes=["cells"])}) == 1
    with pytest.raises(ValueError, match="axes: 'batches' is unknown"):
        units(axes=["batches"])
    with pytest.raises(ValueError, match="target: batches=3 is none of cells, genes, perturbations"):
        units(target={"batches": 3})
