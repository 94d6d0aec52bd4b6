"""What tests of saved models and of resumed trainings compare, bit for bit."""

import copy
from collections import OrderedDict

import numpy as np
import pandas as pd
import pytest
import torch


def _same(one, two):
    if isinstance(one, OrderedDict):
        one = dict(one)
    if isinstance(two, OrderedDict):
        two = dict(two)
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        return list(one) == list(two) and all(_same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(_same, one, two))
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one.isnan(), two.isnan()) and torch.equal(
            one.nan_to_num(7.0), two.nan_to_num(7.0)
        )  # fmt: skip
    if isinstance(one, np.ndarray):
        if one.dtype != two.dtype or one.shape != two.shape:
            return False
        if one.dtype == object:
            return _same(one.ravel().tolist(), two.ravel().tolist())
        return bool(np.array_equal(one, two, equal_nan=one.dtype.kind == "f"))
    if isinstance(one, pd.DataFrame):
        return one.equals(two) and _same([one.index, one.columns], [two.index, two.columns]) and (
            list(one.dtypes) == list(two.dtypes)
        )  # fmt: skip
    if isinstance(one, pd.Index):
        return one.dtype == two.dtype and one.equals(two) and one.name == two.name
    return one == two or (one != one and two != two)


@pytest.fixture(scope="session")
def same():
    """Whether two values are of the same types and equal to the last bit."""
    return _same


@pytest.fixture(scope="session")
def answers():
    """Answers of a model, for these cells or by itself alone."""

    def ask(model, cells=None):
        asked = ["P01", "P02", "P01+P02"]
        found = {
            "edges": model.get_edges(),
            "dag": model.get_dag(),
            "state": copy.deepcopy(dict(model.module.state_dict())),
            "history": model.history,
            "indices": [model.train_indices, model.validation_indices, model.test_indices],
        }
        if model.has_posterior:
            found["effects"] = model.predict_effects(asked, return_sd=True)
            found["draws"] = model.sample_effects(asked, 3, seed=0)
        if cells is not None:
            found["decoded"] = model.predict_effects(asked, cells, kind="decoder")
            found["latents"] = model.get_latent_representation(cells)
            found["cells"] = model.predict(asked, cells, n_cells=7, seed=0).to_df()
            if model.module.responses.is_fitted:
                found["responded"] = model.get_response_probability(cells).to_frame()
        return found

    return ask
