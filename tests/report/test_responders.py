from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from raptorgraph import datasets, tl
from raptorgraph.model import RaptorGraphModel
from raptorgraph.model._responders import guide_column
from raptorgraph.report import _responders
from raptorgraph.report._figures import Picture
from raptorgraph.report._tables import Table


@pytest.fixture(scope="module")
def model():
    adata = datasets.simulate(
        150, 4, effect_size=8.0, escape=0.5, n_control_cells=250, n_cells_per_perturbation=80,
        n_doubles=0, n_truth_cells=20, seed=0,
    )  # fmt: skip
    labels = adata.obs["perturbation"].astype(str)
    works = np.where(labels == "P01", adata.obs["responded"], np.arange(adata.n_obs) % 2 == 0)
    adata.obs["guides_of_cells"] = labels + np.where(works, "_<1>", "_<2>")
    RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    model = RaptorGraphModel(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    return model


class Found:
    def __init__(self, model):
        self.guide_key = guide_column(model)
        self.responders = tl.responders(model, self.guide_key)
        self.guides = None if self.guide_key is None else tl.guides(model, self.guide_key, n_resamples=20)
        self.strength = pd.DataFrame({"stands_out": True, "p": 0.01}, index=model.conditions)


def named(section):
    table = next(block for block in section.blocks if isinstance(block, Table))
    return " ".join(block.text for block in section.blocks if hasattr(block, "text")), table


def test_names_what_did_not_respond(model):
    found = Found(model)
    assert found.guide_key is None
    text, table = named(_responders.responders(found))
    assert "uides" not in text
    titles = ["perturbation", "cells", "responded", "told apart"]
    assert [column.title for column in table.columns] == titles
    written = found.responders.set_index("perturbation")
    assert len(table.rows) == len(written) == 4
    few = written[(written["high"] < 0.8) & (written["told"] > 0.3)]
    assert len(few) > 1
    assert f"in {len(few)} perturbations (" in text
    assert all((gene in text) == (gene in few.index) for gene in written.index)
    share, low, high = (f"{100 * written[name].iloc[0]:.0f} %" for name in ("share", "low", "high"))
    assert table.rows[0][2].text == f"{share} [{low}, {high}]"
    found.strength.loc[few.index[0], "stands_out"] = False
    text, _ = named(_responders.responders(found))
    assert few.index[0] not in text


def test_names_guides_that_disagree(model):
    obs = model.adata.obs
    obs["gRNA_id"] = obs["guides_of_cells"]
    try:
        found = Found(model)
        assert found.guide_key == "gRNA_id"
        section = _responders.responders(found)
        text, table = named(section)
    finally:
        del obs["gRNA_id"]
    assert "Guides of 1 perturbation of 4 disagree at a false discovery rate of 5 % (column gRNA_id): P01." in text
    assert any(isinstance(block, Picture) for block in section.blocks)
    assert len(table.rows) == 12
    shares = found.responders.set_index("guide")["share"]
    assert shares["P01_<1>"] > 0.6 > 0.4 > shares["P01_<2>"]


def test_no_share_is_said_where_cells_are_not_told_apart():
    shares = {"share": 0.9, "low": 0.85, "high": 0.95, "told": [0.9, 0.1, 0.9]}
    frame = pd.DataFrame({"perturbation": ["A", "B", "C"], "n_cells": 50, **shares})
    strength = pd.DataFrame({"stands_out": [True, True, False], "p": 0.01}, index=["A", "B", "C"])
    found = SimpleNamespace(guide_key=None, responders=frame, guides=None, strength=strength)
    text, _ = named(_responders.responders(found))
    assert text.endswith("In none of 1 perturbation whose cells can be told apart did clearly fewer than 80 % respond.")
    text, _ = named(_responders.responders(SimpleNamespace(**{**vars(found), "responders": frame.assign(told=0.2)})))
    assert "clearly fewer" not in text
    assert text.endswith("cannot be said here: cells that escaped are hardly told from those that responded.")
