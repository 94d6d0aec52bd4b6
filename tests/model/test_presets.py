"""What the preset "paper" does beyond the text, and that "paper-literal" does each as printed."""

import anndata as ad
import numpy as np
import pytest
import scvi
import torch

import raptorgraph as rg
from raptorgraph.model._config import AS_PRINTED
from raptorgraph.model._presets import PAPER, PAPER_LITERAL
from raptorgraph.model._splitter import ScreenSplitter
from raptorgraph.nn import mk_mmd

pytestmark = pytest.mark.usefixtures("few_steps")

N_HIDDEN = 9


@pytest.fixture(scope="module")
def screen():
    """Counts of a small screen; conditions of 30 cells."""
    return rg.datasets.simulate(
        40, 4, n_doubles=0, n_control_cells=70, n_cells_per_perturbation=30, n_truth_cells=5, effect_size=3.0, seed=0
    )


@pytest.fixture
def make(screen):
    """Untrained model of a preset."""

    def make_(preset, **arguments):
        adata = screen.copy()
        scvi.settings.seed = 0
        rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
        return rg.RaptorGraph.from_preset(adata, preset, **{"n_hidden": N_HIDDEN, **arguments})

    return make_


@pytest.fixture
def splitter_of(monkeypatch):
    """Data module that a model is trained with for an epoch."""

    def splitter_of_(model, **arguments):
        made = []

        class Recorder(ScreenSplitter):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                made.append(self)

        monkeypatch.setattr(type(model), "_data_splitter_cls", Recorder)
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False, **arguments)
        return made[0]

    return splitter_of_


def expression(adata):
    return np.log1p(1e4 * adata.X.toarray() / adata.obs["total_counts"].to_numpy()[:, None])


def controls(adata):
    return expression(adata[adata.obs["perturbation"] == "control"])


def test_settings_of_the_publication():
    """Tables S4 and S5, section 5; 109 latents for 105 genes."""
    for preset in (PAPER, PAPER_LITERAL):
        model, train, plan = preset["model"], preset["train"], preset["plan"]
        assert (model["n_hidden"], train["batch_size"], train["max_epochs"]) == (904, 256, 100)
        assert (plan["optimizer"], plan["lr"], plan["kl_weight"]) == ("AdamW", 1e-4, 0.447)
        assert (plan["mu"], plan["lambda1"], model["graph_init"]) == (0.27, 0.052, "uniform")
    assert set(PAPER_LITERAL["model"]["as_printed"]) == set(AS_PRINTED)


@pytest.mark.parametrize("preset", ["paper", "paper-literal"])
def test_latents_as_published(make, preset):
    assert make(preset).module.config.n_latent == 4 + 4


def test_the_encoder_reads_expression_as_it_is(make):
    cells = torch.tensor(controls(make("paper").adata), dtype=torch.float32)
    torch.testing.assert_close(make("paper-literal").module.standardized(cells), cells, rtol=0, atol=0)
    sd = cells.numpy().std(0, ddof=1)
    expected = (cells.numpy() - cells.numpy().mean(0)) / np.maximum(sd, 0.05 * np.median(sd[sd > 0]))
    np.testing.assert_allclose(make("paper").module.standardized(cells.clone()), expected, atol=2e-4)


def test_the_decoder_starts_from_random_weights(make):
    model = make("paper")
    mean = controls(model.adata).mean(0)
    np.testing.assert_allclose(model.module.decoder.base.detach(), mean, atol=1e-5)
    base = make("paper-literal").module.decoder.base.detach().numpy()
    assert np.abs(base).max() <= N_HIDDEN**-0.5  # as torch starts the bias of a layer of that many inputs
    assert base.std() == pytest.approx(N_HIDDEN**-0.5 / 3**0.5, rel=0.3)
    assert np.abs(np.corrcoef(base, mean)[0, 1]) < 0.5


def test_parts_of_the_network(make):
    literal, paper = make("paper-literal").module, make("paper").module
    assert (literal.encoder.interaction.residual, paper.encoder.interaction.residual) == (False, True)
    assert (literal.encoder.bounded, paper.encoder.bounded) == (False, True)
    assert (literal.graph.guarded, paper.graph.guarded) == (False, True)
    assert (literal.graph.adjacency().diagonal() != 0).all()
    assert (paper.graph.adjacency().diagonal() == 0).all()


def test_the_loss_clamps_the_acyclicity(make):
    model = make("paper-literal")
    with torch.no_grad():
        model.module.graph.weight.zero_()
        model.module.graph.weight[0, 1] = model.module.graph.weight[1, 0] = 3.0  # the determinant is 1 - 81
    n, d = 5, model.module.config.n_latent
    inferred = {"mean": torch.zeros(n, d), "log_var": torch.zeros(n, d), "z": torch.randn(n, d)}
    inferred["expression"] = torch.zeros(n, model.module.config.n_genes)
    tensors = {
        "X": torch.zeros(n, model.module.config.n_genes),
        "library_size": torch.ones(n, 1),
        "mask": torch.zeros(n, 4),
        "condition": torch.zeros(n, dtype=torch.int64),
        "shift": torch.zeros(1, model.module.config.n_genes),
    }
    generated = {"location": torch.zeros(2 * n, model.module.config.n_genes)}
    found = model.module.loss(
        tensors, inferred, generated, kl_weight=0.0, shift_weight=0.0, dag_weight=1.0, mu=0.0, lambda1=0.0
    )
    assert found.extra_metrics["dag"] == 0


