from dataclasses import replace

import numpy as np
import pytest
import torch

from raptorgraph.baselines._blocks import DiscrepancyModule, VariationalEncoder, small_linear
from raptorgraph.baselines._vae_training import TrainingSettings, condition_batches, sample, schedules, train
from raptorgraph.nn import mk_mmd


def test_schedules_are_the_published_ones():
    plan = schedules(100, mmd_weight=10.0, kl_weight=2.0, temperature=5.0)
    epoch = np.arange(100)
    np.testing.assert_allclose(plan["mmd_weight"], 10 * np.clip((epoch - 5) / 44, 0, 1))
    np.testing.assert_allclose(plan["kl_weight"], 2 * np.clip((epoch - 10) / 89, 0, 1))
    np.testing.assert_allclose(plan["temperature"], 1 + 4 * np.clip((epoch - 5) / 94, 0, 1))


@pytest.mark.parametrize("n", [1, 2, 4, 6, 11, 12, 13, 40])
def test_schedules_of_short_runs(n):
    plan = schedules(n, mmd_weight=10.0, kl_weight=2.0, temperature=5.0)
    assert len(plan) == n
    assert plan["mmd_weight"].iloc[-1] == 10.0
    assert (plan["mmd_weight"].iloc[: min(5, n // 2)] == 0).all()
    assert (plan["kl_weight"].iloc[:10] == 0).all()
    assert (plan["temperature"].iloc[:5] == 1).all()
    assert (plan.diff().iloc[1:] >= 0).all(axis=None)


def test_batches_hold_one_condition_each():
    codes = np.repeat([0, 1, 2, 3], [50, 23, 8, 3])
    batches = list(condition_batches(codes, 8, np.random.default_rng(0)))
    assert sorted((condition, len(rows)) for condition, rows in batches) == [(1, 8), (1, 8), (2, 8), (3, 3)]
    for condition, rows in batches:
        assert (codes[rows] == condition).all()
    used = np.concatenate([rows for _, rows in batches])
    assert len(set(used)) == len(used)


def test_batches_are_shuffled_by_the_generator():
    codes = np.repeat([0, 1, 2], [10, 40, 40])
    runs = [np.concatenate([r for _, r in condition_batches(codes, 8, np.random.default_rng(s))]) for s in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_draws_of_a_posterior():
    mean, log_var = torch.tensor([[1.0, -2.0], [0.0, 3.0]]), torch.log(torch.tensor([[4.0, 0.25], [1.0, 9.0]]))
    drawn = sample(mean, log_var, torch.Generator().manual_seed(3))
    noise = torch.randn(2, 2, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(drawn, mean + torch.tensor([[2.0, 0.5], [1.0, 3.0]]) * noise)


@pytest.fixture
def task():
    """Cells at the decoder's start, which nearly is 0, and settings of one epoch without a step."""
    torch.manual_seed(0)
    encoder = VariationalEncoder(small_linear(12, 8), 8, 3)
    module = DiscrepancyModule(encoder, n_genes=12, n_perturbed=2, n_latent=3, n_hidden=8)
    expression = torch.rand(40, 12, generator=torch.Generator().manual_seed(1))
    codes = np.repeat([0, 1, 2], [24, 8, 8])
    masks = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    settings = TrainingSettings(
        max_epochs=1,
        batch_size=8,
        lr=1e-12,
        mmd_weight=10.0,
        kl_weight=2.0,
        l1_weight=0.5,
        temperature=5.0,
        fix_sigma=100.0,
        seed=0,
    )
    return module, expression, codes, masks, settings


def test_terms_of_the_loss(task):
    module, expression, codes, masks, settings = task
    history = train(module, expression, codes, masks, settings, reduce_kl=torch.mean, reduce_l1=torch.sum).loc[0]
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    terms = []
    with torch.no_grad():
        for condition, cells in condition_batches(codes, 8, rng):
            x, y = expression[rng.choice(24, 8)], expression[cells]
            mean, log_var = module.encoder(x)
            z = sample(mean, log_var, generator)
            shifted = module(z + module.target(masks[[condition]], 1.0))
            kl = 0.5 * (log_var.exp() + mean**2 - 1 - log_var)
            mmd = mk_mmd(shifted, y, fix_sigma=100.0, biased=True)
            terms.append([((module(z) - x) ** 2).mean(), kl.mean(), mmd, module.graph.adjacency().sum()])
    expected = np.mean(terms, axis=0)
    np.testing.assert_allclose(history[["reconstruction", "kl", "mmd", "l1"]], expected, rtol=1e-5)
    # the schedules of a single epoch: no weight of the KL yet, and that of the MMD at its value
    assert history["loss"] == pytest.approx(expected @ [1, 0, 10, 0.5], rel=1e-5)
    assert not module.training


def test_a_loss_that_is_not_finite(task):
    module, expression, codes, masks, settings = task
    with pytest.raises(FloatingPointError, match="not finite in epoch 0 .* lower the learning rate, lr=1e-12"):
        train(module, expression * torch.inf, codes, masks, settings, reduce_kl=torch.mean, reduce_l1=torch.sum)


@pytest.mark.parametrize("wrong", [{"max_epochs": 0}, {"lr": 0.0}, {"kl_weight": -1.0}])
def test_settings_out_of_range(task, wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name}="):
        replace(task[-1], **wrong)
