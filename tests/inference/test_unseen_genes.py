"""Genes that nobody perturbed: the posterior of all genes by brute force, tables, and what embeddings are worth."""

from itertools import combinations

import numpy as np
import pytest
import torch

from raptorgraph.inference import EffectPosterior, EffectPosteriorConfig

G, N_CELLS, N_CONTROLS = 150, 60, 400
BOTH = 1 / N_CELLS + 1 / N_CONTROLS


def draw(seed, k=24, n_groups=4):
    """Single effects of genes in groups that act alike, an embedding that knows the groups, and measurements."""
    rng = np.random.default_rng(seed)
    group = np.arange(k) % n_groups
    effect = 1.5 * rng.normal(size=(n_groups, G))[group] + 0.5 * rng.normal(size=(k, G))
    embedding = rng.normal(size=(n_groups, 3))[group] + 0.1 * rng.normal(size=(k, 3))
    measured = effect + 2.0 * (rng.normal(size=(k, G)) / N_CELLS**0.5 - rng.normal(size=G) / N_CONTROLS**0.5)
    return tuple(torch.as_tensor(x) for x in (effect, embedding, measured))


def fit(design, measured, config=None, **kwargs):
    posterior = EffectPosterior(config)
    n = torch.full((len(design),), float(N_CELLS))
    posterior.fit(design, measured, torch.full_like(measured, 4 * BOTH), n, N_CONTROLS, **kwargs)
    return posterior


@pytest.fixture(scope="module")
def example():
    effect, embedding, measured = draw(0)
    return effect, embedding, measured, fit(torch.eye(20), measured[:20], n_steps=40, embedding=embedding[:20])