def test_mu_falls_linearly_to_0(make):
    plan = PAPER_LITERAL["plan"]
    assert (plan["mu_path"], plan["mu_final"], plan["project_at"]) == ("linear", 0.0, 1.0)
    assert (PAPER["plan"].get("mu_path", "geometric"), PAPER["plan"].get("mu_final", 0.01)) == ("geometric", 0.01)


def test_all_cells_are_trained_on(make, splitter_of):
    model = make("paper-literal")
    splitter = splitter_of(model)
    np.testing.assert_array_equal(splitter.train_idx, np.arange(model.adata.n_obs))
    assert splitter.n_val == 0
    other = make("paper")
    assert len(splitter_of(other).train_idx) == round(0.9 * other.adata.n_obs)
    shared = splitter_of(make("paper-literal"), train_size=0.8)
    assert shared.n_val == round(0.2 * model.adata.n_obs)


def test_transport_is_of_all_controls_on_all_genes(make, splitter_of):
    import ot

    model = make("paper-literal")
    splitter = splitter_of(model)
    assert (splitter.n_comps, splitter.max_controls) == (None, None)
    cells, names = expression(model.adata).astype(np.float32), model.adata.obs["perturbation"].astype(str).to_numpy()
    control = np.flatnonzero(names == "control")
    for name in ("P01", "P03"):
        rows = np.flatnonzero(names == name)
        square = ((cells[rows].astype(float)[:, None] - cells[control].astype(float)[None]) ** 2).sum(2)
        cost = ot.emd2(ot.unif(len(rows)), ot.unif(len(control)), square)
        plan = splitter.train_split.plan[rows][:, control].toarray() / len(rows)
        np.testing.assert_allclose(plan.sum(1), 1 / len(rows), rtol=1e-5)
        np.testing.assert_allclose(plan.sum(0), 1 / len(control), rtol=1e-4)  # every control, evenly
        assert (plan * square).sum() == pytest.approx(cost, rel=1e-5)


def test_the_mmd_is_of_all_cells_of_a_condition(make, splitter_of):
    model = make("paper-literal")
    splitter = splitter_of(model)
    loader = splitter.train_dataloader()
    assert len(loader) == splitter.steps_per_epoch == 4
    for batch in splitter.train_dataloader().sampler:
        assert len(batch.perturbed) == 30
        assert len(set(splitter.codes[batch.perturbed])) == 1
    module, tensors = model.module.eval(), next(iter(loader))
    with torch.no_grad():
        inferred = module.inference(**module._get_inference_input(tensors))
        generated = module.generative(**module._get_generative_input(tensors, inferred))
        terms = module.loss(tensors, inferred, generated, mmd_weight=1.0, shift_weight=0.0, mu=0.1).extra_metrics
        predicted = module.decode(module.modulator(inferred["z"], tensors["mask"]), None, None)
        real = torch.log1p(1e4 * tensors["partner"]["X"] / tensors["partner"]["library_size"])
        torch.testing.assert_close(terms["mmd"], mk_mmd(predicted, real), rtol=1e-4, atol=1e-5)


def test_its_latents_collapse_and_it_answers(make):
    """The KL beside a mean over genes: latents say next to nothing of a cell, and every cell is predicted alike."""
    model = make("paper-literal")
    model.train(max_epochs=40, accelerator="cpu", enable_progress_bar=False, plan_kwargs={"lr": 2e-2})
    assert model.latent_activity()["kl"].mean() < 0.05  # nats
    cells = model.adata[model.adata.obs["perturbation"] == "control"].copy()
    built, measured = model.get_counterfactual("control", cells), controls(model.adata)
    assert built.var(0).mean() < 0.05 * measured.var(0).mean()
    effects = model.predict_effects(["P01", "P01+P02"])
    assert np.isfinite(effects.to_numpy()).all()


def test_it_is_saved_and_loaded(make, tmp_path):
    model = make("paper-literal")
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    model.save(tmp_path / "model")
    again = rg.RaptorGraph.load(tmp_path / "model", model.adata)
    assert again.preset_ == "paper-literal"
    assert again.module.config == model.module.config
    for name, value in model.module.state_dict().items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, again.module.state_dict()[name], rtol=0, atol=0, equal_nan=True)
    one, other = (each.predict_effects("P02").to_numpy() for each in (model, again))
    np.testing.assert_array_equal(one, other)


def test_it_needs_cells_in_memory(screen, tmp_path):
    screen.write_h5ad(tmp_path / "screen.h5ad")
    adata = ad.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraph.from_preset(adata, "paper-literal", n_hidden=4)
    with pytest.raises(ValueError, match="one_condition=True needs cells in memory"):
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
