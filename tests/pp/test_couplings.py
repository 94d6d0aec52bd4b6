"""Each coupling against a linear program, an assignment, or its definition."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment, linprog
from scipy.spatial.distance import cdist

from raptorgraph.pp import _couplings
from raptorgraph.pp._couplings import COUPLINGS, _entries


def clouds(n_cells, n_controls, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0.3, size=(n_cells, 4)), rng.normal(size=(n_controls, 4))


def plan_of(method, cells, controls, seed=0):
    """Dense plan, and the squared distances."""
    rows, columns, weights = COUPLINGS[method](cells, controls, np.random.default_rng(seed))
    plan = np.zeros((len(cells), len(controls)))
    np.add.at(plan, (rows, columns), weights)
    return plan, cdist(cells, controls, "sqeuclidean")


@pytest.mark.parametrize("method", COUPLINGS)
def test_every_cell_has_a_partner_and_no_pair_comes_twice(method):
    rows, columns, weights = COUPLINGS[method](*clouds(7, 5), np.random.default_rng(0))
    assert set(rows) == set(range(7))
    assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == len(rows)
    assert (weights > 0).all()


def test_emd_is_the_optimum_of_the_linear_program():
    plan, cost = plan_of("emd", *clouds(6, 9))
    marginals = np.r_[np.full(6, 1 / 6), np.full(9, 1 / 9)]
    sums = np.vstack([np.kron(np.eye(6), np.ones(9)), np.kron(np.ones(6), np.eye(9))])
    optimum = linprog(cost.ravel(), A_eq=sums, b_eq=marginals).fun
    np.testing.assert_allclose((plan * cost).sum(), optimum, rtol=1e-6)
    np.testing.assert_allclose(np.r_[plan.sum(axis=1), plan.sum(axis=0)], marginals, rtol=1e-6)


@pytest.mark.parametrize("method", ["emd", "hungarian"])
def test_equal_numbers_are_an_assignment(method):
    plan, cost = plan_of(method, *clouds(30, 30))
    rows, columns = linear_sum_assignment(cost)
    assert np.count_nonzero(plan) == 30
    assert (plan[rows, columns] > 0).all()


def test_hungarian_uses_few_controls_evenly_and_at_the_least_cost():
    plan, cost = plan_of("hungarian", *clouds(11, 4))
    np.testing.assert_array_equal(plan.sum(axis=1), 1)
    assert plan.sum(axis=0).max() <= 3
    # the same with capacities, as a linear program
    each, capacity = np.kron(np.eye(11), np.ones(4)), np.kron(np.ones(11), np.eye(4))
    optimum = linprog(cost.ravel(), A_eq=each, b_eq=np.ones(11), A_ub=capacity, b_ub=np.full(4, 3)).fun
    np.testing.assert_allclose((plan * cost).sum(), optimum, rtol=1e-6)


def test_sinkhorn_is_near_the_optimum_and_uses_controls_evenly():
    cells, controls = clouds(25, 60)
    plan, cost = plan_of("sinkhorn", cells, controls)
    exact, _ = plan_of("emd", cells, controls)
    assert (exact * cost).sum() * (1 - 1e-3) <= (plan * cost).sum() < 1.1 * (exact * cost).sum()
    assert np.count_nonzero(plan) > np.count_nonzero(exact)
    np.testing.assert_allclose(plan.sum(axis=0), 1 / 60, rtol=0.02)


def test_sinkhorn_agrees_with_its_own_scaling_form():
    plan, cost = plan_of("sinkhorn", *clouds(8, 12))
    kernel = np.exp(-cost / (_couplings._REGULARIZATION * np.median(cost)))
    u, v = np.ones(8), np.ones(12)
    for _ in range(20_000):
        u = (1 / 8) / (kernel @ v)
        v = (1 / 12) / (kernel.T @ u)
    np.testing.assert_allclose(plan, u[:, None] * kernel * v, atol=5e-3 / 8)


def test_sinkhorn_of_equal_cells_is_uniform():
    plan, _ = plan_of("sinkhorn", np.ones((3, 2)), np.ones((4, 2)))  # the median cost is 0
    np.testing.assert_allclose(plan, 1 / 12, rtol=1e-6)


def test_sinkhorn_that_does_not_converge_warns(monkeypatch):
    monkeypatch.setattr(_couplings, "_MAX_ITERATIONS", 1)
    with pytest.warns(RuntimeWarning, match="for 20 perturbed cells stopped at 1 with .* uneven by"):
        plan_of("sinkhorn", *clouds(20, 30))


def test_a_solver_that_stops_early_is_an_error(monkeypatch):
    import ot

    solve = ot.emd
    monkeypatch.setattr(ot, "emd", lambda *args, **kwargs: solve(*args, **{**kwargs, "numItermax": 1}))
    with pytest.raises(RuntimeError, match="of 50 control cells to 40 perturbed cells failed: .* Lower max_controls"):
        plan_of("emd", *clouds(40, 50))


def test_nearest_is_the_smallest_distance():
    plan, cost = plan_of("nearest", *clouds(15, 40))
    np.testing.assert_array_equal(plan, np.eye(40)[cost.argmin(axis=1)])


def test_random_draws_32_controls_uniformly():
    plan, _ = plan_of("random", *clouds(2000, 64))
    np.testing.assert_array_equal(plan.sum(axis=1), 32)
    assert plan.max() == 1
    assert (np.abs(plan.sum(axis=0) - 1000) < 5 * np.sqrt(2000 * 0.25)).all()
    few, _ = plan_of("random", *clouds(3, 5))
    np.testing.assert_array_equal(few, 1)  # all there are


def test_small_entries_of_a_row_are_left_out():
    rows, columns, weights = _entries(np.array([[0.5, 4e-7, 6e-7], [1e-7, 0.0, 0.0]]))
    assert list(zip(rows.tolist(), columns.tolist(), weights.tolist(), strict=True)) == [
        (0, 0, 0.5), (0, 2, 6e-7), (1, 0, 1e-7),
    ]  # fmt: skip
