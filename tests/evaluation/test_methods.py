import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from raptorgraph.baselines import DiscrepancyVAE
from raptorgraph.evaluation import RaptorGraphMethod, make_method
from raptorgraph.evaluation._methods import MODELS, NetworkAlone, gene_graph, ordered
from raptorgraph.screen import Screen

pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module")
def screen(adata, setup):
    return Screen(adata.copy(), setup)


@pytest.fixture(scope="module")
def fitted(screen):
    cells = screen.cells(screen.singles)
    before = cells.copy()
    method = RaptorGraphMethod(seed=3, max_epochs=1, **screen.setup).fit(cells)
    assert list(cells.var_names) == list(before.var_names)
    assert "_scvi_uuid" not in cells.uns
    return method, cells


def test_predictions_are_in_the_genes_and_scale_of_the_screen(fitted, screen):
    method, cells = fitted
    effects = method.predict_effects(["P02+P01", "P03"])
    assert list(effects.columns) == list(cells.var_names)
    assert list(effects.index) == ["P01+P02", "P03"]
    drawn = method.predict(["P01"], n_cells=30, seed=1)
    assert drawn.shape == (30, cells.n_vars)
    assert list(drawn.var_names) == list(cells.var_names)
    assert method.predict_control().shape == (cells.n_vars,)
    controls = screen.adata[screen.codes == 0].copy()
    built = method.reconstruct(controls)
    assert built.shape == controls.shape
    # genes are matched by name: reconstructions follow the mean expression of their genes
    assert np.corrcoef(built.mean(axis=0), screen.control_mean)[0, 1] > 0.5


def test_same_seed_same_predictions(fitted, screen):
    method, cells = fitted
    again = RaptorGraphMethod(seed=3, max_epochs=1, **screen.setup).fit(cells)
    pd.testing.assert_frame_equal(again.predict_effects("P01+P02"), method.predict_effects("P01+P02"))


def test_arguments_of_the_training(screen):
    method = RaptorGraphMethod(max_epochs=1, train_kwargs={"limit_train_batches": 0}, **screen.setup)
    method.fit(screen.cells(screen.singles))
    assert method.model.is_trained
    assert method.model.history == {}  # no update was made
    assert method.history_.empty
    assert RaptorGraphMethod().train_kwargs == {}


def test_unknown_genes_are_refused(fitted):
    with pytest.raises(ValueError, match="P99 was not perturbed"):
        fitted[0].predict_effects("P99")


def test_other_control_labels(fitted, screen):
    """The name of the control decides nothing: the same cells under another name give the same numbers."""
    method, cells = fitted
    renamed = cells.copy()
    renamed.obs["perturbation"] = renamed.obs["perturbation"].astype(str).replace("control", "nt")
    other = RaptorGraphMethod(seed=3, max_epochs=1, **{**screen.setup, "control": "nt"}).fit(renamed)
    np.testing.assert_allclose(other.predict_control(), method.predict_control(), rtol=1e-6)
    controls = (cells.obs["perturbation"] == "control").to_numpy()
    built = other.reconstruct(renamed[controls].copy())
    np.testing.assert_allclose(built, method.reconstruct(cells[controls].copy()), rtol=1e-5, atol=1e-6)


def test_order_of_methods():
    assert ordered(["mine", "dVAE", "additive", "dVAE", "no change"]) == ["no change", "additive", "dVAE", "mine"]


@pytest.mark.parametrize("name", [*MODELS, "additive"])
def test_every_method_is_made_as_it_is_asked_for(name, screen):
    sets = {"set": ["G0010", "G0011"]} if name == "SENA" else None
    method = make_method(name, screen.setup, seed=5, max_epochs=2, gene_sets=sets)
    assert method.setup_args["library_size_key"] == "total_counts"
    if name != "additive":
        settings = getattr(method, "settings", method)  # dVAE and SENA keep those of their training together
        assert (settings.seed, settings.max_epochs) == (5, 2)
    if isinstance(method, RaptorGraphMethod):
        assert method.preset == ("paper" if name == "raptorgraph paper" else "default")
        assert type(method) is (NetworkAlone if name == "raptorgraph network" else RaptorGraphMethod)


