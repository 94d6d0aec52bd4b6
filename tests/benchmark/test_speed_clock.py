"""The clock of a training, driven by hand at times that are given."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from raptorgraph.benchmark import _speed_clock
from raptorgraph.benchmark._speed_clock import Clock, first_within


def trained(monkeypatch, *, n_epochs=3, n_steps=10, step=2.0, validation=7.0):
    """Clock of a training of steps, each with one product of matrices, and a validation at the end of each epoch."""
    now, a = [100.0], torch.ones(8, 16)
    monkeypatch.setattr(_speed_clock.time, "perf_counter", lambda: now[0])
    clock, trainer = Clock("loss"), SimpleNamespace(global_step=0, sanity_checking=False, callback_metrics={})
    now[0] += 50.0  # what comes before the first step
    for epoch in range(n_epochs):
        clock.on_train_epoch_start(trainer)
        for i in range(n_steps):
            clock.on_train_batch_start(trainer, None, None, i)
            _ = a @ a.T
            now[0] += step
            trainer.global_step += 1
            clock.on_train_batch_end(trainer, None, None, i)
        clock.on_validation_start(trainer)
        now[0] += validation
        trainer.callback_metrics["loss"] = torch.tensor(10.0 - epoch)
        clock.on_validation_end(trainer)
        clock.on_train_epoch_end(trainer)
    return clock


def test_validations_do_not_count(monkeypatch):
    clock = trained(monkeypatch)
    assert clock.curve == [(70.0, 10.0), (90.0, 9.0), (110.0, 8.0)]
    assert set(clock.steps) == {2.0}
    assert clock.epochs == [20.0] * 2  # the first was profiled


@pytest.mark.skipif(torch.cuda.is_available(), reason="products are counted on the CPU")
def test_products_of_some_steps_are_counted(monkeypatch):
    monkeypatch.setattr(_speed_clock, "matrix_rate", lambda device: 1000.0)
    found = trained(monkeypatch).results()
    assert found["ms a step"] == 2000.0
    # 2 x 8 x 16 x 8 operations in each step of two seconds
    assert found["share of the matrix rate"] == pytest.approx(2 * 8 * 16 * 8 / 2.0 / 1000.0)
    assert found["step over matrix products"] == pytest.approx(2000.0 / found["ms in matrix products"])


def test_a_training_that_ends_before_the_profile(monkeypatch):
    found = trained(monkeypatch, n_epochs=1, n_steps=2).results()
    assert found == {"ms a step": 2000.0, "seconds an epoch": 4.0}


def test_first_value_from_which_all_are_near_the_last():
    assert first_within(np.array([5.0, 1.005, 1.2, 0.995, 1.0])) == 3
    assert first_within(np.array([-5.0, -1.005, -1.0])) == 1
    assert first_within(np.array([3.0])) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="of the CPU")
def test_the_rate_is_that_of_the_fastest_product(monkeypatch):
    monkeypatch.setitem(_speed_clock._SIZES, "cpu", 4)
    times = iter([0.0, 3.0, 10.0, 11.0, 20.0, 22.0, 30.0, 39.0, 40.0, 44.0])
    monkeypatch.setattr(_speed_clock.time, "perf_counter", lambda: next(times))
    assert _speed_clock.matrix_rate("cpu") == 2 * 4**3 / 1.0
