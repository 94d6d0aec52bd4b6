"""Screens drawn from the effect model, and the whole model of a gene in numpy: all latents with their loadings."""

import copy
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from raptorgraph.inference import EffectPosterior, EffectPosteriorConfig

K, G, N_CELLS, N_CONTROLS = 8, 400, 50, 300
BOTH = 1 / N_CELLS + 1 / N_CONTROLS
GRAPH = np.zeros((K, K))
GRAPH[0, 1], GRAPH[1, 2], GRAPH[4, 2] = 0.8, -0.6, 0.5
LEVELS = 4.0 ** np.arange(-4, 7)


class Screen(NamedTuple):
    """Sets, the measured effects of all, their variance, the truth, how many are to be measured, and a posterior."""

    design: np.ndarray
    measured: np.ndarray
    variance: np.ndarray
    true: np.ndarray
    n: int
    posterior: EffectPosterior | None = None


def _draw_screen(rng, *, scale=0.7, n_pairs=14, interaction=0.02):
    """All singles, `n_pairs` pairs, then the pairs that are not to be measured."""
    pairs = np.zeros((K * (K - 1) // 2, K))
    for row, pair in zip(pairs, combinations(range(K), 2), strict=True):
        row[list(pair)] = 1
    design = np.vstack([np.eye(K), rng.permutation(pairs)])
    loadings = rng.normal(size=(K, 2))
    gene = np.exp(rng.normal(size=G))  # how much a gene responds
    latent = (loadings @ rng.normal(size=(2, G)) + 0.7 * rng.normal(size=(K, G))) * np.sqrt(gene)
    noise = 4 * np.exp(0.5 * rng.normal(size=G))
    combined = (design.sum(1) > 1)[:, None]
    true = np.where(combined, scale, 1.0) * (design @ latent)
    true += combined * np.sqrt(interaction * gene) * rng.normal(size=true.shape)
    variance = np.tile(noise * BOTH, (len(true), 1))
    control = np.sqrt(noise / N_CONTROLS) * rng.normal(size=G)
    measured = true + np.sqrt(noise / N_CELLS) * rng.normal(size=true.shape) - control
    return Screen(design, measured, variance, true, K + n_pairs)


def _fit(design, measured, variance, n_cells=None, config=None, *, sparse=False, **kwargs):
    n_cells = np.full(len(design), N_CELLS) if n_cells is None else n_cells
    # What is checked here is the normal model; sparse interactions have a test of their own.
    config = replace(config or EffectPosteriorConfig(), sparse_interactions=sparse)
    posterior = EffectPosterior(config)
    kwargs = {name: value if isinstance(value, int) else torch.as_tensor(value) for name, value in kwargs.items()}
    posterior.fit(*(torch.as_tensor(x) for x in (design, measured, variance, n_cells)), N_CONTROLS, **kwargs)
    return posterior


class WholeModel:
    """The generative model of one gene, conditioned by brute force.

    Every quantity of the equations is one latent of known prior variance: the effects t, what combinations have in
    common, the interaction and the residual of each set, the effects on targets, the errors of conditions and
    controls. Measured and asked effects are linear in them.
    """

    def __init__(self, posterior, g, fraction=1.0, graph=GRAPH, additivity=None):
        fitted, self.additivity = posterior.fitted, additivity
        self.posterior, self.graph = posterior, graph
        self.measured = {name: value.numpy() for name, value in vars(fitted.measured).items()}
        self.prior = {name: value.numpy() for name, value in vars(fitted.hyperparameters).items()}
        self.responsibility = fitted.responsibility[:, :, g].numpy()
        # over the typical variance, of which the errors of the controls of batches have a share
        share = (self.measured["control_loadings"] ** 2).sum(1).mean()
        self.controls = 1 / N_CONTROLS / BOTH * (1 - share)
        self.g, self.fraction, self.w = g, fraction, self.measured["gene_noise"][g]
        total = np.linalg.inv(np.eye(len(graph)) - graph)
        along = total @ total.T
        self.covariances = self.prior["shared_covariance"], along / np.trace(along) * len(graph)
        self.targets = np.flatnonzero(self.measured["target_columns"] == g)
        self.own_scales = True  # of the measured combinations
        self.own = None  # position of a condition, and variances of its interaction and its noise

    def given_own(self, row):
        """The model in which this set, if it is a measured combination, has the variances of its own."""
        found, own = copy.copy(self), self.posterior.additivity.own
        at = [i for i, c in enumerate(own.rows) if (self.measured["design"][c] == row).all()]
        if at:
            found.own = int(own.rows[at[0]]), float(own.interaction[at[0]]), float(own.excess[at[0]])
        return found

    def of_sets(self, design, **asked):
        """Means, variances and variances within classes and levels of sets, each with the variances of its own."""
        found = []
        for row in design:
            model = self.given_own(row)
            mean, *covariances = model.moments(lambda klass, m=model, row=row: m.asked(row[None], klass, **asked))
            found.append((mean[0], *(x[0, 0] for x in covariances)))
        return np.array(found).T

    def _loadings(self, row, key, klass, with_interaction=True):
        """Loadings of a set on the latents; `key` names the set, for what is of this set alone."""
        k, combination = len(row), row.sum() > 1
        found = {("target", i): row[i] for i in self.targets} | {("controls",): -1.0}
        if klass == 2:
            return found | {("specific", key): 1.0}
        found |= {("t", i): self.scale(row) * row[i] for i in range(k)}
        if combination:
            found[("common",)] = 1.0
            if with_interaction:
                found[("interaction", key)] = 1.0
        return found

    def scale(self, row):
        """Scale of the effects of single genes in a set, that of what was not measured by the likeness of its genes."""
        if row.sum() < 2:
            return 1.0
        measured = np.flatnonzero((self.measured["design"] == row).all(1))
        if len(measured) and self.own_scales:
            return float(self.prior["scale_by_condition"][measured[0]])
        scale = self.prior["unseen_scale"] if row @ self.prior["unseen"] > 0 else self.prior["scale"]
        return float(scale) * (1.0 if self.additivity is None else self._factor(row))

    def _factor(self, row):
        return float(self.additivity.factor(torch.as_tensor(row)[None])[0])

    def _variance(self, one, other, klass, level):
        kind = one[0]
        if kind == other[0] == "t":
            return level * self.covariances[klass][one[1], other[1]]
        if one != other:
            return 0.0
        by_kind = {
            "common": level * self.prior["combination_variance"],
            "interaction": level * self._interaction(one[1]) if kind == "interaction" else 0.0,
            "residual": level * self.prior["residual_variance"],
            "specific": level,
            "target": 64.0,
            "controls": self.controls,
            "batch": 1.0,
            "between": self.prior["excess"] * np.median(self.measured["condition_noise"]),
        }
        if kind == "error":
            own = self.own is not None and self.own[0] == one[1]
            excess = self.own[2] if own else self.prior["excess_by_condition"][one[1]]
            return self.fraction * (1 + excess) * self.measured["condition_noise"][one[1]]
        return by_kind[kind]

    def _interaction(self, key):
        if self.own is not None and tuple(self.measured["design"][self.own[0]]) == key:
            return self.own[1]
        return self.prior["interaction_variance"]

    def component(self, klass, level, rows):
        """Mean and covariance of the loadings `rows` given the measured effects, in one class and level."""
        measured = []
        for c, row in enumerate(self.measured["design"]):
            loadings = self._loadings(row, tuple(row), klass) | {("error", c): 1.0}
            loadings |= {("batch", j): load for j, load in enumerate(self.measured["control_loadings"][c])}
            measured.append(loadings | ({} if klass == 2 else {("residual", "measured", c): 1.0}))
        everything = [*measured, *rows]
        latents = list(dict.fromkeys(name for loadings in everything for name in loadings))
        matrix = np.array([[loadings.get(name, 0.0) for name in latents] for loadings in everything])
        variance = np.array([[self._variance(a, b, klass, level) for b in latents] for a in latents])
        joint, n = matrix @ variance @ matrix.T, len(measured)
        y = self.measured["effect"][:, self.g]
        self.gain = gain = joint[n:, :n] @ np.linalg.inv(joint[:n, :n])
        _, log_det = np.linalg.slogdet(2 * np.pi * self.w * joint[:n, :n])
        density = -0.5 * (y @ np.linalg.solve(self.w * joint[:n, :n], y) + log_det)
        return gain @ y, self.w * (joint[n:, n:] - gain @ joint[:n, n:]), density

    def asked(self, design, klass, *, residual, between=False):
        """Sets of the design; with what another condition of each gene leaves in all sets that hold the gene."""
        rows = [self._loadings(row, tuple(row), klass) for row in design]
        for row, loadings in zip(design, rows, strict=True):
            for i in np.flatnonzero(row):
                if residual and klass < 2:
                    loadings[("residual", "other", i)] = loadings[("t", i)]
                if between:
                    loadings[("between", i)] = self.scale(row)
        return rows

    def scale_variance(self, asked, additivity):
        """Variance of the asked sets from the scale of combinations, each of which is off by xi of what is expected.

        xi = alpha + beta x + delta is the same for a set that is measured and asked for.
        """
        usual, single = WholeModel(self.posterior, self.g, graph=self.graph), additivity.single_effects[:, self.g]
        sets = list(dict.fromkeys(tuple(row) for row in (*self.measured["design"], *asked) if sum(row) > 1))
        design = np.array(sets)
        expected = {key: usual.scale(np.array(key)) * float(np.array(key) @ single.numpy()) for key in sets}
        coefficients, spread = (x.numpy() for x in additivity.moments())
        x = np.stack([np.ones(len(sets)), additivity.deviation(torch.as_tensor(design)).numpy()], 1)
        covariance = x @ coefficients @ x.T + np.diag(spread * (design.sum(1) - 1))
        total = 0.0
        for klass, level in np.ndindex(2, len(LEVELS)):
            r = self.responsibility[klass, level]
            if r > 1e-9:
                self.component(klass, LEVELS[level], self.asked(asked, klass, residual=False))
                load = np.array([[(tuple(row) == key) * expected[key] for key in sets] for row in asked])
                for c, row in enumerate(self.measured["design"]):
                    if row.sum() > 1:
                        load[:, sets.index(tuple(row))] -= self.gain[:, c] * expected[tuple(row)]
                total = total + r * np.einsum("as,st,at->a", load, covariance, load)
        return total

    def of_size(self, design, klass):
        """Mean loadings over all sets as large as each, of what is not of one set alone."""
        k, found = design.shape[1], []
        for row in design:
            sets = [np.isin(np.arange(k), one).astype(float) for one in combinations(range(k), int(row.sum()))]
            usual = WholeModel(self.posterior, self.g, graph=self.graph)
            usual.own_scales = False
            each = [usual._loadings(one, None, klass, with_interaction=False) for one in sets]
            names = [name for name in dict.fromkeys(name for one in each for name in one) if name[0] != "specific"]
            found.append({name: float(np.mean([one.get(name, 0.0) for one in each])) for name in names})
        return found

    def moments(self, rows_of):
        """Mean and covariance over classes and levels of the loadings that `rows_of` a class gives."""
        mean = second = within = 0.0
        for klass, level in np.ndindex(self.responsibility.shape):
            r = self.responsibility[klass, level]
            if r > 1e-9:
                value, covariance, _ = self.component(klass, LEVELS[level], rows_of(klass))
                mean, within = mean + r * value, within + r * covariance
                second = second + r * (np.outer(value, value) + covariance)
        return mean, second - np.outer(mean, mean), within


def _predict(posterior, design, genes, graph=GRAPH):
    """The constrained estimate of the sets in `design`, by the whole model of all genes."""
    found = []
    for g in genes:
        exact, half = (WholeModel(posterior, g, part, graph, posterior.additivity) for part in (1.0, 0.5))
        within = exact.of_sets(design, residual=False)[2]
        mean = half.of_sets(design, residual=False)[0]
        center = half.moments(lambda klass, model=half: model.of_size(design, klass))[0]
        # What is specific to a condition belongs to no gene: in that class only the controls' error is left.
        found.append((mean, center, within))
    mean, center, variance = (np.array(x).T for x in zip(*found, strict=True))
    deviation = mean - center
    factor = np.sqrt(1 + variance.sum(1) / (deviation**2).sum(1))
    wide = center + np.minimum(factor, 2.0)[:, None] * deviation
    return wide * (np.linalg.norm(mean, axis=1) / np.linalg.norm(wide, axis=1))[:, None]


@pytest.fixture(scope="session")
def graph():
    return GRAPH


@pytest.fixture(scope="session")
def draw_screen():
    return _draw_screen


@pytest.fixture(scope="session")
def fit():
    return _fit


@pytest.fixture(scope="session")
def whole_model():
    return WholeModel


@pytest.fixture(scope="session")
def predict_by_hand():
    return _predict


@pytest.fixture(scope="session")
def example():
    """A screen with two targets, one of them knocked down with all of its combinations, and its posterior."""
    screen = _draw_screen(np.random.default_rng(0))
    targets = np.array([5, -1, -1, 9, *[-1] * (K - 4)])
    screen.measured[screen.design[:, 0] == 1, 5] -= 3.0
    parts = (x[: screen.n] for x in (screen.design, screen.measured, screen.variance))
    return screen._replace(posterior=_fit(*parts, targets=targets, graph=GRAPH))


@pytest.fixture(scope="session")
def tiny():
    """Three singles and a pair on 12 genes, one of which is a target, in few steps."""
    rng = np.random.default_rng(3)
    design = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], dtype=float)
    measured = design @ rng.normal(size=(3, 12)) + 0.3 * rng.normal(size=(4, 12))
    variance = np.full(measured.shape, 0.05)
    posterior = _fit(design, measured, variance, targets=np.array([-1, 4, -1]), n_steps=20)
    return SimpleNamespace(design=design, measured=measured, posterior=posterior, graph=np.zeros((3, 3)))
