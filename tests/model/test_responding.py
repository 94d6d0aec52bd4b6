"""Which cells responded, on simulated screens whose answer is known."""

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scipy import sparse
from scipy.stats import norm
from scvi.model.base import BaseModelClass

import raptorgraph as rg
from raptorgraph.metrics import auroc, calibration_error
from raptorgraph.model import _responding
from raptorgraph.model._field import KEYS

pytestmark = pytest.mark.usefixtures("few_steps")

NAME = "raptorgraph_responded"


def fitted(adata, max_epochs=20, **kwargs):
    scvi.settings.seed = 0
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts", **kwargs)
    model = rg.RaptorGraph(adata)
    model.train(max_epochs=max_epochs, accelerator="cpu", enable_progress_bar=False)
    return model


def screen(**kwargs):
    size = {"n_control_cells": 300, "n_cells_per_perturbation": 80, "n_doubles": 3, "n_truth_cells": 20}
    return rg.datasets.simulate(**{"n_genes": 150, "n_perturbed": 6, "effect_size": 8.0, "seed": 3, **size, **kwargs})


@pytest.fixture(scope="module")
def half():
    """A screen in which 4 of 10 cells escape, with a guide that does nothing among those of P02."""
    adata = screen(escape=0.4)
    rng = np.random.default_rng(0)
    labels = adata.obs["perturbation"].astype(str)
    adata.obs["guide"] = labels + np.where(rng.random(adata.n_obs) < 0.5, "_1", "_2")
    idle = (labels == "P02") & ~adata.obs["responded"]
    adata.obs.loc[idle, "guide"] = np.where(rng.random(idle.sum()) < 0.9, "P02_1", "P02_2")
    adata.obs.loc[(labels == "P02") & adata.obs["responded"], "guide"] = "P02_2"
    return fitted(adata, max_epochs=None)


@pytest.fixture(scope="module")
def none():
    return fitted(screen(escape=0.0, n_genes=80))


def test_tells_responders_and_is_calibrated(half):
    obs, found = half.adata.obs, half.get_response_probability()
    assert found.name == NAME
    assert list(found.index) == list(obs.index)
    control = obs["perturbation"] == "control"
    pd.testing.assert_series_equal(found.isna(), control, check_names=False)
    alone = obs["perturbation"].isin(half.perturbed_genes)
    truth = obs["responded"]
    scores = [
        auroc(*(found[(obs["perturbation"] == g) & (truth == y)] for y in (True, False)))
        for g in set(obs.loc[alone, "perturbation"])
    ]
    assert np.mean(scores) > 0.9
    assert calibration_error(found[alone].to_numpy(), truth[alone].to_numpy()) < 0.08
    double = ~alone & ~control
    assert auroc(found[double & truth], found[double & ~truth]) > 0.85
    assert found[double].mean() == pytest.approx(truth[double].mean(), abs=0.1)
    np.testing.assert_allclose(half.module.responses.escape.numpy(), 0.4, atol=0.2)


def test_nothing_escapes_where_all_cells_responded(none):
    found = none.get_response_probability().dropna()
    assert found.mean() > 0.99
    assert (found < 0.5).mean() < 0.01


def test_score_of_a_linear_model_is_the_projection(none):
    """With a normal likelihood the score is the projection on the decoded change, in units of its squared length."""
    module = none.module
    tensors = next(none.cells.batches(none.cells.query(), rows=np.arange(4)))
    mask = torch.zeros(4, module.config.n_perturbed)
    mask[:, 1] = 1.0
    sd = torch.linspace(0.5, 2.0, module.config.n_genes)

    class Gaussian:
        def observed(self, x, expression):
            return expression

        def evidence(self, low, high):
            one, none = (norm.logpdf(x, high, sd.numpy()) - norm.logpdf(x, low, sd.numpy()) for x in (1.0, 0.0))
            return torch.as_tensor(one - none)

        def variance(self, location):
            return (sd**2).expand_as(location)

    class Linear:
        expression, encode, covariates, modulator = (
            module.expression,
            module.encode,
            module.covariates,
            module.modulator,
        )
        distribution = Gaussian()

        def decode(self, z, covariates, library):
            return z @ torch.linspace(-1, 1, z.shape[1] * len(sd)).view(z.shape[1], -1)

    with torch.inference_mode():
        cell, gene = torch.nonzero(mask, as_tuple=True)
        score, noise, wide = _responding._score(Linear(), tensors, mask, cell, gene)
        x = module.expression(tensors)
        z = 0.4 * module.encode(x)[0]
        z[:, 1] = 0.0
        shift = module.modulator.shift(z, mask)[:, 1:2]
        change = shift * Linear().decode(torch.eye(z.shape[1])[1:2], None, None) / sd
        size = (change**2).sum(1)
        expected = ((x - Linear().decode(z, None, None)) / sd * change).sum(1) / size
    np.testing.assert_allclose(score, expected, rtol=1e-4)
    np.testing.assert_allclose(noise, 1 / size, rtol=1e-4)
    np.testing.assert_allclose(wide, 1 / size, rtol=1e-4)  # the same with and without the response


