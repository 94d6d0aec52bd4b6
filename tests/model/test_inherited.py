"""Every public name of the class works, or its error says what to call instead."""

from inspect import getattr_static

import numpy as np
import pytest
import scvi
import torch

import raptorgraph as rg
from raptorgraph.model._inherited import NotOffered
from raptorgraph.model._query import known_categories
from raptorgraph.nn._posterior_draws import standard_draws

pytestmark = pytest.mark.usefixtures("few_steps")


def make(likelihood="nb", **setup):
    scvi.settings.seed = 0
    adata = rg.datasets.simulate(
        30, 3, n_doubles=2, n_control_cells=40, n_cells_per_perturbation=12, n_batches=2, n_truth_cells=10, seed=0
    )
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts", batch_key="batch")
    model = rg.RaptorGraph(adata, n_hidden=4, likelihood=likelihood)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def trained():
    return make()


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    """A folder with the model, named m."""
    folder = tmp_path_factory.mktemp("saved")
    trained.save(folder / "m", save_anndata=True)
    return folder


# What each is called with; properties are read.
CALLS = {
    "annotate": lambda m, folder: m.annotate(m.adata.copy()),
    "data_registry": lambda m, folder: m.data_registry("X"),
    "deregister_manager": lambda m, folder: m.deregister_manager(),
    "export_to_cell_eval": lambda m, folder: m.export_to_cell_eval(folder / "e"),
    "from_preset": lambda m, folder: m.from_preset(m.adata, "paper"),
    "get_anndata_manager": lambda m, folder: m.get_anndata_manager(m.adata, required=True),
    "get_counterfactual": lambda m, folder: m.get_counterfactual("P01"),
    "get_from_registry": lambda m, folder: m.get_from_registry(m.adata, "X"),
    "get_setup_arg": lambda m, folder: m.get_setup_arg("delimiter"),
    "get_state_registry": lambda m, folder: m.get_state_registry("perturbation"),
    "load": lambda m, folder: m.load(folder / "m"),
    "load_registry": lambda m, folder: m.load_registry(folder / "m"),
    "predict": lambda m, folder: m.predict("P01"),
    "predict_effects": lambda m, folder: m.predict_effects("P01"),
    "register_manager": lambda m, folder: m.register_manager(m.adata_manager),
    "sample_effects": lambda m, folder: m.sample_effects(["P01"], 2),
    "save": lambda m, folder: m.save(folder / "again", save_anndata=True),
    "setup_anndata": lambda m, folder: m.setup_anndata(m.adata.copy(), library_size_key="total_counts"),
    "to_device": lambda m, folder: m.to_device("cpu"),
    "train": lambda m, folder: m.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False),
    "transfer_fields": lambda m, folder: m.transfer_fields(m.adata.copy()),
    "view_setup_args": lambda m, folder: m.view_setup_args(folder / "m"),
}
ELSEWHERE = {"setup_mudata"}  # tested with MuData
NAMES = sorted(name for name in dir(rg.RaptorGraph) if not name.startswith("_") and name not in ELSEWHERE)


@pytest.mark.parametrize("name", NAMES)
def test_public_names_work_or_say_what_does(trained, saved, name, tmp_path):
    model = trained
    if isinstance(getattr_static(rg.RaptorGraph, name), NotOffered):
        assert not hasattr(model, name)
        assert name not in dir(model)
        for where in (model, rg.RaptorGraph):
            with pytest.raises(AttributeError, match=f"RaptorGraphModel has no {name}: ") as error:
                getattr(where, name)
            words = str(error.value).partition(": ")[2].replace("(", " ").replace("[", " ").replace(",", " ").split()
            assert any(hasattr(rg.RaptorGraph, word) or word.startswith("raptorgraph.") for word in words)
    elif name in CALLS:
        CALLS[name](model, saved if name.startswith(("load", "view")) else tmp_path)
    else:
        value = getattr(model, name)
        if callable(value):
            value()


def test_the_data_of_a_model_are_not_exchanged(trained):
    own = trained.adata
    with pytest.raises(AttributeError, match=r"get_latent_representation\(adata\)"):
        trained.adata = own.copy()
    assert trained.adata is own
    assert trained.predict("P01", n_cells=3).n_obs == 3


