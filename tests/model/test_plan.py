"""The training plan: schedules, weights of the validation, decay, and what happens to the graph."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from raptorgraph.model import NonFiniteLossError, RaptorGraphTrainingPlan
from raptorgraph.model._config import ModuleConfig
from raptorgraph.model._module import RaptorGraphModule
from raptorgraph.nn import in_domain


def plan_of(epoch=0, max_epochs=10, n_steps=200, perturbed_prior=True, **arguments):
    torch.manual_seed(0)
    sizes = {"n_genes": 8, "n_perturbed": 2, "n_targets": 2, "counts": True}
    module = RaptorGraphModule(ModuleConfig(**sizes, graph="dagma", perturbed_prior=perturbed_prior))
    plan = RaptorGraphTrainingPlan(module, **arguments)
    plan._trainer = SimpleNamespace(
        max_epochs=max_epochs,
        current_epoch=epoch,
        estimated_stepping_batches=n_steps,
        gradient_clip_val=None,
        precision="32-true",
        world_size=1,
        progress_bar_callback=None,
    )
    return plan


@pytest.mark.parametrize(("epoch", "expected"), [(0, 0.1), (1, 0.2), (3, 0.4), (4, 0.4), (9, 0.4)])
def test_kl_rises_over_its_share_of_the_epochs(epoch, expected):
    assert plan_of(epoch, kl_weight=0.4, kl_warmup=0.4).kl_weight == pytest.approx(expected)
    assert plan_of(epoch, kl_weight=0.4, kl_warmup=0.0).kl_weight == 0.4


@pytest.mark.parametrize(("epoch", "expected"), [(0, 1.0), (4, 0.1), (8, 0.01), (9, 0.01)])
def test_mu_falls_geometrically_until_the_projection(epoch, expected):
    assert plan_of(epoch, mu=1.0, mu_final=0.01, project_at=0.8).mu == pytest.approx(expected)


@pytest.mark.parametrize(("epoch", "expected"), [(0, 0.5), (2, 0.4), (5, 0.25), (9, 0.05)])
def test_mu_falls_linearly_to_0_where_it_is_asked_to(epoch, expected):
    assert plan_of(epoch, mu=0.5, mu_final=0.0, mu_path="linear", project_at=1.0).mu == pytest.approx(expected)


def test_learning_rate_warms_up_and_falls_as_a_cosine():
    found = plan_of(n_steps=200, lr=0.1, perturbed_prior=False).configure_optimizers()
    assert found["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(200):
        rates.append(found["optimizer"].param_groups[0]["lr"])
        found["optimizer"].step()
        found["lr_scheduler"]["scheduler"].step()
    expected = np.append(0.1 * np.arange(1, 7) / 6, 0.05 * (1 + np.cos(np.pi * np.arange(194) / 194)))
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    constant = plan_of(lr=0.1, lr_schedule="constant", optimizer="Adam").configure_optimizers()
    assert list(constant) == ["optimizer"]
    assert type(constant["optimizer"]) is torch.optim.Adam


def test_weights_of_maps_alone_decay():
    plan = plan_of(weight_decay=0.3, perturbed_prior=False)
    decayed, free = plan.configure_optimizers()["optimizer"].param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    names = {id(parameter): name for name, parameter in plan.module.named_parameters()}
    assert {names[id(parameter)] for parameter in decayed["params"]} == {
        "encoder.preconditioned.weight", "encoder.preconditioned.diagonal", "encoder.preconditioned.bias",
        "encoder.interaction.weight", "encoder.interaction.bias", "encoder.aggregation", "encoder.offset",
        "decoder.linear.weight", "decoder.dense.0.weight", "decoder.dense.2.weight",
    }  # fmt: skip
    assert {names[id(parameter)] for parameter in free["params"]} == {
        "modulator.strength", "graph.weight", "decoder.base", "decoder.dense.0.bias", "distribution.log_scale",
    }  # fmt: skip


def test_updates_are_one_pass_over_the_weights_where_results_may_change_by_rounding():
    assert plan_of().configure_optimizers()["optimizer"].defaults["fused"]
    assert not plan_of(perturbed_prior=False).configure_optimizers()["optimizer"].defaults["fused"]  # as published
    half = plan_of()
    half.trainer.gradient_clip_val, half.trainer.precision = 1.0, "16-mixed"  # lightning refuses to clip there
    assert not half.configure_optimizers()["optimizer"].defaults["fused"]


def test_networks_that_start_almost_right_have_lower_rates():
    """Each parameter that is trained is in one group; the strength and what it depends on are in none."""
    plan = plan_of(lr=0.01, weight_decay=0.3)
    groups = plan.configure_optimizers()["optimizer"].param_groups
    names = {id(parameter): name for name, parameter in plan.module.named_parameters()}
    found = [(names[id(p)], group["initial_lr"], group["weight_decay"]) for group in groups for p in group["params"]]
    assert len({name for name, _, _ in found}) == len(found)
    assert {name for name, _, _ in found} == set(names.values()) - {
        "modulator.strength", "modulator.state_weight", "modulator.state_bias",
    }  # fmt: skip
    rates = {name: rate for name, rate, _ in found}
    expected = {"encoder": 1e-3, "decoder": 3e-3}
    assert rates == pytest.approx({name: expected.get(name.partition(".")[0], 0.01) for name in rates})
    assert {name for name, _, decay in found if decay == 0} == {
        "modulator.log_spread", "modulator.log_combination", "prior.escape_logit", "graph.weight", "decoder.base",
        "decoder.dense.0.bias", "distribution.log_scale",
    }  # fmt: skip
    assert {decay for _, _, decay in found} == {0.0, 0.3}


def watched(plan, monkeypatch, loss=1.0):
    """Settings of the loss that the plan asks for."""
    asked = []

    def forward(batch, loss_kwargs):
        asked.append(dict(loss_kwargs))
        terms = {"kl": torch.tensor(0.5), "shift": torch.tensor(loss)}
        return None, None, SimpleNamespace(loss=torch.tensor(loss), extra_metrics=terms, n_obs_minibatch=4)

    monkeypatch.setattr(plan, "forward", forward)
    monkeypatch.setattr(plan, "log", lambda *args, **kwargs: None)
    monkeypatch.setattr(plan, "compute_and_log_metrics", lambda *args: None)
    return asked


def test_validation_has_the_final_weights_in_every_epoch(monkeypatch):
    plan = plan_of(epoch=0, kl_weight=0.4, kl_warmup=0.4, mu=1.0, mu_final=0.01, mmd_weight=0.3)
    asked = watched(plan, monkeypatch)
    plan.training_step({}, 0)
    plan.validation_step({}, 0)
    names = ("kl_weight", "mu", "mmd_weight", "shift_weight")
    assert [[step[name] for name in names] for step in asked] == [[0.1, 1.0, 0.3, 1.0], [0.4, 0.01, 0.3, 1.0]]


def test_a_loss_that_is_not_finite_is_named(monkeypatch):
    plan = plan_of(epoch=2)
    watched(plan, monkeypatch, loss=float("inf"))
    with pytest.raises(NonFiniteLossError, match=r"in epoch 3: shift\. Lower the learning rate"):
        plan.training_step({}, 0)


def test_a_step_out_of_the_domain_is_halved(monkeypatch):
    plan = plan_of()
    weight = plan.module.graph.weight

    def step(self, epoch, batch_idx, optimizer, closure):
        with torch.no_grad():
            weight[0, 1] += 2.0
            weight[1, 0] += 2.0

    monkeypatch.setattr("scvi.train.TrainingPlan.optimizer_step", step)
    plan.optimizer_step(0, 0, None, None)
    assert plan.n_retreats == 1
    assert in_domain(plan.module.graph.adjacency())
    assert weight[0, 1].item() == 0.5  # 2 and 1 are outside, as 1 - 1 * 1 is no positive determinant
    plan.module.graph.weight.requires_grad_(False)  # a graph that is not trained is left alone
    plan.optimizer_step(0, 0, None, None)
    assert weight[0, 1].item() == 2.5


@pytest.mark.parametrize(("epoch", "projected"), [(6, False), (7, True), (9, True)])
def test_the_graph_is_projected_once_its_share_is_over(epoch, projected):
    plan = plan_of(epoch, project_at=0.8, dag_threshold=0.3)
    with torch.no_grad():
        plan.module.graph.weight[:3, :3] = torch.tensor([[0.0, 0.5, 0.2], [0.4, 0.0, 0.7], [0.0, 0.0, 0.0]])
    plan.on_train_epoch_end()
    assert bool(plan.module.graph.projected) is projected
    plan.on_train_end()  # also after an early stop
    found = plan.module.graph.adjacency().detach()
    expected = torch.zeros_like(found)
    expected[0, 1], expected[1, 2] = 0.5, 0.7  # neither below the threshold, nor the lighter edge of the cycle
    torch.testing.assert_close(found, expected)
