import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import raptorgraph as rg
from raptorgraph.model._manager import conditions_of


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_a_panel_that_the_first_cells_do_not_show(form):
    counts = np.zeros((300, 2), dtype=np.float32)
    counts[150:] = np.random.default_rng(0).poisson(1.0, (150, 2))
    labels = np.tile(["control", "A", "control"], 100)
    obs = pd.DataFrame({"perturbation": labels, "total": 1000.0}, index=np.arange(300).astype(str))
    adata = ad.AnnData(form(counts), obs=obs, var=pd.DataFrame(index=["A", "B"]))
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total")
    model = rg.RaptorGraphModel(adata, n_hidden=4)
    found = model.adata_manager.get_from_registry("X")
    np.testing.assert_array_equal(found.toarray() if sparse.issparse(found) else found, counts)
    counts[0] = 0.5
    adata.X = form(np.log1p(counts))
    with pytest.raises(ValueError, match="held counts when the data were set up"):
        model.adata_manager.get_from_registry("X")


def test_conditions_are_numbered_in_the_order_of_their_first_cells():
    rng = np.random.default_rng(0)
    table = np.zeros((200, 7), dtype=np.float32)
    for row in table[5:]:
        row[rng.choice(7, rng.integers(4), replace=False)] = 1
    table[:5] = np.array([[0, 1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1], [0] * 7, [0, 1, 0, 1, 0, 0, 0], [1] + [0] * 6])
    codes, conditions = conditions_of(sparse.csr_matrix(table))
    numbers = {(): 0}  # one row after the other
    for code, row in zip(codes, table, strict=True):
        assert code == numbers.setdefault(tuple(np.flatnonzero(row)), len(numbers))
    assert conditions == list(numbers)
    assert conditions_of(sparse.csr_matrix(table[3:4]))[1] == [(), (1, 3)]


def test_the_screen_of_registered_cells():
    adata = rg.datasets.simulate(40, 4, n_doubles=2, n_control_cells=30, n_cells_per_perturbation=10, seed=0)
    adata.obs["day"] = np.resize(["one", "two"], adata.n_obs)
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts", batch_key="day")
    model = rg.RaptorGraphModel(adata, n_hidden=4)
    screen, plain = model.screen, rg.screen.Screen(adata, model.setup_args)
    assert [screen.labels[code] for code in screen.codes] == [plain.labels[code] for code in plain.codes]
    assert screen.perturbed_genes == plain.perturbed_genes == model.perturbed_genes
    order = [screen.labels.index(label) for label in plain.labels]
    np.testing.assert_array_equal(screen.design[order], plain.design)
    np.testing.assert_array_equal(screen.batch, plain.batch)
    pd.testing.assert_frame_equal(screen.effects.loc[plain.conditions], plain.effects)
    with pytest.raises(AttributeError, match="loaded without data"):
        _without_data(model).screen  # noqa: B018


def _without_data(model):
    model._adata = None
    return model
