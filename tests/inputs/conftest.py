"""A model of the plain screen, of which other cells are asked."""

import pytest
import scvi
from input_table._row import Case, plain

import raptorgraph as rg


@pytest.fixture(scope="session")
def plain_model():
    """A model of two batches, as it is before the training."""
    adata, seed = plain(), scvi.settings.seed
    scvi.settings.seed = 0
    rg.RaptorGraphModel.setup_anndata(adata, batch_key="lane")
    model = rg.RaptorGraphModel(adata, n_hidden=4)
    model.is_trained_ = True
    scvi.settings.seed = seed
    return model


@pytest.fixture
def case(tmp_path, plain_model, monkeypatch):
    return Case(tmp_path, plain_model, monkeypatch)
