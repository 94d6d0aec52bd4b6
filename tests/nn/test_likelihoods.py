"""Likelihoods against scipy's distributions and closed forms."""

import numpy as np
import pytest
import torch
from scipy import stats

from raptorgraph.nn import Likelihood, NegativeBinomial, Normal, SquaredError
from raptorgraph.nn._likelihood_base import ControlStatistics
from raptorgraph.nn._likelihoods import likelihood_for, make_likelihood

N = 20_000
LIBRARY = torch.tensor([[2000.0], [5000.0]])


def made(kind, scale, n_genes=1):
    likelihood = kind(n_genes)
    with torch.no_grad():
        likelihood.log_scale.copy_(torch.as_tensor(np.log(scale), dtype=torch.float32).expand(n_genes))
    return likelihood


def nb(mean, theta):
    return stats.nbinom(theta, theta / (theta + mean))


def expected_log1p(mean, theta, library):
    """By summing over the counts."""
    counts = np.arange(4000)
    return float((nb(mean, theta).pmf(counts) * np.log1p(1e4 * counts / library)).sum())


# -- values ------------------------------------------------------------------------------------------------------------
@torch.no_grad()
def test_negative_log_likelihoods():
    x, expression = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.2, -0.4]])
    location = torch.tensor([[2.0, 0.5]])
    scale = np.array([1.5, 4.0])
    of_counts = made(NegativeBinomial, scale, 2)
    found = of_counts.nll(of_counts.observed(x, expression), location)
    np.testing.assert_allclose(found, -nb(location.numpy(), scale).logpmf(x.numpy()), rtol=1e-5)
    normal = made(Normal, scale, 2)
    found = normal.nll(normal.observed(x, expression), location)
    np.testing.assert_allclose(found, -stats.norm(location.numpy(), scale).logpdf(expression.numpy()), rtol=1e-5)
    error = SquaredError(2)
    found = error.nll(error.observed(x, expression), location)
    np.testing.assert_allclose(found, [[0.64, 0.81]], rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("likelihood", [made(NegativeBinomial, 3.0), made(Normal, 0.7), made(SquaredError, 1.0)])
def test_evidence_is_the_slope_of_the_likelihood_ratio(likelihood):
    low, high = torch.tensor([[0.02], [0.5], [4.0], [4.0]]), torch.tensor([[0.3], [0.49], [9.0], [4.0]])
    expected = Likelihood.evidence(likelihood, low, high)
    torch.testing.assert_close(likelihood.evidence(low, high), expected, rtol=1e-4, atol=1e-6)
    for observed in (0.0, 3.0):
        ratio = likelihood.nll(torch.tensor(observed), low) - likelihood.nll(torch.tensor(observed), high)
        more = likelihood.nll(torch.tensor(observed + 2), low) - likelihood.nll(torch.tensor(observed + 2), high)
        torch.testing.assert_close(more - ratio, 2 * expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_evidence_is_finite_where_a_mean_vanishes():
    low, high = torch.tensor([[1.0], [50.0], [1e-9]]), torch.tensor([[1e-9], [0.0], [1.0]])
    found = made(NegativeBinomial, 3.0).evidence(low, high)
    assert found.isfinite().all()
    assert (found[:2] < -10).all()
    assert found[2] > 10


def test_locations_and_their_expression():
    decoded = torch.tensor([[-6.0, 1.0], [-7.0, 3.0]])
    counts = made(NegativeBinomial, 2.0, 2)
    location = counts.location(decoded, LIBRARY)
    np.testing.assert_allclose(location, LIBRARY.numpy() * np.exp(np.minimum(decoded.numpy(), 2.0)), rtol=1e-6)
    np.testing.assert_allclose(counts.at_library_size(location, LIBRARY, 1.0), location / LIBRARY, rtol=1e-6)
    assert counts.at_library_size(location, LIBRARY, "latent") is location
    found = counts.expected_expression(location, LIBRARY, step=0.7, lower=-30.0)[:, 0]
    expected = [expected_log1p(float(m), 2.0, float(size)) for m, size in zip(location[:, 0], LIBRARY, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    normal = Normal(2)
    for same in (normal.location(decoded, None), normal.expected_expression(decoded, LIBRARY)):
        assert same is decoded


def test_library_sizes_that_can_be_asked_for():
    for likelihood in (NegativeBinomial(1), Normal(1)):
        likelihood.check_library_size(1)
        for wrong in (0, -1.0, np.inf, np.nan, "own", None):
            with pytest.raises(ValueError, match="positive number or 'latent'"):
                likelihood.check_library_size(wrong)
    NegativeBinomial(1).check_library_size("latent")
    for other in ("latent", 1e4):
        with pytest.raises(ValueError, match="'normal' has none"):
            Normal(1).check_library_size(other)


# -- expectations over draws -------------------------------------------------------------------------------------------
def draws(n, sd):
    """Features of `n` draws of 2 cells, and last layers that take them apart into 3 genes."""
    rng = np.random.default_rng(0)
    features = [tuple(torch.as_tensor(sd * rng.standard_normal((2, 4)), dtype=torch.float32) for _ in "ab")
                for _ in range(n)]  # fmt: skip
    weight = torch.as_tensor(rng.standard_normal((4, 3)) / 2, dtype=torch.float32)
    return features, lambda inputs, hidden: (inputs + hidden) @ weight - 6.0


@torch.no_grad()
@pytest.mark.parametrize("kind", [Normal, SquaredError])
def test_normal_expectation_over_draws_is_the_mean(kind):
    features, read = draws(7, 1.0)
    found = kind(3).expected_over_draws(iter(features), read, None, 0.5)
    np.testing.assert_allclose(found, np.mean([read(*pair).numpy() for pair in features], axis=0) + 0.5, rtol=1e-5)


@torch.no_grad()
def test_counts_are_integrated_at_three_points_of_the_log_rate():
    features, read = draws(400, 0.3)
    likelihood = made(NegativeBinomial, 2.0, 3)
    found = likelihood.expected_over_draws(iter(features), read, LIBRARY, 0.25)
    locations = [likelihood.location(read(*pair) + 0.25, LIBRARY) for pair in features]
    each = torch.stack([likelihood.expected_expression(location, LIBRARY) for location in locations])
    assert each.std(0).min() > 0.1  # there is something to average
    np.testing.assert_allclose(found, each.mean(0), atol=3e-3)
    # of two draws, at m - s and m + s, the points are m and m +- sqrt(3) s
    rate = torch.tensor([[[-6.4]], [[-5.6]]])
    of_two = made(NegativeBinomial, 2.0).expected_over_draws(
        ((r, r) for r in rate), lambda inputs, hidden: inputs.clone(), LIBRARY[:1], 0.0
    )
    at = [expected_log1p(2000 * np.exp(-6.0 + k * np.sqrt(3) * 0.4), 2.0, 2000) for k in (-1, 0, 1)]
    assert of_two.item() == pytest.approx((at[0] + 4 * at[1] + at[2]) / 6, abs=1e-4)


# -- offsets -----------------------------------------------------------------------------------------------------------
@torch.no_grad()
def test_offset_of_a_normal_is_the_difference_of_means():
    location = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    target = torch.tensor([2.5, 0.0], dtype=torch.float64)
    offset = Normal(2).offset(target, target, location, None)
    np.testing.assert_allclose(offset, [0.5, -3.5])
    assert offset.dtype == location.dtype


@torch.no_grad()
@pytest.mark.parametrize("target", [0.02, 0.4, 2.0, 4.5])
def test_offset_of_counts_brings_the_mean_to_the_target(target):
    location = torch.tensor([[0.5, 4.0], [3.0, 90.0]])
    theta = np.array([0.7, 5.0])
    goal = torch.full((2,), target, dtype=torch.float64)
    offset = made(NegativeBinomial, theta, 2).offset(goal, torch.ones(2), location, LIBRARY).double().exp().numpy()
    sizes = LIBRARY.ravel().tolist()
    for gene in range(2):
        means = (location[:, gene].double().numpy() * offset[gene]).tolist()
        reached = [expected_log1p(m, theta[gene], size) for m, size in zip(means, sizes, strict=True)]
        assert np.mean(reached) == pytest.approx(target, abs=1e-3)


@torch.no_grad()
def test_means_of_counts_stay_above_a_thousandth_of_the_controls():
    location, likelihood = torch.tensor([[3.0], [5.0]]), made(NegativeBinomial, 2.0)
    control = torch.tensor([2.0], dtype=torch.float64)
    none, least = (
        likelihood.offset(torch.tensor([goal], dtype=torch.float64), control, location, LIBRARY) for goal in (0.0, 2e-3)
    )
    torch.testing.assert_close(none, least)


# -- cells -------------------------------------------------------------------------------------------------------------
@torch.no_grad()
def test_drawn_cells_follow_the_likelihood():
    theta, mean = 1.5, 3.0
    drawn = made(NegativeBinomial, theta).draw(torch.full((N, 1), mean), torch.Generator().manual_seed(0)).numpy()
    assert chi_square(drawn.ravel(), nb(mean, theta)) > 1e-3
    drawn = made(Normal, 0.5).draw(torch.full((N, 1), mean), torch.Generator().manual_seed(0)).numpy().ravel()
    assert stats.kstest(drawn, stats.norm(mean, 0.5).cdf).pvalue > 1e-3
    location = torch.ones(2, 1)
    assert SquaredError(1).draw(location) is location


def chi_square(counts, expected):
    edges = np.arange(int(expected.ppf(0.999)) + 1)
    observed = np.append([np.sum(counts == k) for k in edges], np.sum(counts > edges[-1]))
    probability = np.append(expected.pmf(edges), expected.sf(edges[-1]))
    return stats.chisquare(observed, N * probability).pvalue


@pytest.mark.parametrize("after", [0.3, 2.0, 9.0])
@torch.no_grad()
def test_carried_counts_follow_the_negative_binomial_of_the_new_mean(after):
    theta, before = 1.5, 2.0
    x = nb(before, theta).rvs(size=(N, 1), random_state=0)
    generator = torch.Generator().manual_seed(0)
    at = [torch.full((N, 1), mean) for mean in (before, after)]
    y = made(NegativeBinomial, theta).carry(torch.as_tensor(x, dtype=torch.float32), *at, generator).numpy().ravel()
    assert chi_square(y, nb(after, theta)) > 1e-3
    # Only as many molecules move as the means are apart.
    assert (y >= x.ravel()).all() if after >= before else (y <= x.ravel()).all()
    if after == before:
        np.testing.assert_array_equal(y, x.ravel())


@torch.no_grad()
def test_carried_values_keep_their_distance_to_the_location():
    x, before, after = (torch.tensor([[value]]) for value in (1.25, 1.0, 3.0))
    assert made(Normal, 0.5).carry(x, before, after).item() == pytest.approx(3.25)
    # The squared error has no noise.
    assert SquaredError(1).carry(x, before, after).item() == pytest.approx(3.0)


def test_cells_become_matrices():
    parts = [torch.tensor([[0.0, 3.0]]), torch.tensor([[1.0, 0.0]])]
    likelihood = NegativeBinomial(2)
    X, layers = likelihood.matrices([likelihood.pack(part) for part in parts], LIBRARY.numpy().ravel())
    np.testing.assert_allclose(X.toarray(), np.log1p([[0, 15.0], [2.0, 0]]), rtol=1e-6)
    np.testing.assert_array_equal(layers["counts"].toarray(), [[0, 3], [1, 0]])
    assert X.dtype == np.float32
    np.testing.assert_allclose(
        likelihood.to_expression(torch.cat(parts), LIBRARY).numpy(), np.log1p([[0, 15.0], [2.0, 0]]), rtol=1e-6
    )
    X, layers = Normal(2).matrices([Normal(2).pack(part) for part in parts], None)
    np.testing.assert_array_equal(X, [[0, 3], [1, 0]])
    assert layers == {}


# -- which one ---------------------------------------------------------------------------------------------------------
def test_starting_values():
    statistics = ControlStatistics(
        mean=np.array([0.5, 1.0]), spread=np.array([0.2, 0.4]), observed_mean=np.array([2.0, 0.0]),
        observed_variance=np.array([6.25, 0.0]), n_cells=5, total=1e3,
    )  # fmt: skip
    base, log_scale = NegativeBinomial(2).starting_values(statistics)
    np.testing.assert_allclose(np.exp(base), [10.1 / 1e3, 0.1 / 1e3])
    np.testing.assert_allclose(np.exp(log_scale), [4 / 3, 0.2])  # mean^2 / (variance - mean), and the bound
    base, log_scale = Normal(2).starting_values(statistics)
    np.testing.assert_array_equal(base, statistics.mean)
    np.testing.assert_allclose(np.exp(log_scale), statistics.spread)
    assert SquaredError(2).starting_values(statistics) == (pytest.approx(statistics.mean), None)


def test_the_likelihood_fits_the_data():
    assert [likelihood_for(None, counts=counts) for counts in (True, False)] == ["nb", "normal"]
    assert likelihood_for("normal", counts=True) == "normal"
    with pytest.raises(ValueError, match="'nb' needs counts"):
        likelihood_for("nb", counts=False)
    kinds = {("nb", True): NegativeBinomial, ("normal", True): Normal, ("normal", False): SquaredError}
    for (name, learn_scale), kind in kinds.items():
        likelihood = make_likelihood(name, 3, learn_scale=learn_scale)
        assert type(likelihood) is kind
        assert likelihood.name == name
        assert likelihood.log_scale.requires_grad is learn_scale
    assert not make_likelihood("nb", 3, learn_scale=False).log_scale.requires_grad
