import numpy as np
import pandas as pd
import pytest

from raptorgraph.baselines import LinearEmbedding

EXACT = {"rtol": 0, "atol": 1e-4}  # cells are float32


def measured_targets(effects, n_measured=6):
    """A screen with four combinations, in which the first targets are among the genes; and its effects by label."""
    labels = effects.doubles[:4]
    combined = dict(zip(labels, 0.8 * effects.sums(labels), strict=True))
    adata = effects.screen(combined)
    names = list(adata.var_names)
    names[:n_measured] = effects.genes[:n_measured]
    adata.var_names = names
    return adata, pd.DataFrame({"control": np.zeros(adata.n_vars), **effects.singles, **combined}, index=names)


@pytest.mark.parametrize(("rank", "ridge"), [(3, 0.1), (10, 0.5), (100, 2.0)])
def test_the_published_equations(effects, rank, ridge):
    """By eigenvectors of the covariance of conditions, and one least squares problem for all weights at once."""
    adata, Y = measured_targets(effects)
    X = effects.base[:, None] + Y.to_numpy()
    X = X - X.mean(axis=0)
    _, vectors = np.linalg.eigh(X.T @ X)
    G = pd.DataFrame(X @ vectors[:, ::-1][:, :rank], index=Y.index)
    sets = [[] if label == "control" else label.split("+") for label in Y]
    P = np.array([G.reindex(genes).fillna(0.0).sum(axis=0).to_numpy() for genes in sets])
    b = Y.mean(axis=1)
    r = G.shape[1]
    left, right = G.T.to_numpy() @ G.to_numpy() + ridge * np.eye(r), P.T @ P + ridge * np.eye(r)
    goal = G.T.to_numpy() @ Y.sub(b, axis=0).to_numpy() @ P
    W = np.linalg.solve(np.kron(left, right), goal.ravel()).reshape(r, r)

    asked = ["P0", "P7", "P0+P1", "P2+P5+P7"]
    new = np.array([G.reindex(label.split("+")).fillna(0.0).sum(axis=0) for label in asked])
    expected = (G.to_numpy() @ W @ new.T).T + b.to_numpy()
    found = LinearEmbedding(rank=rank, ridge=ridge).fit(adata).predict_effects(asked)
    np.testing.assert_allclose(found, expected, **EXACT)
    assert np.ptp(expected - b.to_numpy()) > 0.01


def test_a_target_that_is_not_measured_has_the_mean_effect(effects):
    adata, Y = measured_targets(effects)
    found = LinearEmbedding().fit(adata).predict_effects(["P6", "P6+P7", "P0", "P0+P6", "control"])
    mean = Y.mean(axis=1)
    np.testing.assert_allclose(found.loc[["P6", "P6+P7"]], [mean, mean], **EXACT)
    np.testing.assert_allclose(found.loc["P0+P6"], found.loc["P0"], atol=1e-12)
    assert np.abs(found.loc["P0"] - mean).max() > 0.01
    assert (found.loc["control"] == 0).all()


def test_with_a_large_penalty_nothing_but_the_mean_is_left(effects):
    adata, Y = measured_targets(effects)
    found = LinearEmbedding(ridge=1e9).fit(adata).predict_effects(["P0", "P1+P2"])
    np.testing.assert_allclose(found, [Y.mean(axis=1)] * 2, **EXACT)


def test_wrong_parameters():
    with pytest.raises(ValueError, match="rank=0"):
        LinearEmbedding(rank=0)
    with pytest.raises(ValueError, match="ridge=0"):
        LinearEmbedding(ridge=0)
