"""The objective as the training uses it: the weights of its terms, their course, and where gradients go."""

import lightning
import numpy as np
import pytest
import scvi
import torch

import raptorgraph as rg

pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module")
def adata():
    data = rg.datasets.simulate(60, 5, n_doubles=3, n_control_cells=120, n_cells_per_perturbation=40, seed=1)
    rg.RaptorGraphModel.setup_anndata(data, library_size_key="total_counts")
    return data


def trained(adata, max_epochs=2, *, callbacks=(), **plan):
    scvi.settings.seed = 0
    model = rg.RaptorGraphModel.from_preset(adata, "paper")
    model.train(
        max_epochs=max_epochs,
        batch_size=512,  # one step an epoch
        enable_progress_bar=False,
        accelerator="cpu",
        plan_kwargs=plan,
        callbacks=list(callbacks),
    )
    return model


def test_the_loss_is_the_weighted_sum_of_its_terms(adata):
    history = trained(adata, dag_weight=0.3, mmd_weight=2.0, kl_weight=0.5).history
    terms = {name: history[f"{name}_train"].to_numpy(float).ravel() for name in ("reconstruction", "kl", "mmd", "dag")}
    total = terms["reconstruction"] + 0.5 * terms["kl"] + 2.0 * terms["mmd"] + 0.3 * terms["dag"]
    np.testing.assert_allclose(history["train_loss"].to_numpy(float).ravel(), total, rtol=1e-5)


def test_the_weight_of_the_score_falls_geometrically(adata):
    weights = []

    class Record(lightning.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            weights.append(pl_module.mu)

    trained(adata, max_epochs=6, callbacks=[Record()], mu=0.8, mu_final=0.05, project_at=4 / 6)
    # from 0.8 to 0.05 in four steps of a half, then constant
    assert weights == pytest.approx([0.8, 0.4, 0.2, 0.1, 0.05, 0.05])


def test_the_term_of_the_graph_does_not_reach_the_encoder(adata):
    def after_one_step(**plan):
        return trained(adata, max_epochs=1, dag_threshold=0.0, **plan).module

    without, detached = after_one_step(dag_weight=0.0), after_one_step(dag_weight=5.0)
    through = after_one_step(dag_weight=5.0, graph_gradient=True)
    plain = without.encoder.state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in detached.encoder.state_dict().items())
    assert not torch.equal(without.graph.weight, detached.graph.weight)
    assert not all(torch.equal(value, plain[name]) for name, value in through.encoder.state_dict().items())
