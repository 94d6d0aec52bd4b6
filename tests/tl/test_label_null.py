"""Tests of effects and of changes of gene sets against control cells."""

import numpy as np
import pytest
from scipy import linalg

from raptorgraph.screen._moments import effect_moments
from raptorgraph.screen._noise import (
    ControlNoise,
    cell_classes,
    control_noise,
    effect_statistics,
    measured_latents,
    measured_on_halves,
    stands_out,
    tail_probability,
)
from raptorgraph.tl._label_null import label_null, set_changes
from raptorgraph.tl._set_scores import Ranking


def test_set_changes():
    effects = np.arange(12.0).reshape(2, 6)
    members, weights = {"s": np.array([0, 2])}, {"s": np.ones(2)}
    ranking = Ranking(effects[0], np.arange(5), np.arange(6), members, weights)
    np.testing.assert_allclose(set_changes(effects, ranking)[:, 0], [1 - 8 / 3, 7 - 26 / 3])
    signed = Ranking(effects[0], np.arange(5), np.arange(6), members, {"s": np.array([1.0, -3.0])})
    np.testing.assert_allclose(set_changes(effects, signed)[0, 0], (0 - 3 * 2) / 4 - 8 / 3 * (-2 / 4))
    moved = Ranking(effects[0], np.arange(5), np.array([3, 4, 0, 1, 2, 5]), members, weights)
    np.testing.assert_allclose(set_changes(effects, moved)[0, 0], 1.5 - 7 / 3)


def test_effects_stand_out_where_there_are_some(known_screen):
    model = known_screen.model
    p = label_null(model, [], n_null=400, seed=0).p_effect
    clear = dict(zip(model.perturbed_genes, stands_out(p), strict=True))
    assert not any(clear[gene] for gene in known_screen.null)
    assert all(found for gene, found in clear.items() if gene not in known_screen.null)


def test_level_of_the_test_of_an_effect(counted_cells):
    X, library = counted_cells(n_cells=800, n_genes=60)
    rng, p = np.random.default_rng(1), []
    for _ in range(10):
        codes = np.zeros(800, dtype=int)
        codes[rng.permutation(800)[:400]] = np.repeat(np.arange(1, 11), 40)
        moments = effect_moments(X, codes, 11, library=library, shrinkage=399)
        noise = ControlNoise(X[codes == 0], library[codes == 0])
        effects, variance = noise.draw(32, 300, rng)
        null = effect_statistics(effects, variance, noise.seen)
        found = (effect_statistics(moments.effect[[i]], moments.variance[i], noise.seen)[0] for i in range(1, 11))
        p += [tail_probability(statistic, null) for statistic in found]
    share = (np.array(p) < 0.05).mean(axis=0)
    assert (share < 0.11).all()
    assert (share > 0.005).all()


def test_effects_stand_out_by_their_false_discovery_rate():
    # rates of Benjamini and Hochberg: 0.03, 0.045, 0.06
    assert list(stands_out(np.array([0.01, 0.03, np.nan, 0.06]))) == [True, True, False, False]


def test_p_values_by_hand(known_screen):
    model, screen = known_screen.model, known_screen.model.screen
    genes, places = np.arange(12, 250), np.arange(250)
    members = {"s": np.arange(40, 60)}
    rankings = [Ranking(np.zeros(250), genes, places, members, {"s": np.ones(20)}) for _ in model.perturbed_genes]
    found = label_null(model, rankings, n_null=100, seed=3)
    measured, noise = measured_latents(screen), control_noise(screen)
    inside = np.isin(genes, members["s"])
    for i in (0, 8):
        n = int(cell_classes(measured.n_cells)[i])
        effects, variance = noise.draw(n, 100, np.random.default_rng([3, n]))
        scale = np.sqrt(np.median(measured.variance[i] / variance))
        change, *drawn = (e[genes][inside].mean() - e[genes][~inside].mean() for e in (measured.effect[i], *effects))
        assert found.change[i, 0] == pytest.approx(change)
        beyond = [
            tail_probability(np.array([sign * change]), sign * scale * np.array(drawn)[:, None]) for sign in (1, -1)
        ]
        assert found.p_change[i, 0] == pytest.approx(min(1.0, 2 * np.min(beyond)))
        seen = noise.seen.copy()
        seen[i] = False  # the perturbed genes come first
        z = measured.effect[i, seen] ** 2 / measured.variance[i, seen]
        statistics = effect_statistics(effects, variance, noise.seen)
        p = [(1 + (statistics[:, k] >= z_).sum()) / 101 for k, z_ in enumerate((z.mean(), np.sort(z)[-10:].mean()))]
        assert found.p_effect[i] == pytest.approx(2 * min(p)) if min(p) > 1 / 101 else found.p_effect[i] <= 2 / 101


def test_measured_latents_are_those_of_the_model(known_screen):
    model = known_screen.model
    measured = measured_latents(model.screen)
    effects = model.measured_effects()
    np.testing.assert_allclose(measured.effect, effects.loc[model.perturbed_genes])
    cells = known_screen.adata.obs["perturbation"].value_counts()
    np.testing.assert_allclose(measured.n_cells, cells[model.perturbed_genes])
    assert measured.shared[0, 1] == pytest.approx(1 / cells["control"], rel=0.1)


def test_halves_of_the_controls_are_balanced(known_screen, monkeypatch):
    screen, parts = known_screen.model.screen, []
    add_up = type(screen).sums
    monkeypatch.setattr(type(screen), "sums", lambda self, part: parts.append(part) or add_up(self, part=part))
    pairs = measured_on_halves(screen, np.random.default_rng(0))
    assert len(pairs) == 7
    (part,) = parts  # read once
    is_control = screen.codes == 0
    assert (part[~is_control] == 0).all()
    for batch in np.unique(screen.batch):
        sizes = np.bincount(part[is_control & (screen.batch == batch)], minlength=9)[1:]
        assert sizes.min() > 0
        assert np.ptp(sizes) <= 1
    # effects against the mean over the controls of a half, by batch
    expression = screen.expression.toarray().astype(float)
    label, together = "P03", np.zeros((8, 8))
    cells = screen.rows(label)
    for signs, pair in zip(linalg.hadamard(8)[1:], pairs, strict=True):
        for half, sign in zip(pair, (1, -1), strict=True):
            chosen = 1 + np.flatnonzero(signs == sign)
            together[np.ix_(chosen - 1, chosen - 1)] += 1
            effect = np.zeros(expression.shape[1])
            for batch in np.unique(screen.batch):
                own = cells[screen.batch[cells] == batch]
                controls = np.isin(part, chosen) & (screen.batch == batch)
                effect += len(own) / len(cells) * (expression[own].mean(0) - expression[controls].mean(0))
            np.testing.assert_allclose(half.effect[2], effect, atol=1e-6)
    assert set(together[np.triu_indices(8, 1)]) == {3.0}
    # of few controls fewer parts are made
    few = screen.codes.copy()
    few[np.flatnonzero(is_control)[6:]] = 1
    assert len(measured_on_halves(screen.with_codes(few), np.random.default_rng(0))) in (1, 3)
