"""A small screen whose gene names would break a page that does not escape them, and the report on it."""

import shutil

import pandas as pd
import pytest

from raptorgraph import datasets
from raptorgraph.cli import _run
from raptorgraph.screen import Screen

SETUP = {
    "perturbation_key": "perturbation",
    "control": "control",
    "delimiter": "+",
    "layer": None,
    "library_size_key": "total_counts",
    "batch_key": None,
}
NASTY = {"P01": "<b>A&amp;1", "P02": "<img src=x onerror=alert(1)>", "P03": "x\"y'z", "P04": "a<td>&lt;"}
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def _simulated(**options):
    """60 genes, 5 of them perturbed, 9 doubles."""
    size = {"n_doubles": 9, "n_control_cells": 160, "n_cells_per_perturbation": 40, "n_truth_cells": 40, "seed": 0}
    return datasets.simulate(60, 5, **{**size, **options})


def renamed(adata, names):
    """The same screen with other names of genes, in the labels too."""
    adata = adata.copy()
    adata.var_names = [names.get(name, name) for name in adata.var_names]
    labels = {
        label: "+".join(names.get(part, part) for part in label.split("+"))
        for label in adata.obs["perturbation"].unique()
    }
    adata.obs["perturbation"] = pd.Categorical(adata.obs["perturbation"].astype(str).map(labels))
    del adata.uns["simulation"]
    return adata


@pytest.fixture(scope="session")
def setup():
    return dict(SETUP)


@pytest.fixture(scope="session")
def simulated():
    """Make a screen: see `_simulated`."""
    return _simulated


@pytest.fixture(scope="session")
def adata():
    return _simulated()


@pytest.fixture
def screen(adata):
    return Screen(adata.copy(), dict(SETUP))


@pytest.fixture(scope="session")
def gene_sets():
    """GMT lines: overlapping sets of the simulated genes."""
    genes = [*NASTY.values(), *(f"G{k:04d}" for k in range(5, 61))]
    return {f"<SET & {k}>": genes[7 * k : 7 * k + 9] for k in range(7)}


@pytest.fixture(scope="session")
def written(adata, tmp_path_factory, with_few_steps):
    """Folder of a finished run with a report."""
    folder = tmp_path_factory.mktemp("report")
    screen = renamed(adata, NASTY)
    screen.write_h5ad(folder / "screen <1> & 2.h5ad")
    wanted = screen[screen.obs["perturbation"] == NASTY["P01"]].copy()
    del wanted.obs["perturbation"]
    wanted.write_h5ad(folder / "wanted.h5ad")
    with with_few_steps():
        _run.run(
            folder / "screen <1> & 2.h5ad",
            folder / "out",
            library_size_key="total_counts",
            max_epochs=1,
            report=True,
            resamples=2,
            query=folder / "wanted.h5ad",
            command="raptorgraph run 'screen <1> & 2.h5ad' --report",
            say=lambda line: None,
        )
    return folder / "out"


@pytest.fixture(scope="session")
def html(written):
    return (written / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium, as it is installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"no browser found: none of {', '.join(names)} is on the path")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()