def test_a_gene_that_is_switched_on_is_so_in_all_cells():
    """Counts of mean 3 in every perturbed cell, and none in controls: cells vary, and have responded."""
    adata = screen(n_perturbed=4, n_doubles=0, effect_size=2.0, n_cells_per_perturbation=150)
    counts, switched = adata.X.toarray(), (adata.obs["perturbation"] == "P01").to_numpy()
    counts[:, -1] = 0
    counts[switched, -1] = np.random.default_rng(0).poisson(3, switched.sum())
    adata.X = sparse.csr_matrix(counts)
    found = fitted(adata).get_response_probability()
    assert found[switched].mean() > 0.93  # 95 % have a count


def test_score_is_0_and_1_at_its_two_means(none):
    """Of expected counts the score is 0 without the shift, and 1 with it, whatever the likelihood."""
    module, cells = none.module, none.cells
    tensors = next(cells.batches(cells.query(), rows=np.arange(6)))
    mask = torch.zeros(6, module.config.n_perturbed)
    mask[:, 2] = 1.0
    cell, gene = torch.nonzero(mask, as_tuple=True)
    with torch.inference_mode():
        z = _responding._REST * module.encode(module.expression(tensors))[0]
        shift = module.modulator.shift(z, mask)
        for expected in (0.0, 1.0):
            z[:, 2] = expected * shift[:, 2]
            counts = module.decode(z, None, tensors[KEYS.LIBRARY])
            other = {**tensors, KEYS.X: counts}
            module_like = _Encoding(module, module.encode(module.expression(tensors)))
            score, _, _ = _responding._score(module_like, other, mask, cell, gene)
            np.testing.assert_allclose(score, expected, atol=1e-3)


class _Encoding:
    """The network, with what it says of the latents held."""

    def __init__(self, module, posterior):
        self.module, self.posterior = module, posterior

    def encode(self, expression):
        return tuple(values.clone() for values in self.posterior)

    def __getattr__(self, name):
        return getattr(self.module, name)


def test_control_cells_are_encoded_once_and_not_for_each_gene(none, monkeypatch):
    module, cells = none.module, none.cells
    rows, n_encoded, encode = cells.control_rows(none.adata)[:5], [], type(module).encode
    monkeypatch.setattr(type(module), "encode", lambda self, x: n_encoded.append(len(x)) or encode(self, x))
    k = module.config.n_perturbed
    score, noise = _responding._null_scores(cells, cells.query(), rows, k)
    assert n_encoded == [5]
    for g in range(k):
        mask = sparse.csr_array(np.eye(k, dtype=np.float32)[np.full(5, g)])
        expected = _responding._scores(cells, cells.query(), rows, mask)[2:4]
        np.testing.assert_allclose((score[g], noise[g]), expected, rtol=1e-5)


def test_some_cells_of_each_gene():
    gene, rows = np.random.default_rng(0).permutation(np.repeat([0, 2, 5], [3, 40, 60])), np.arange(103) + 7
    found = _responding._some_of_each(rows, gene, 43)
    assert np.array_equal(found, np.unique(found))
    assert np.bincount(gene[found - 7]).tolist() == [3, 0, 20, 0, 0, 20]


def test_combination_is_the_product_of_its_genes(half):
    cells = half.cells
    manager = cells.query()
    label = next(label for label in half.conditions if "+" in label)
    rows = np.flatnonzero(half.adata.obs["perturbation"] == label)[:5]
    mask = manager.get_from_registry(KEYS.PERTURBATION).tocsr()
    row, gene, score, *_ = _responding._scores(cells, manager, rows, mask[rows])
    mixture = half.module.responses.mixture
    ratio = np.exp(mixture.log_ratio(score, gene, seen=True))
    each = ratio * (1 - mixture.escape[gene]) / (ratio * (1 - mixture.escape[gene]) + mixture.escape[gene])
    expected = [np.prod(each[row == i]) for i in rows]
    np.testing.assert_allclose(half.get_response_probability().iloc[rows], expected, rtol=1e-3)
    assert (np.bincount(row)[rows] == 2).all()


def test_guides_have_shares_of_their_own(half):
    obs = half.adata.obs
    found = half.get_response_probability(guide_key="guide")
    by_guide = found.groupby(obs["guide"].to_numpy()).mean()
    truth = obs["responded"].groupby(obs["guide"].to_numpy()).mean()
    assert truth["P02_1"] < 0.1 < 0.8 < truth["P02_2"]
    assert by_guide["P02_1"] < 0.3 < 0.7 < by_guide["P02_2"]
    whole = half.get_response_probability()
    p02 = obs["perturbation"] == "P02"
    brier = [((p - obs["responded"]) ** 2)[p02].mean() for p in (found, whole)]
    assert brier[0] < brier[1]


def test_share_that_is_given(half):
    obs = half.adata.obs
    alone = obs["perturbation"].isin(half.perturbed_genes)
    even, some = (half.get_response_probability(share=share)[alone] for share in (0.5, 0.2))
    odds = [p / (1 - p) for p in (even, some)]
    inside = even.between(1e-6, 1 - 1e-6)
    np.testing.assert_allclose(odds[1][inside], 0.25 * odds[0][inside], rtol=1e-6)


