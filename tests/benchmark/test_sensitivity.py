import numpy as np
import pandas as pd
import pytest

from raptorgraph import benchmark
from raptorgraph.benchmark import Settings, load_screen
from raptorgraph.benchmark import _sensitivity as sensitivity
from raptorgraph.benchmark import _variants as variants
from raptorgraph.benchmark._settings import Part, Unit

pytestmark = pytest.mark.usefixtures("few_steps")


def settings(**options):
    return Settings(screen="simulated", quick=True, seeds=(0,), options=options)


def test_it_runs_and_writes_tables_and_figure(tmp_path):
    found = benchmark.run(
        "sensitivity", screen="simulated", out=tmp_path, seeds=1, quick=True, n_jobs=0, progress=False
    )
    assert {"sensitivity.csv", "sensitivity.md", "sensitivity_long.csv", "sensitivity.png"} <= {
        path.name for path in tmp_path.iterdir()
    }
    long = found["sensitivity_long"]
    ours = long[long["source"] == "this package"].set_index(["beta", "metric"])["value_mean"]
    for beta in ("0", "0.4", "3"):
        here = ours[beta]
        assert here["KL, mean"] > 0
        assert here["KL, sum"] == pytest.approx(9 * here["KL, mean"])
        assert here["variance"] > 0
        assert here["variance / data, means"] > 0
        assert here["edges"] >= 0
        assert here["MK-MMD"] < 20
    assert ours["3", "KL, mean"] < ours["0.4", "KL, mean"] < ours["0", "KL, mean"]
    data = long[long["beta"] == sensitivity.DATA].set_index("metric")["value_mean"]
    assert ours["0", "variance / data"] == pytest.approx(ours["0", "variance"] / data["variance"], rel=0.05)
    table = found["sensitivity"]
    assert table["beta"].tolist()[:3] == ["0", "0.4", "3"]
    assert not table.isna().any().any()
    assert table["MK-MMD, published"].tolist()[:3] == ["1.929", "-", "0.167"]
    assert {"floor: real against real cells", "ceiling: control against real cells"} <= set(table["beta"])


def test_the_grid_is_that_of_table_s9():
    full = sensitivity.grid(Settings(screen="simulated"))
    assert len(full) == 36
    printed = set(sensitivity.TABLE_S9[["beta", "mu", "lambda1"]].itertuples(index=False, name=None))
    assert set(full) >= printed
    assert set(full) - printed == {(beta, 0.27, 0.052) for beta in (0.1, 0.4, 0.8)}


def test_options_give_the_cross_of_their_values():
    assert sensitivity.grid(settings(betas=[3, 0])) == [(0, 0.27, 0.052), (3, 0.27, 0.052)]
    assert sensitivity.grid(settings(mus=[0.1, 0.5], lambda1s=0.02)) == [(0.4, 0.1, 0.02), (0.4, 0.5, 0.02)]
    keys = [unit.key for unit in sensitivity.units(settings(betas=[0.1], lambda1s=[0, 1]))]
    assert keys == ["reference-seed0", "beta0.1-mu0.27-lambda0-seed0", "beta0.1-mu0.27-lambda1-seed0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": [-1]}, "betas: -1 must be a number at least 0"),
        ({"betas": ["high"]}, "betas: 'high' must be"),
        ({"lambda1s": [np.inf]}, "lambda1s: inf must be"),
        ({"mus": [0]}, "mus: 0 must be a number above 0"),
        ({"mus": []}, "mus is empty"),
    ],
)
def test_weights_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sensitivity.units(settings(**options))


def test_printed_values_stand_beside_ours_at_the_same_weights():
    by = ["source", "beta", "mu", "lambda1"]
    rows = [("this package", 0.4, 0.27, 0.05, "variance", 0.25), ("this package", 7, 0.27, 0.05, "variance", 0.5)]
    table = sensitivity.tables(
        [(Unit("one", 0), Part(pd.DataFrame(rows, columns=[*by, "metric", "value"])))], settings()
    )["sensitivity"]
    assert table["variance"].tolist() == ["0.250000", "0.500000"]
    assert table["variance, published"].tolist() == ["0.000900", "-"]
    assert table["KL, mean, published"].tolist() == ["0.00390", "-"]


def test_table_s9_is_printed_as_a_whole():
    table = sensitivity.TABLE_S9
    assert len(table) == 33
    assert not table.duplicated(["beta", "mu", "lambda1"]).any()
    # what the paper says of it: beta decides the variance, and mu the distance
    by_beta = table.groupby("beta")["variance"]
    assert (by_beta.min().iloc[:-1].to_numpy() > by_beta.max().iloc[1:].to_numpy()).all()


def test_weights_reach_the_training(monkeypatch):
    """With larger steps, so that few epochs are enough: a heavy KL empties the latents."""
    usual = variants.variant

    def faster(*args, plan_kwargs):
        assert set(plan_kwargs) == {"kl_weight", "mu", "lambda1"}
        assert plan_kwargs["mu"] == 0.5
        return usual(*args, plan_kwargs={**plan_kwargs, "lr": 1e-2})

    monkeypatch.setattr(variants, "variant", faster)
    kl = []
    for beta in (0.0, 10.0):
        part = sensitivity.work(Unit("one", 0, {"point": [beta, 0.5, 0.1]}), settings(max_epochs=40))
        kl.append(part.rows.set_index("metric")["value"]["KL, mean"])
    assert kl[1] < 0.01 * kl[0]


def test_variance_of_measured_controls():
    screen = load_screen(settings())
    cells = screen.expression[screen.codes == 0].toarray()
    assert sensitivity._measured_variance(screen) == pytest.approx(cells.var(axis=0, ddof=1).mean())
