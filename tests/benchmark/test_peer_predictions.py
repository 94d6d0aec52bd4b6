"""Tools in environments of their own as methods of ``prediction``, from the units to the tables."""

import sys

import numpy as np
import pytest

from raptorgraph.baselines import _peer_process
from raptorgraph.baselines._peer_environments import log_file
from raptorgraph.baselines.peers import run_adapter
from raptorgraph.benchmark import UnitsFailed, _fits
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._settings import Settings
from raptorgraph.evaluation._splits import doubles_folds

# Sums of the measured singles, as differences of means, and control cells that are moved by them.
SUMS = """
    import anndata as ad
    import numpy as np
    import pandas as pd

    def run(cells, task):
        with open(COUNT, "a") as file:
            file.write(",".join(task["train"]) + ";" + ",".join(task["val"]) + ";" + ",".join(task["test"]) + "\\n")
        X = np.asarray(cells.X.todense())
        label = cells.obs["perturbation"].astype(str).to_numpy()
        means = pd.DataFrame(X, columns=cells.var_names).groupby(label).mean()
        singles = means - means.loc["control"]
        effects = {x: singles.loc[x.split("+")].sum() for x in task["test"]}
        table = pd.DataFrame(effects).T[cells.var_names]
        control = X[label == "control"]
        stacked = np.vstack([control + table.loc[x].to_numpy() for x in task["test"]] + [control])
        obs = pd.DataFrame({"perturbation": np.repeat([*task["test"], "control"], len(control))})
        obs.index = obs.index.astype(str)
        drawn = ad.AnnData(stacked.astype(np.float32), obs=obs, var=pd.DataFrame(index=cells.var_names))
        return {"effects.csv": table, "cells.h5ad": drawn, "seconds": {"fit": 3.0}}
"""


@pytest.fixture
def summing(fake_peer, tmp_path):
    """A tool that adds effects up, and a function that gives the tasks that it did."""
    tool = fake_peer(SUMS.replace("COUNT", repr(str(tmp_path / "tasks"))))

    def tasks():
        path = tmp_path / "tasks"
        lines = path.read_text().splitlines() if path.exists() else []
        return [[part.split(",") if part else [] for part in line.split(";")] for line in lines]

    return tool, tasks


@pytest.fixture
def in_this_process(monkeypatch):
    """Adapters are run here: a process of their own takes seconds to start."""

    def call(what, argv, log, **arguments):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        run_adapter.main(*map(str, argv[2:]))

    monkeypatch.setattr(run_adapter, "end_with", lambda parent: None)
    monkeypatch.setattr(sys, "path", ["first", *sys.path])
    monkeypatch.setattr(_peer_process, "call", call)


def by_metric(tables, **where):
    table = tables["prediction_long"]
    for column, value in where.items():
        table = table[table[column] == value]
    return table.set_index(["method", "metric"])["value_mean"]


def test_a_tool_is_scored_as_the_methods_are_and_its_work_is_kept(quick, summing):
    _, tasks = summing
    asked = {"seeds": 1, "methods": ["additive", "fake"], "peer_epochs": 4}
    tables, out = quick("prediction", **asked)
    name = "Fake (4 epochs)"
    for regime in ("singles", "doubles"):
        for reference in ("own control", "data's control"):
            scores = by_metric(tables, regime=regime, reference=reference)
            for metric in ("relative_mse", "pearson_delta", "discrimination_score_l1"):
                assert scores[name, metric] == pytest.approx(scores["additive", metric], abs=1e-4)
        scores = by_metric(tables, regime=regime, reference="")
        # both move control cells, of which each draws its own
        assert scores[name, "mk_mmd_200"] == pytest.approx(scores["additive", "mk_mmd_200"], abs=0.05)
        assert scores[name, "not predictable"] == 0
        assert scores[name, "seconds to fit"] == 3
    told = tables["prediction_peers"]
    assert told.to_dict("records") == [
        {"method": name, "package": "fake-tool 1.2", "python": "3.11.0", "epochs": 4, "settings": "width=3"}
        | {"pins": told["pins"][0]}
    ]
    assert (out / "prediction_peers.md").is_file()

    screen = load_screen(Settings("simulated", quick=True), 0)
    alone, *folds = tasks()
    assert alone[:2] == [screen.singles, []]
    assert len(folds) == 2
    for split, (train, val, test) in zip(doubles_folds(screen.conditions, n_folds=2), folds, strict=True):
        assert (set(train), val, test) == ({*split.train}, [*split.validation], [*split.test])

    again, _ = quick("prediction", **asked)
    assert len(tasks()) == 3  # what is finished is not done again
    assert again["prediction_long"].equals(tables["prediction_long"])


def test_what_is_tuned_is_scored_on_validation_conditions(quick, summing, in_this_process):
    _, tasks = summing
    quick("prediction", seeds=1, methods=["fake"], regimes=["doubles"], on="validation")
    screen = load_screen(Settings("simulated", quick=True), 0)
    for split, (train, val, test) in zip(doubles_folds(screen.conditions, n_folds=2), tasks(), strict=True):
        assert test == [*split.validation]
        assert {*train, *val} == {*split.train}
        assert all("+" in label for label in val)


