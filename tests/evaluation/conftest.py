"""A small simulated screen: 60 genes, 5 of them perturbed, 9 doubles."""

import pytest

from raptorgraph import datasets


def _simulated(**options):
    size = {"n_doubles": 9, "n_control_cells": 160, "n_cells_per_perturbation": 40, "n_truth_cells": 40, "seed": 0}
    return datasets.simulate(60, 5, **{**size, **options})


@pytest.fixture(scope="session")
def setup():
    return {
        "perturbation_key": "perturbation",
        "control": "control",
        "delimiter": "+",
        "layer": None,
        "library_size_key": "total_counts",
        "batch_key": None,
    }


@pytest.fixture(scope="session")
def simulated():
    """Make a screen: see `_simulated`."""
    return _simulated


@pytest.fixture(scope="session")
def adata():
    return _simulated()