def test_the_network_alone_is_that_of_the_model_with_its_posterior(fitted, screen):
    whole, cells = fitted
    alone = make_method("raptorgraph network", screen.setup, seed=3, max_epochs=1).fit(cells)
    assert not alone.model.has_posterior
    asked = ["P01", "P02+P03"]
    decoded = whole.model.predict_effects(asked, kind="decoder")[alone.var_names].to_numpy()
    np.testing.assert_array_equal(alone.predict_effects(asked), decoded)
    # of cells that start alike, those of the whole model are moved by what the posterior says beyond the decoder
    for label, step in zip(asked, whole.predict_effects(asked).to_numpy() - decoded, strict=True):
        seeds = range(8)  # the means over so few cells vary by more than the tolerance from seed to seed
        moved, own = (np.mean([e.predict(label, seed=s).X.mean(axis=0) for s in seeds], axis=0) for e in (whole, alone))
        assert (moved - own) @ step / (step @ step) == pytest.approx(1, abs=0.15)


def test_what_cannot_be_made(screen):
    with pytest.raises(ValueError, match="SENA needs gene sets"):
        make_method("SENA", screen.setup)
    with pytest.raises(ValueError, match="no method 'best'; there are no change, .*dVAE, SENA"):
        make_method("best", screen.setup)


def test_graphs_among_the_perturbed_genes(fitted, screen):
    genes = fitted[0].perturbed_genes
    found = gene_graph(fitted[0])
    dag = fitted[0].model.get_dag().loc[genes, genes]
    pd.testing.assert_frame_equal(found, dag.astype(found.dtypes.iloc[0]), check_names=False)
    dvae = DiscrepancyVAE(seed=0, max_epochs=1, **screen.setup).fit(screen.cells(screen.singles))
    target, weights = dvae.targets_.loc[genes].to_numpy(), dvae.adjacency_.to_numpy()
    expected = np.einsum("gi,ij,hj->gh", target, weights, target) * (1 - np.eye(len(genes)))
    np.testing.assert_allclose(gene_graph(dvae), expected, atol=1e-7)  # float32
    with pytest.raises(TypeError, match="Additive has no graph"):
        gene_graph(make_method("additive", screen.setup).fit(screen.cells(screen.singles)))


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_profiles_are_those_of_the_mean_control_cell(screen, few_steps, preset):
    """Eq. S17: the mean control profile is encoded, shifted and decoded as if it were a cell."""
    cells = screen.cells(screen.singles)
    cells.X = sparse.csr_matrix(Screen(cells, screen.setup).expression)  # log values, so that the mean is a cell too
    del cells.obs["total_counts"]
    setup = {**screen.setup, "library_size_key": None}
    method = RaptorGraphMethod(preset, seed=3, max_epochs=1, **setup).fit(cells)
    control = (cells.obs["perturbation"] == "control").to_numpy()
    mean = ad.AnnData(np.asarray(cells[control].X.mean(axis=0), dtype=np.float32), var=cells.var[[]])
    mean.obs["perturbation"] = "control"
    profiles = method.predict_profiles(["P01", "P02+P01"])
    assert list(profiles.index) == ["P01", "P01+P02"]
    for label in profiles.index:
        built = pd.DataFrame(method.model.get_counterfactual(label, mean, seed=3), columns=method.model.var_names_)
        np.testing.assert_allclose(profiles.loc[label], built[method.var_names].iloc[0], atol=2e-5)
    # the mean over cells is another profile
    effects = method.predict_effects(["P01"]).loc["P01"].to_numpy()
    assert np.abs(profiles.loc["P01"].to_numpy() - method.predict_control() - effects).max() > 1e-3


def test_profiles_of_counts_and_of_simple_baselines(screen, fitted):
    method, cells = fitted
    assert method.predict_profiles("P01").shape == (1, cells.n_vars)
    assert np.corrcoef(method.predict_profiles("control").iloc[0], screen.control_mean)[0, 1] > 0.9
    additive = make_method("additive", screen.setup).fit(cells)
    expected = screen.control_mean + screen.effects.loc[["P01", "P02"]].sum().to_numpy()
    np.testing.assert_allclose(additive.predict_profiles("P01+P02").iloc[0], expected, atol=1e-5)


def test_models_on_request_are_made_and_have_their_place():
    literal = make_method("raptorgraph paper-literal", {}, max_epochs=2)
    assert (literal.preset, literal.max_epochs) == ("paper-literal", 2)
    assert "raptorgraph paper-literal" not in MODELS
    names = ["dVAE", "raptorgraph paper-literal", "additive", "raptorgraph paper"]
    assert ordered(names) == ["additive", "raptorgraph paper", "raptorgraph paper-literal", "dVAE"]