@pytest.mark.parametrize("knows", [False, True])
def test_genes_that_were_never_perturbed(quick, fake_peer, in_this_process, knows):
    code = """
        import pandas as pd

        def run(cells, task):
            return {"effects.csv": pd.DataFrame(0.0, index=task["test"], columns=cells.var_names)}
    """
    fake_peer(code, name=f"fake{knows}", knows_other_genes=knows)
    tables, _ = quick("prediction", seeds=1, methods=["additive", f"fake{knows}"], regimes=["seen"], peer_epochs=5)
    scores = by_metric(tables, regime="seen", reference="")
    assert scores["additive", "not predictable"] > 0
    assert scores["Fake", "not predictable"] == (0 if knows else scores["additive", "not predictable"])
    assert ("Fake", "mk_mmd_200") not in scores.index  # it predicts no cells
    assert by_metric(tables, regime="seen", group="all", reference="own control")["Fake", "relative_mse"] == 1


@pytest.mark.parametrize(
    ("code", "options", "message"),
    [
        ("raise MemoryError('out of memory')", {}, "MemoryError: out of memory"),
        ("import time; time.sleep(60)", {"peer_timeout": 0.5}, r"TimeoutError: Fake took longer than 0\.5 s"),
        ("return {}", {}, r"FileNotFoundError: There is no file of predictions '.*effects\.csv'"),
        (
            "return {'effects.csv': pd.DataFrame(0.0, index=task['test'], columns=cells.var_names[1:])}",
            {},
            r"ValueError: .* lacks 1 of the screen's 60 genes",
        ),
        (
            "return {'effects.csv': pd.DataFrame(0.0, index=task['test'][1:], columns=cells.var_names)}",
            {},
            r"ValueError: Fake predicts nothing for 1 of \d+, such as 'P",
        ),
    ],
    ids=["fails", "too long", "no file", "no gene", "no condition"],
)
def test_what_a_tool_does_wrong_is_said_with_its_log(quick, fake_peer, request, code, options, message):
    if not options:
        request.getfixturevalue("in_this_process")
    fake_peer(f"import pandas as pd\ndef run(cells, task):\n    {code}")
    with pytest.raises(UnitsFailed, match=rf"1 of 2 units .*singles0-fake-seed0: {message}"):
        quick("prediction", seeds=1, methods=["fake"], regimes=["singles"], **options)
    assert log_file("fake-singles0-fake-seed0").is_file()


def test_a_tool_that_needs_combinations_has_no_part_in_singles(quick, fake_peer):
    fake_peer(needs_combinations=True)
    with pytest.raises(ValueError, match=r"Fake learns from combinations .* 'singles'\. Add the regime 'doubles'"):
        quick("prediction", seeds=1, methods=["fake"], regimes=["singles"])
    settings = Settings("simulated", quick=True, seeds=(0,), options={"methods": ["fake", "additive"]})
    with pytest.warns(UserWarning, match=r"extrapolate from singles alone: it has no part in the regime 'singles'\."):
        units = _fits.units(settings)
    assert {unit.options["regime"] for unit in units if "peer" in unit.options} == {"doubles"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("interactions", {"methods": ["fake"]}, "methods: 'fake' is unknown"),
        ("reverse", {"methods": ["additive", "fake"]}, "methods: 'fake' is unknown"),
        ("prediction", {"methods": ["gears"]}, "methods: 'gears' needs the GO terms of each gene.*--gene2go FILE"),
        ("prediction", {"methods": ["cpa"], "regimes": ["singles"]}, "CPA is not installed: raptorgraph peers install"),
        ("prediction", {"methods": ["fake"], "predictions": {"Fake (2 epochs)": "x.csv"}}, "is the name of a method"),
    ],
)
def test_refused_before_any_work(quick, fake_peer, name, options, message):
    fake_peer()
    with pytest.raises(ValueError, match=message):
        quick(name, seeds=1, **{"regimes": ["doubles"], **options} if name == "prediction" else options)


def test_training_cells_are_those_of_the_fitted_conditions():
    from raptorgraph.benchmark._peer_predictions import training_cells

    screen = load_screen(Settings("simulated", quick=True), 0)
    fitted = screen.singles[:2]
    spelled = {label: f"<{label}>" for label in screen.labels}
    rows = np.flatnonzero(screen.adata.obs["perturbation"].isin(["control", *fitted]))
    counts, values = (training_cells(screen, fitted, spelled, counts=counts) for counts in (True, False))
    labels = screen.adata.obs["perturbation"].iloc[rows]
    assert counts.obs["perturbation"].tolist() == [f"<{label}>" for label in labels]
    np.testing.assert_array_equal(counts.X.toarray(), screen.adata.X[rows].toarray())
    np.testing.assert_array_equal(counts.obs["library"], screen.adata.obs["total_counts"].iloc[rows])
    np.testing.assert_allclose(values.X.toarray(), screen.expression[rows].toarray())
    assert "library" not in values.obs