# -- normalized expression -------------------------------------------------------------------------------------------
def by_hand(model, rows, n, code=None):
    """Frequencies of each draw: draws x cells x genes."""
    module, adata = model.module, model.adata[rows]
    library = torch.tensor(adata.obs["total_counts"].to_numpy(), dtype=torch.float32)[:, None]
    expression = torch.log1p(1e4 * torch.as_tensor(adata.X.toarray(), dtype=torch.float32) / library)
    batch = torch.tensor(adata.obs["_scvi_batch"].to_numpy(), dtype=torch.long) if code is None else code
    batch = torch.nn.functional.one_hot(torch.as_tensor(batch).expand(len(rows)), 2).float()
    inverse = torch.linalg.inv(torch.eye(len(model.latent_names)) - module.graph.adjacency())
    with torch.no_grad():
        mean, log_var = module.encode(expression)
        offset = model.calibration.offset(torch.zeros(3))
        draws = [mean + torch.exp(0.5 * log_var) * draw for draw in standard_draws(n, mean.shape[1], 0, mean)]
        located = torch.stack([module.decoder(z @ inverse, batch) + offset for z in draws])
    return (located.exp() if module.config.likelihood == "nb" else located).numpy()


def test_normalized_expression_is_the_mean_of_the_likelihood(trained):
    rows = np.array([3, 50, 7])
    expected = by_hand(trained, rows, 32)
    found = trained.get_normalized_expression(indices=rows)
    assert list(found.columns) == list(trained.adata.var_names)
    assert list(found.index) == list(trained.adata.obs_names[rows])
    np.testing.assert_allclose(found, expected.mean(0), rtol=1e-4)
    mask = np.isin(np.arange(trained.adata.n_obs), rows)
    np.testing.assert_allclose(trained.get_normalized_expression(indices=mask).loc[found.index], found, rtol=1e-4)
    of_genes = trained.get_normalized_expression(indices=rows, gene_list=["P02", found.columns[9]], library_size=1e4)
    np.testing.assert_allclose(of_genes, 1e4 * found[["P02", found.columns[9]]], rtol=1e-4)
    total = trained.adata.obs["total_counts"].to_numpy()[rows, None]
    counts = trained.get_normalized_expression(indices=rows, library_size="latent", return_numpy=True)
    assert isinstance(counts, np.ndarray)
    np.testing.assert_allclose(counts, total * found, rtol=1e-4)
    query = trained.adata[rows].copy()  # too few cells to train, and not to ask for
    query.obs["perturbation"] = "unknown"
    np.testing.assert_allclose(trained.get_normalized_expression(query), found, rtol=1e-4)


def test_normalized_expression_in_batches(trained):
    rows = np.arange(5)
    one, two = (by_hand(trained, rows, 32, code).mean(0) for code in (0, 1))
    names = known_categories(trained.registry_)["batch"]["batch"]
    np.testing.assert_allclose(
        trained.get_normalized_expression(indices=rows, transform_batch=names[1]), two, rtol=1e-4
    )
    both = trained.get_normalized_expression(indices=rows, transform_batch=names)
    np.testing.assert_allclose(both, (one + two) / 2, rtol=1e-4)
    assert not np.allclose(one, two, rtol=1e-3)


def test_single_draws_of_normalized_expression(trained):
    draws = trained.get_normalized_expression(indices=[0, 1], n_samples=3000, return_mean=False)
    assert draws.shape == (3000, 2, 30)
    assert trained.get_normalized_expression(indices=[0], n_samples=1, return_mean=False).shape == (1, 1, 30)
    mean = trained.get_normalized_expression(indices=[0, 1], n_samples=3000, return_numpy=True)
    assert np.mean(((draws.mean(0) - mean) / (draws.std(0) / np.sqrt(3000))) ** 2) < 2
    pairs = np.corrcoef(draws[:1500, 0, 5], draws[1500:, 0, 5])[0, 1]
    assert abs(pairs) < 0.1  # not the two of a pair


def test_normalized_expression_of_log_values():
    model = make("normal")
    found = model.get_normalized_expression(indices=[0, 2])
    np.testing.assert_allclose(found, by_hand(model, np.array([0, 2]), 32).mean(0), atol=1e-4)
    np.testing.assert_allclose(found, model.get_counterfactual("control")[[0, 2]], atol=1e-4)
    with pytest.raises(ValueError, match=r"library_size=10000.*leave it out"):
        model.get_normalized_expression(library_size=1e4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"gene_list": ["P01", "TP53"]}, "TP53"), ({"library_size": 0}, "library_size=0"),
        ({"library_size": "own"}, "'own'.*'latent'"), ({"n_samples": 0}, "n_samples=0"),
        ({"batch_size": 0}, "batch_size=0"), ({"transform_batch": "new"}, "'new'"),
    ],
)  # fmt: skip
def test_bad_arguments_of_normalized_expression(trained, arguments, words):
    with pytest.raises(ValueError, match=words):
        trained.get_normalized_expression(**arguments)
