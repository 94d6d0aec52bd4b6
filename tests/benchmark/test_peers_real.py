"""The tools themselves, from their installation to their scores; with $RAPTORGRAPH_TEST_PEERS in environments there."""

import os

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raptorgraph import datasets
from raptorgraph.baselines import _peer_environments as environments
from raptorgraph.baselines import sdcd
from raptorgraph.baselines._peers import PEERS
from raptorgraph.benchmark import Settings, run
from raptorgraph.benchmark import _responders_methods as responses
from raptorgraph.screen import Screen

pytestmark = [pytest.mark.slow, pytest.mark.internet, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return os.environ.get("RAPTORGRAPH_TEST_PEERS") or str(tmp_path_factory.mktemp("peers"))


@pytest.fixture
def install(folder, monkeypatch):
    """A function that installs a tool, where Python of its version is found."""
    monkeypatch.setenv(environments.FOLDER_VARIABLE, folder)

    def make(name):
        tool = PEERS[name]
        if environments.installed(tool) is None:
            try:
                environments.find_python(tool)
            except FileNotFoundError as error:
                pytest.skip(str(error))
        found = environments.install(tool)
        assert found.versions[tool.package] == tool.pinned()[tool.package]
        assert environments.state(tool) == "installed"

    return make


@pytest.mark.parametrize("name", ["gears", "cpa"])
def test_predictions(name, install, shared_data, tmp_path):
    install(name)
    tables = run(
        "prediction",
        screen="simulated",
        quick=True,
        seeds=1,
        n_jobs=1,
        out=tmp_path,
        progress=False,
        methods=["additive", name],
        regimes=["doubles", *([] if PEERS[name].needs_combinations else ["singles"])],
        gene2go=str(_terms(tmp_path)) if name == "gears" else None,
        peer_epochs=2,
    )
    table = tables["prediction_long"]
    label = f"{PEERS[name].title} (2 epochs)"
    assert set(table.loc[table["method"] == label, "regime"]) == set(table["regime"])
    errors = table[(table["metric"] == "relative_mse") & (table["method"] == label)]["value_mean"]
    assert np.isfinite(errors).all()
    [version] = tables["prediction_peers"]["package"]
    assert version == f"{PEERS[name].package} {PEERS[name].pinned()[PEERS[name].package]}"


def _terms(folder):
    """Terms of the simulated genes, of which neighbors have some in common."""
    path = folder / "terms.json"
    names = [f"P{i:02d}" for i in range(1, 6)] + [f"G{i:04d}" for i in range(60)]
    pd.Series({name: [f"GO:{i}", f"GO:{i + 1}", f"GO:{i // 5}"] for i, name in enumerate(names)}).to_json(path)
    return path


def test_mixscape(install):
    install("mixscape")
    adata = datasets.simulate(60, 2, n_doubles=0, n_control_cells=150, n_cells_per_perturbation=80, effect_size=8.0)
    screen = Screen(adata, {"library_size_key": "total_counts"})
    found = responses.probabilities(responses.MIXSCAPE, screen, Settings(quick=True), 0)
    assert np.isnan(found[screen.codes == 0]).all()
    assert ((found[screen.codes > 0] >= 0) & (found[screen.codes > 0] <= 1)).all()
    assert found[screen.codes > 0].max() > 0.5


def test_sdcd(install):
    """A chain of four genes, each of which is perturbed in a quarter of the perturbed cells."""
    install("sdcd")
    rng, n = np.random.default_rng(0), 300
    names, cells = ["P0", "P1", "P2", "P3"], []
    for hit in range(-1, 4):
        x = rng.normal(size=(n, 4))
        for j in range(4):
            x[:, j] = 2 + 0.3 * x[:, j] if j == hit else x[:, j] + (1.5 * x[:, j - 1] if j else 0)
        cells.append(x)
    obs = pd.DataFrame({"perturbation": np.repeat(["control", *names], n)}, index=[f"c{i}" for i in range(5 * n)])
    values = 15 + np.vstack(cells)  # on the expression scale
    graph = sdcd(ad.AnnData(values, obs=obs, var=pd.DataFrame(index=names)), max_epochs=30)
    assert (graph.to_numpy() >= 0).all()
    assert graph.loc["P0", "P1"] > 0
    assert graph.loc["P1", "P2"] > 0
