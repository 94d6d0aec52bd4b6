import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from raptorgraph.benchmark._losses_study import (
    OUTPUTS,
    against_published,
    losses_study,
    published_losses,
    verdict,
)

SMALL = {"n_samples": 60, "n_features": 400}


def values(table):
    return table.set_index(["metric", "output"])["value"]


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_squared_errors_have_their_expected_values(sparsity):
    tables = [losses_study(sparsity, seed=seed, metrics=("mse",), **SMALL) for seed in range(30)]
    mean = pd.concat(tables).groupby("output")["value"].mean()
    n = SMALL["n_samples"]
    variance = 1 - sparsity  # the shift moves whole features and adds none
    assert mean["paired"] == pytest.approx(0.01, rel=0.01)
    # 4 standard errors, as E y^4 = 3 (1 - sparsity)
    error = np.sqrt((3 * variance - variance**2) / (30 * n * SMALL["n_features"]))
    assert mean["collapsed"] == pytest.approx(variance * (1 - 1 / n), abs=4 * error)
    # over all permutations of the same rows the mean is exactly twice
    assert mean["permuted"] == pytest.approx(2 * mean["collapsed"], rel=0.01)


def test_transport_ignores_order_and_is_the_error_of_a_collapsed_output():
    score = values(losses_study(0.5, seed=0, **SMALL))
    assert score["ot", "permuted"] == pytest.approx(0, abs=1e-9)
    # every cell goes to the same point, and every noisy cell is nearest to its own
    for output in ("collapsed", "paired"):
        assert score["ot", output] == pytest.approx(score["mse", output] * SMALL["n_features"])


def test_transport_is_the_best_assignment():
    # at this sparsity the noise is as large as the distances, and the best plan is not the identity
    size = {"n_samples": 80, "n_features": 50}
    score = values(losses_study(0.99, seed=1, metrics=("mse", "ot"), **size))
    rng = np.random.default_rng(1)
    truth = rng.standard_normal((80, 50)) * (rng.random((80, 50)) >= 0.99) + 2
    cost = cdist(truth + 0.1 * rng.standard_normal((80, 50)), truth, "sqeuclidean")
    best = cost[linear_sum_assignment(cost)].mean()
    assert score["ot", "paired"] == pytest.approx(best)
    assert best < 0.999 * score["mse", "paired"] * 50


def test_mmd_of_permuted_and_collapsed_outputs():
    # in many dimensions all cells are 2 d from each other and d from their mean (squared)
    n, d = 200, 2000
    score = values(losses_study(0.0, seed=0, n_samples=n, n_features=d, metrics=("mk_mmd",)))
    base = (n * (n - 1) * 2 * d + 2 * n * n * d) / (2 * n * (2 * n - 1))
    scales = base * 2.0 ** np.arange(-2, 3)
    between, to_mean = np.exp(-2 * d / scales).sum(), np.exp(-d / scales).sum()
    assert score["mk_mmd", "collapsed"] == pytest.approx(between + 5 - 2 * to_mean, abs=0.01)
    scales = 2 * d * (n - 1) / (n - 0.5) * 2.0 ** np.arange(-2, 3)
    between = np.exp(-2 * d / scales).sum()
    assert score["mk_mmd", "permuted"] == pytest.approx(-2 / n * (5 - between), rel=0.01)


def test_columns_order_and_seed():
    table = losses_study(0.9, seed=3, **SMALL)
    assert list(table.columns) == ["sparsity", "metric", "output", "value"]
    assert table["output"].tolist() == list(OUTPUTS) * 3
    pd.testing.assert_frame_equal(table, losses_study(0.9, seed=3, **SMALL))
    assert not table["value"].equals(losses_study(0.9, seed=4, **SMALL)["value"])


def test_the_published_table_read_correctly():
    published = published_losses()
    assert len(published) == 27
    read = verdict(published).set_index(["sparsity", "metric"])
    # at 99 % the squared error still prefers the pairs, 0.0100 to 0.0101, against the paper's verdict
    assert read.loc[(0.99, "mse"), "preferred"] == "paired"
    assert read.loc[(0.99, "mse"), "margin"] == pytest.approx(0.0001)
    assert read.xs("mse", level="metric")["finds_pairs"].all()
    assert not read.drop("mse", level="metric")["finds_pairs"].any()
    assert read.loc[(0.99, "ot"), "preferred"] == "permuted"


