import pytest

from raptorgraph import benchmark
from raptorgraph.benchmark import Settings
from raptorgraph.benchmark import _pairing_cost as pairing_cost
from raptorgraph.pp._pairing import METHODS


def test_it_runs_and_writes_tables_and_figure(tmp_path, monkeypatch):
    asked = []
    pair = pairing_cost.pairing_plan

    def noted(coordinates, codes, **options):
        asked.append((len(codes), int(codes.sum()), options["method"], options["max_controls"]))
        return pair(coordinates, codes, **options)

    monkeypatch.setattr(pairing_cost, "pairing_plan", noted)
    found = benchmark.run("pairing-cost", out=tmp_path, quick=True, seeds=2, n_jobs=0, progress=False)
    assert {"pairing_cost.csv", "pairing_cost_long.csv", "pairing-cost.png"} <= {p.name for p in tmp_path.iterdir()}
    calls = [(2 * n, n, method, most) for method in METHODS for n in (20, 40) for most in (None, 2500)]
    assert sorted(asked, key=str) == sorted(2 * calls, key=str)
    table, long = found["pairing_cost"], found["pairing_cost_long"]
    assert list(dict.fromkeys(table["method"])) == list(METHODS)
    assert (table["cells"] == 40).all()
    assert len(table) == len(METHODS) * 2 * 2
    assert (long["n"] == 2).all()
    assert (long["value_mean"] >= 0).all()


def test_options_are_checked_before_any_work():
    def units(**options):
        return pairing_cost.units(Settings(seeds=(0,), options=options))

    assert [unit.key for unit in units(methods="emd", sizes=[10, 20])] == ["emd-10-seed0", "emd-20-seed0"]
    with pytest.raises(ValueError, match="sizes: 1 is not a number of cells"):
        units(sizes=[1])
    with pytest.raises(ValueError, match="methods: 'best' is unknown"):
        units(methods=["best"])
