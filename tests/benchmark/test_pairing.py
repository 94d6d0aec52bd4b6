import numpy as np
import pytest
from scipy import sparse
from scipy.spatial.distance import cdist

from raptorgraph import benchmark
from raptorgraph.benchmark import Settings
from raptorgraph.benchmark import _pairing as pairing
from raptorgraph.benchmark._variants import PRECISION
from raptorgraph.pp._pairing import pairing_plan

pytestmark = pytest.mark.usefixtures("few_steps")

QUICK = {"screen": "simulated", "quick": True, "n_jobs": 0, "progress": False}


@pytest.fixture(scope="module")
def cells():
    """40 control cells and two conditions of 20, in three dimensions that are also their genes."""
    codes = np.repeat([0, 1, 2], [40, 20, 20])
    return np.random.default_rng(0).normal(size=(80, 3)) + codes[:, None], codes


def facts(cells, method):
    Z, codes = cells
    return pairing.plan_facts(pairing_plan(Z, codes, method=method), Z, Z, codes)


def test_it_runs_and_writes_tables_and_figure(tmp_path):
    methods, variants = ["emd", "nearest", "random"], ["controls alone are encoded, pair loss", "paper"]
    found = benchmark.run("pairing", out=tmp_path, seeds=2, methods=methods, presets=variants, **QUICK)
    stems = ("pairing", "pairing_plan", "pairing_long")
    assert {f"{stem}.{kind}" for stem in stems for kind in ("csv", "md")} | {"pairing.png"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert list(found["pairing_plan"]["pairing"]) == methods
    long = found["pairing_long"].set_index(["preset", "pairing", "metric"])["value_mean"].sort_index()
    for name in methods:
        for variant in variants:
            here = long[variant, name]
            assert here["relative MSE"] > 0
            assert -1 <= here["Pearson"] <= 1
            assert here["variance ratio"] >= 0
            assert here[list(PRECISION.values())].between(0, 1).all()
        assert long["plan", name, "seconds"] > 0
    for variant in variants:  # the losses read the pairs
        assert len({long[variant, name, "relative MSE"] for name in methods}) == len(methods)
    # 120 controls for 40 cells of each condition: all are used, three for each cell
    plan = long["plan"]
    assert plan["emd", "controls used, effective"] == pytest.approx(120, rel=1e-3)
    assert plan["emd", "partners of a cell"] == pytest.approx(3, rel=1e-3)
    assert plan["emd", "variance, sampled"] == pytest.approx(1, abs=1e-4)
    assert plan["nearest", "cost"] <= plan["emd", "cost"] < plan["random", "cost"]
    assert long["published", "emd", PRECISION["epistasis"]] == 0.9
    assert long["published", "random", PRECISION["epistasis"]] == 0.8
    assert {"chance", "floor: real against real cells"} <= set(found["pairing"]["pairing"])


def test_one_partner_each_has_the_same_spread_drawn_and_averaged(cells):
    Z, codes = cells
    partners = np.random.default_rng(1).choice(40, size=40)
    plan = sparse.csr_matrix((np.ones(40), (np.arange(40, 80), partners)), shape=(80, 80))
    found = pairing.plan_facts(plan, Z, sparse.csr_matrix(Z), codes)
    assert found["cost"] == pytest.approx(((Z[40:] - Z[partners]) ** 2).sum(axis=1).mean())
    halves = (partners[:20], partners[20:])
    assert found["controls used"] == np.mean([len(set(half)) for half in halves])
    spread = np.mean([Z[half].var(axis=0).sum() for half in halves]) / Z[:40].var(axis=0).sum()
    assert found["variance, sampled"] == pytest.approx(spread)
    assert found["variance, averaged"] == pytest.approx(spread)
    assert found["partners of a cell"] == 1


def test_an_even_plan_keeps_all_variance_when_drawn_and_none_when_averaged(cells):
    Z, codes = cells
    plan = sparse.lil_matrix((80, 80))
    plan[40:, :40] = 1 / 40
    found = pairing.plan_facts(plan.tocsr(), Z, Z, codes)
    assert found["variance, sampled"] == pytest.approx(1)
    assert found["variance, averaged"] == pytest.approx(0, abs=1e-12)
    for name in ("controls used", "controls used, effective", "partners of a cell"):
        assert found[name] == pytest.approx(40)
    assert found["cost"] == pytest.approx(cdist(Z[40:], Z[:40], "sqeuclidean").mean())


def test_transport_uses_all_controls_and_nearest_few(cells):
    emd, nearest = facts(cells, "emd"), facts(cells, "nearest")
    assert emd["controls used, effective"] == pytest.approx(40)
    assert emd["partners of a cell"] >= 2
    assert emd["variance, sampled"] == pytest.approx(1)
    assert emd["variance, averaged"] < 1
    Z, _ = cells
    assert nearest["cost"] == pytest.approx(cdist(Z[40:], Z[:40], "sqeuclidean").min(axis=1).mean())
    assert nearest["controls used, effective"] <= nearest["controls used"] < 20


def test_costs_are_in_the_order_of_what_a_plan_may_choose(cells):
    """The closest controls; each control once or not at all; all of them evenly; evenly and spread out; any."""
    costs = [facts(cells, method)["cost"] for method in ("nearest", "hungarian", "emd", "sinkhorn", "random")]
    assert costs == sorted(costs)
    assert len(set(costs)) == 5


def test_random_pairs_cost_what_the_clouds_are_apart(cells):
    """Every cell has 32 of 40 controls: the mean over all pairs, up to the draw."""
    Z, _ = cells
    assert facts(cells, "random")["cost"] == pytest.approx(cdist(Z[40:], Z[:40], "sqeuclidean").mean(), rel=0.05)


def test_controls_without_spread_have_no_ratio():
    Z = np.array([[0.0], [0.0], [1.0], [2.0]])
    plan = sparse.csr_matrix(([1.0, 1.0], ([2, 3], [0, 1])), shape=(4, 4))
    found = pairing.plan_facts(plan, Z, Z, np.array([0, 0, 1, 1]))
    assert found["cost"] == 2.5
    assert np.isnan(found["variance, sampled"])


def test_options_narrow_the_work_and_are_checked():
    def units(**options):
        return pairing.units(Settings(screen="simulated", quick=True, seeds=(0,), options=options))

    narrow = units(methods=["emd"], presets=["controls alone are encoded, pair loss"])
    ours = "controls-alone-are-encoded-pair-loss-emd-seed0"
    assert [unit.key for unit in narrow] == ["reference--seed0", "plan-emd-seed0", ours]
    assert len(units()) == 1 + 5 + 3 * 5
    assert len({unit.key for unit in units()}) == 21
    with pytest.raises(ValueError, match="methods: 'best' is unknown; there are emd, sinkhorn"):
        units(methods=["best"])
    with pytest.raises(ValueError, match="presets: 'ours' is unknown"):
        units(presets=["ours"])
