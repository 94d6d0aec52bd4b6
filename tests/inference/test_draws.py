"""Joint draws against the moments of the whole model of a gene."""

import numpy as np
import torch

from raptorgraph.inference._conditioning import Conditional, Sets
from raptorgraph.inference._draws import draw_sets

N_DRAWS = 6000


def _off(values, expected):
    """Difference of the mean of draws (along the first axis) to its expectation, in standard errors."""
    error = values.std(0) / np.sqrt(len(values))
    return np.abs(values.mean(0) - expected) / error


def test_draws_have_the_mean_and_the_covariance_of_the_whole_model(example, whole_model):
    """Two measured singles, their pair and one that was not measured; genes 5 and 9 are targets."""
    asked = np.vstack([example.design[:2], example.design[:1] + example.design[1:2], example.design[-1:]])
    fitted = example.posterior.fitted
    sets = Sets.of(torch.as_tensor(asked), fitted)
    draws = draw_sets(Conditional(fitted), sets, N_DRAWS, torch.Generator().manual_seed(0)).numpy()
    assert draws.shape == (N_DRAWS, 4, 400)
    for g in (0, 5, 9, 399):
        model = whole_model(example.posterior, g)
        mean, covariance, _ = model.moments(lambda klass, model=model: model.asked(asked, klass, residual=False))
        found = draws[:, :, g]
        assert _off(found, mean).max() < 4.5
        products = (found - mean)[:, :, None] * (found - mean)[:, None, :]
        assert _off(products, covariance).max() < 4.5
        assert (_off(products, 1.1 * covariance).diagonal() > 2).all()  # so the test can fail


def test_genes_are_drawn_independently(tiny):
    fitted = tiny.posterior.fitted
    sets = Sets.of(torch.as_tensor(tiny.design[3:]), fitted)
    draws = draw_sets(Conditional(fitted), sets, N_DRAWS, torch.Generator().manual_seed(1))[:, 0].numpy()
    correlation = np.corrcoef(draws.T)[np.triu_indices(12, 1)]
    assert np.abs(correlation).max() < 4.5 / np.sqrt(N_DRAWS)
