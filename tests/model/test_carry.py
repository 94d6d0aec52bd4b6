"""Cells that are taken from one location to another keep their noise, and follow the likelihood there."""

import numpy as np
import pytest
import torch
from scipy import stats

from raptorgraph.model._module import RaptorGraphModule

N = 20_000


def module(likelihood, *, scale, **kwargs):
    sizes = {"n_subgraphs": 1, "n_hidden": 4, "n_layers": 1}
    built = RaptorGraphModule(1, 1, 1, 2, likelihood=likelihood, counts=likelihood == "nb", **sizes, **kwargs)
    with torch.no_grad():
        built.log_scale.fill_(float(np.log(scale)))
    return built


@pytest.mark.parametrize("after", [0.3, 2.0, 9.0])
@torch.no_grad()
def test_counts_follow_the_negative_binomial_of_the_new_mean(after):
    theta, before = 1.5, 2.0
    x = stats.nbinom.rvs(theta, theta / (theta + before), size=(N, 1), random_state=0)
    generator = torch.Generator().manual_seed(0)
    at = [torch.full((N, 1), mean) for mean in (before, after)]
    y = module("nb", scale=theta).carry(torch.as_tensor(x, dtype=torch.float32), *at, generator).numpy().ravel()
    expected = stats.nbinom(theta, theta / (theta + after))
    edges = np.arange(int(expected.ppf(0.999)) + 1)
    observed = np.append([np.sum(y == k) for k in edges], np.sum(y > edges[-1]))
    probability = np.append(expected.pmf(edges), expected.sf(edges[-1]))
    assert stats.chisquare(observed, N * probability).pvalue > 1e-3
    # Only as many molecules move as the means are apart.
    assert (y >= x.ravel()).all() if after >= before else (y <= x.ravel()).all()
    if after == before:
        np.testing.assert_array_equal(y, x.ravel())


@torch.no_grad()
def test_values_keep_their_distance_to_the_location():
    x, before, after = (torch.tensor([[value]]) for value in (1.25, 1.0, 3.0))
    assert module("normal", scale=0.5).carry(x, before, after).item() == pytest.approx(3.25)
    # The squared error has no noise.
    assert module("normal", scale=1.0, learn_scale=False).carry(x, before, after).item() == pytest.approx(3.0)
