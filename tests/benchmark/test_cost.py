"""Exponents and what they are fitted to."""

import time

import numpy as np
import pandas as pd
import pytest

from raptorgraph.benchmark._cost import ADDED, CPU, PEAK, WALL, Meter, _peak, exponent, exponents


def test_exponents_are_those_of_a_regression_of_logarithms():
    rng = np.random.default_rng(0)
    sizes = np.repeat([10.0, 20, 40, 80], 3)
    values = 3 * sizes**1.7 * np.exp(0.1 * rng.standard_normal(12))
    design = np.column_stack([np.ones(12), np.log(sizes)])
    beta, residual, *_ = np.linalg.lstsq(design, np.log(values), rcond=None)
    error = np.sqrt(residual[0] / 10 * np.linalg.inv(design.T @ design)[1, 1])
    assert exponent(sizes, values) == pytest.approx((beta[1], error))
    slope, error = exponent([10, 20], [1, 4])
    assert slope == pytest.approx(2)
    assert np.isnan(error)
    assert np.isnan(exponent([10, 10], [1, 2])).all()
    assert exponent([10, 20, 40], [0, 1, 2])[0] == pytest.approx(1)  # nothing was added at 10

    rows = pd.DataFrame({"stage": ["a"] * 4 + ["b"] * 2, "size": [1, 2, 1, 2, 1, 2], "value": [1, 2, 1, 2, 5, 5]})
    found = exponents(rows, ["stage"], "size")
    assert found["exponent"].tolist() == pytest.approx([1, 0])
    assert found["text"].tolist() == ["1.00 +- 0.00", "0.00"]


def test_a_meter_measures_every_stage_by_itself():
    meter = Meter()
    with meter.stage("idle"):
        time.sleep(0.05)
    with meter.stage("memory"):
        block = np.ones(20_000_000)
    del block
    with meter.stage("nothing"):
        pass
    found = meter.table().pivot(index="stage", columns="metric", values="value")
    assert list(dict.fromkeys(meter.table()["metric"])) == [CPU, WALL, PEAK, ADDED]
    assert found.loc["idle", WALL] >= 0.05 > found.loc["idle", CPU]
    assert 0.15 < found.loc["memory", ADDED] < 0.3
    assert found.loc["nothing", ADDED] < 0.01
    assert found.loc["memory", PEAK] <= _peak() / 1e9 + 0.3


def test_the_peak_of_a_stage_holds_those_inside_and_between():
    meter = Meter()
    with meter.stage("outer"):
        with meter.stage("first"):
            pass
        block = np.ones(20_000_000)
        del block
        with meter.stage("second"):
            pass
    found = meter.table().pivot(index="stage", columns="metric", values="value")
    assert 0.15 < found.loc["outer", ADDED] < 0.3
    assert found.loc["second", ADDED] < 0.01


def test_calls_by_others_are_measured():
    class Owner:
        def work(self, number):
            return 2 * number

    meter, function = Meter(), Owner.work
    with meter.around(Owner, "work", "stage"):
        assert Owner().work(3) == 6
    assert Owner.work is function
    assert meter.table()["stage"].tolist() == ["stage"] * 4