def test_other_cells_and_saved_models(half, tmp_path):
    own = half.get_response_probability()
    half.save(tmp_path / "model")
    loaded = rg.RaptorGraph.load(tmp_path / "model", adata=False)
    copy = half.adata.copy()
    found = loaded.get_response_probability(copy, batch_size=100)
    pd.testing.assert_series_equal(found, own, rtol=1e-4)
    # without the training controls beside them, cells count as new: their own part in the effect is not taken off
    some = copy[copy.obs["perturbation"] == "P01"].copy()
    unseen = loaded.get_response_probability(some)
    assert len(unseen) == some.n_obs
    assert (unseen >= found[some.obs_names] - 1e-6).all()
    assert unseen.mean() > found[some.obs_names].mean()
    held_out = screen(escape=0.4)
    pd.testing.assert_series_equal(loaded.get_response_probability(held_out).loc[own.index], own, rtol=1e-4)


def test_models_of_older_versions_are_fitted_when_asked(half, tmp_path):
    own = half.get_response_probability()
    BaseModelClass.save(half, tmp_path / "model", save_anndata=True)
    file = tmp_path / "model" / "model.pt"
    saved = torch.load(file, weights_only=False)
    saved["model_state_dict"] = {k: v for k, v in saved["model_state_dict"].items() if not k.startswith("responses.")}
    torch.save(saved, file)
    with pytest.warns(UserWarning, match="is a pickle"):
        fitted = rg.RaptorGraph.load(tmp_path / "model", allow_pickle=True)
    with pytest.warns(UserWarning, match="is a pickle"):
        loaded = rg.RaptorGraph.load(tmp_path / "model", adata=False, allow_pickle=True)
    pd.testing.assert_series_equal(fitted.get_response_probability(), own, rtol=1e-4)
    with pytest.raises(ValueError, match="older version"):
        loaded.get_response_probability(half.adata.copy())


def test_escape_of_the_prior_follows(half):
    _responding.fit_escape(half)
    np.testing.assert_allclose(
        half.module.prior.escape_logit.detach().sigmoid(), half.module.responses.escape, rtol=1e-4
    )


def test_genes_that_were_never_perturbed_alone():
    adata = screen(escape=0.3, n_doubles="all", n_perturbed=4, n_genes=80)
    model = fitted(adata[adata.obs["perturbation"] != "P01"].copy())
    found, obs = model.get_response_probability(), model.adata.obs
    assert 0.05 < model.module.responses.escape[model.perturbed_genes.index("P01")] < 0.6
    rows = obs["perturbation"].astype(str).str.startswith("P01+")
    assert auroc(found[rows & obs["responded"]], found[rows & ~obs["responded"]]) > 0.75


def test_other_likelihoods_and_presets():
    adata = screen(escape=0.4, n_genes=80)
    adata.layers["log"] = sparse.csr_matrix(np.log1p(1e4 * adata.X.toarray() / adata.obs[["total_counts"]].to_numpy()))
    scvi.settings.seed = 0
    rg.RaptorGraph.setup_anndata(adata, layer="log")
    model = rg.RaptorGraph(adata)
    model.train(max_epochs=20, accelerator="cpu", enable_progress_bar=False)
    found, obs = model.get_response_probability(), adata.obs
    alone = obs["perturbation"].isin(model.perturbed_genes)
    assert auroc(found[alone & obs["responded"]], found[alone & ~obs["responded"]]) > 0.8
    paper = rg.RaptorGraph.from_preset(adata, "paper")
    paper.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    assert paper.get_response_probability()[alone].between(0, 1).all()


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"guide_key": "sgrna"}, KeyError, "guide_key='sgrna'"),
        ({"share": 0.0}, ValueError, "share=0"),
        ({"share": 1.0}, ValueError, "share=1.0"),
        ({"share": 0.5, "guide_key": "guide"}, ValueError, "without guide_key"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
    ],
)
def test_bad_arguments(half, arguments, error, match):
    with pytest.raises(error, match=match):
        half.get_response_probability(**arguments)


def test_cells_without_labels_are_not_taken_for_controls(half):
    cells = half.adata[:20].copy()
    del cells.obs["perturbation"]
    with pytest.raises(KeyError, match="perturbation_key='perturbation'"):
        half.get_response_probability(cells)


# -- annotate ----------------------------------------------------------------------------------------------------------
def test_annotate_writes_it(half, tmp_path):
    adata = half.adata.copy()
    half.annotate(adata)
    expected = half.get_response_probability()
    pd.testing.assert_series_equal(adata.obs[NAME], expected, rtol=1e-5)
    adata.write_h5ad(tmp_path / "cells.h5ad")


def test_annotate_leaves_it_out_where_it_cannot_be_said(half):
    adata = half.adata[:20].copy()
    adata.obs["perturbation"] = "P99"
    adata.obs[NAME] = 0.5  # of an earlier call
    half.annotate(adata)
    assert NAME not in adata.obs
    assert "X_raptorgraph" in adata.obsm
    del adata.obs["perturbation"]
    half.annotate(adata)
    assert NAME not in adata.obs