def test_verdict_averages_seeds_and_names_ties():
    rows = [
        ("paired", 1.0),
        ("permuted", 2.0),
        ("collapsed", 3.0),
        ("paired", 4.0),
        ("permuted", 3.0),
        ("collapsed", 3),
    ]
    table = pd.DataFrame([(0.5, "mse", *row) for row in rows], columns=["sparsity", "metric", "output", "value"])
    (row,) = verdict(table).itertuples()
    assert (row.preferred, row.margin, row.finds_pairs) == ("paired=permuted", 0, False)
    (row,) = verdict(table.iloc[:3]).itertuples()
    assert (row.preferred, row.margin, row.finds_pairs) == ("paired", 1, True)


def test_against_published_counts_rounding_and_spread():
    table = pd.DataFrame(
        [
            (0.0, "mse", "paired", 0.01004),
            (0.0, "mse", "paired", 0.01002),
            (0.0, "mse", "permuted", 1.99),
            (0.0, "mse", "permuted", 2.01),
            (0.2, "mse", "paired", 0.01),
        ],
        columns=["sparsity", "metric", "output", "value"],
    )
    result = against_published(table).set_index("output")
    assert list(result.index) == ["paired", "permuted"]  # what was not printed is left out
    assert result.loc["paired", "z"] == 0
    assert result.loc["permuted", "mean"] == pytest.approx(2.0)
    assert result.loc["permuted", "difference"] == pytest.approx(2.0 - 1.9947)
    assert result.loc["permuted", "z"] == pytest.approx((2.0 - 1.9947 - 0.00005) / np.std([1.99, 2.01], ddof=1))


# Standard deviations over 16 seeds at full size (paired, permuted, collapsed): the published table is one more draw.
SPREAD = {
    (0.0, "mse"): (5.5e-6, 2.0e-3, 4.7e-4),
    (0.0, "mk_mmd"): (6.0e-7, 1.1e-8, 1.6e-5),
    (0.5, "mse"): (5.5e-6, 1.4e-3, 4.0e-4),
    (0.5, "mk_mmd"): (2.3e-6, 2.4e-8, 3.6e-5),
    (0.9, "mse"): (5.5e-6, 4.4e-4, 2.0e-4),
    (0.9, "mk_mmd"): (2.2e-5, 1.1e-7, 1.8e-4),
    (0.99, "mse"): (5.5e-6, 1.8e-4, 8.9e-5),
    (0.99, "mk_mmd"): (2.1e-3, 1.9e-6, 2.8e-3),
    (0.99, "ot"): (2.7e-2, 1e-12, 4.4e-1),
}


@pytest.mark.parametrize(
    "sparsity", [0.0, pytest.param(0.5, marks=pytest.mark.slow), pytest.param(0.9, marks=pytest.mark.slow), 0.99]
)
def test_the_published_table_is_a_draw_of_the_study(sparsity):
    metrics = [metric for level, metric in SPREAD if level == sparsity]
    table = losses_study(sparsity, seed=0, metrics=tuple(metrics))
    result = against_published(table)
    assert len(result) == 3 * len(metrics)
    spread = np.array([sd for metric in metrics for sd in SPREAD[sparsity, metric]])
    rounding = np.where(result["metric"] == "ot", 0.005, 0.00005)
    # two draws differ by sqrt(2) standard deviations
    assert (result["difference"].abs() <= rounding + 4 * np.sqrt(2) * spread).all(), result


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, "got 1.0"),
        ({"sparsity": -0.1}, "got -0.1"),
        ({"n_samples": 1}, "n_samples=1"),
        ({"n_features": 49}, "n_features=49"),
        ({"metrics": ("mse", "mae")}, "'mae'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        losses_study(**{"sparsity": 0.5, "seed": 0, **options})