def test_what_is_said_of_perturbed_genes_does_not_depend_on_it(example):
    _, embedding, measured, posterior = example
    plain = fit(torch.eye(20), measured[:20], n_steps=40)
    asked = torch.eye(20)[:3].clone()
    asked[2, 5] = 1
    for one, other in zip(plain.mean_and_sd(asked), posterior.mean_and_sd(asked), strict=True):
        assert torch.equal(one, other)
    more = posterior.with_genes(embedding[20:])
    wide = torch.cat([asked, torch.zeros(3, 4)], 1)
    exact = plain.posterior_mean(asked)
    torch.testing.assert_close(more.posterior_mean(wide), exact, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(more.mean_and_sd(wide)[1][:2], plain.mean_and_sd(asked)[1][:2], rtol=0.05, atol=0)


def test_other_genes_are_a_regression_on_the_posterior_of_the_perturbed_ones(example):
    """Within a class and level, mean and variance are those of A t + r; averaged over these by hand."""
    _, embedding, _, posterior = example
    fitted = posterior.fitted
    coefficients, left = (x.numpy() for x in fitted.kernel.regression(embedding[20:], torch.ones(20, dtype=torch.bool)))
    measured, prior = fitted.measured, fitted.hyperparameters
    noise = np.diag(((1 + prior.excess_by_condition) * measured.condition_noise).numpy()) + float(
        measured.control_noise
    )
    control = float(measured.control_noise)
    mean, square, variance = np.zeros((3, 4, G))
    for m, K in enumerate((prior.shared_covariance.numpy(), prior.independent_covariance.numpy())):
        for j, level in enumerate(4.0 ** np.arange(-4, 7)):
            r = fitted.responsibility[m, j].numpy()
            total = level * (K + float(prior.residual_variance) * np.eye(20)) + noise
            cross = level * coefficients @ K + control
            value = cross @ np.linalg.solve(total, measured.effect.numpy())
            own = level * (np.diag(coefficients @ K @ coefficients.T + left) + float(prior.residual_variance)) + control
            part = own - np.einsum("uc,cu->u", cross, np.linalg.solve(total, cross.T))
            mean, square = mean + r * value, square + r * value**2
            variance += np.outer(part, r * measured.gene_noise.numpy())
    r = fitted.responsibility[2].numpy()  # condition-specific: nothing is known
    levels = 4.0 ** np.arange(-4, 7)
    total = levels[:, None, None] * np.eye(20) + noise
    for j, level in enumerate(levels):
        value = np.full((4, 20), control) @ np.linalg.solve(total[j], measured.effect.numpy())
        mean, square = mean + r[j] * value, square + r[j] * value**2
        known = control**2 * np.linalg.inv(total[j]).sum()
        variance += np.outer(np.full(4, level + control - known), r[j] * measured.gene_noise.numpy())
    between = float(prior.excess * measured.condition_noise.median()) * measured.gene_noise.numpy()
    asked = torch.cat([torch.zeros(4, 20), torch.eye(4)], 1)
    found, sd = (x.numpy() for x in posterior.with_genes(embedding[20:]).mean_and_sd(asked))
    np.testing.assert_allclose(found, mean, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(sd, np.sqrt(variance + square - mean**2 + between), rtol=1e-6)


def test_they_are_predicted_with_wide_intervals_that_hold():
    error, held = {"true": [], "shuffled": []}, []
    for seed in range(3):
        effect, embedding, measured = draw(seed)
        base = ((measured[:20].mean(0) - effect[20:]) ** 2).sum()
        shuffled = embedding[torch.as_tensor(np.random.default_rng(seed).permutation(24))]
        for name, rows in (("true", embedding), ("shuffled", shuffled)):
            posterior = fit(torch.eye(20), measured[:20], n_steps=60, embedding=rows[:20])
            mean, sd = posterior.with_genes(rows[20:]).mean_and_sd(torch.eye(24))
            error[name].append(float(((mean[20:] - effect[20:]) ** 2).sum() / base))
            assert sd[20:].mean(1).min() > sd[:20].mean(1).max()
            if name == "true":
                held.append(float(((mean[20:] - effect[20:]).abs() < 1.645 * sd[20:]).double().mean()))
    assert max(error["true"]) < 0.4
    assert max(error["shuffled"]) < 1.05
    assert 0.83 < np.mean(held) < 0.98


def test_strong_genes_that_are_in_pairs_alone_say_nothing_of_others():
    """Pairs of four strong genes, chosen for that, beside sixteen genes that have nothing in common."""
    rng = np.random.default_rng(0)
    effect = 0.3 * rng.normal(size=(24, G))
    effect[:4] += 3.0 * np.sign(rng.normal(size=G))
    pairs = torch.zeros(6, 24)
    for row, genes in enumerate(combinations(range(4), 2)):
        pairs[row, list(genes)] = 1
    design = torch.cat([torch.eye(24)[4:20], pairs])
    measured = design.numpy() @ effect + 2.0 * rng.normal(size=(22, G)) / N_CELLS**0.5
    embedding = torch.as_tensor(rng.normal(size=(24, 3)))
    posterior = fit(design[:, :20], torch.as_tensor(measured), n_steps=40, embedding=embedding[:20])
    mean = posterior.with_genes(embedding[20:]).posterior_mean(torch.eye(24)[20:])
    assert float(mean.norm(dim=1).max()) < 0.5 * float(np.linalg.norm(effect[20:], axis=1).min())


def test_pairs_and_draws_with_such_a_gene(example):
    _, embedding, _, posterior = example
    more = posterior.with_genes(embedding[20:])
    asked = torch.zeros(3, 24)
    asked[0, 0] = asked[1, 20] = 1
    asked[2, [0, 20]] = 1
    mean, sd = more.mean_and_sd(asked)
    draws = more.draw(asked, 400, 0)
    spread = draws.std(0).mean(1)
    assert float((draws.mean(0) - mean).abs().mean()) < 0.15 * float(sd[1].mean())
    assert spread[1] > 1.5 * spread[0]
    both = torch.corrcoef(torch.stack([mean[2], mean[0] + mean[1]]))[0, 1]
    assert both > 0.9
    # What is drawn of the others is what is drawn without it.
    alone = posterior.draw(asked[:1, :20], 400, 0)
    torch.testing.assert_close(draws[:, :1], alone, rtol=1e-4, atol=1e-4)
    pair = torch.zeros(1, 24)
    pair[0, [0, 1]] = 1
    expected = posterior.posterior_mean(pair[:, :20])
    torch.testing.assert_close(more.posterior_mean(pair), expected, rtol=1e-8, atol=1e-8)


def test_it_survives_saving(example):
    _, embedding, _, posterior = example
    loaded = EffectPosterior()
    loaded.load_state_dict(posterior.state_dict())
    asked = torch.cat([torch.zeros(4, 20), torch.eye(4)], 1)
    expected = posterior.with_genes(embedding[20:]).mean(asked)
    assert torch.equal(loaded.with_genes(embedding[20:]).mean(asked), expected)
    assert loaded.embedding_share == posterior.embedding_share > 0.2


def test_a_table_of_many_conditions_is_one_gaussian_process():
    """With levels and noise by hand."""
    effect, embedding, measured = draw(1, k=60)
    posterior = fit(torch.eye(50), measured[:50], embedding=embedding[:50], n_fit_conditions=40)
    fitted = posterior.fitted
    mean, sd = posterior.with_genes(embedding[50:]).mean_and_sd(torch.cat([torch.zeros(10, 50), torch.eye(10)], 1))
    noise = np.diag(fitted.measured.condition_noise.numpy()) + float(fitted.measured.control_noise)
    K, cross = (fitted.kernel.between(rows, embedding[:50]).numpy() for rows in (embedding[:50], embedding[50:]))
    np.fill_diagonal(K, 1.0)
    expected = np.zeros((10, G))
    for level, r in zip(4.0 ** np.arange(-4, 7), fitted.responsibility[0].numpy(), strict=True):
        total = level * K + noise
        covariance = level * cross + float(fitted.measured.control_noise)
        expected += r * (covariance @ np.linalg.solve(total, measured[:50].numpy()))
    np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-8)
    assert 0.8 < float(((mean - effect[50:]).abs() < 1.645 * sd).double().mean()) < 0.98
    draws = posterior.draw(torch.eye(50)[:2], 300, 0)
    exact, spread = posterior.mean_and_sd(torch.eye(50)[:2])
    assert float((draws.mean(0) - exact).abs().mean()) < 0.2 * float(spread.mean())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"embedding": torch.ones(3, 2)}, "20 genes were perturbed"),
        ({"embedding": torch.full((20, 2), torch.nan)}, "0 were perturbed alone"),
        ({"n_fit_conditions": 10}, "needs an embedding"),
    ],
)
def test_bad_embeddings(example, change, match):
    with pytest.raises(ValueError, match=match):
        fit(torch.eye(20), example[2][:20], n_steps=1, **change)


def test_bad_rows(example):
    _, embedding, measured, posterior = example
    with pytest.raises(ValueError, match="without an embedding"):
        fit(torch.eye(20), measured[:20], EffectPosteriorConfig(), n_steps=1).with_genes(embedding[20:])
    with pytest.raises(ValueError, match="3 features"):
        posterior.with_genes(embedding[20:, :2])
    with pytest.raises(ValueError, match=r"Rows \[1\]"):
        posterior.with_genes(torch.tensor([[1.0, 0, 0], [0, 0, 0]]))
