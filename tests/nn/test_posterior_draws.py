import numpy as np
import pytest
import torch

from raptorgraph.nn._posterior_draws import posterior_expectation, standard_draws


def test_draws_have_exact_first_and_second_moments():
    draws = standard_draws(7, 5, 3, torch.zeros(1, dtype=torch.float64))
    assert draws.shape == (8, 5)
    torch.testing.assert_close(draws.mean(0), torch.zeros(5, dtype=torch.float64), atol=1e-15, rtol=0)
    torch.testing.assert_close((draws**2).mean(0), torch.ones(5, dtype=torch.float64))
    assert torch.equal(draws, standard_draws(8, 5, 3, draws))
    assert not torch.equal(draws, standard_draws(8, 5, 4, draws))
    mean, log_var = torch.tensor([[1.0, -2.0]]), torch.log(torch.tensor([[4.0, 0.25]]))
    torch.testing.assert_close(posterior_expectation(torch.square, mean, log_var), mean**2 + log_var.exp())
    wide = posterior_expectation(torch.exp, torch.zeros(1, 1), torch.zeros(1, 1), n_draws=20_000)
    assert wide.item() == pytest.approx(np.exp(0.5), rel=0.02)
