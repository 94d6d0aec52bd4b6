"""What each perturbation does: rows against the model's own effects, order, blocks, and whether signs are right."""

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from scipy import stats
from statsmodels.stats.multitest import multipletests

import raptorgraph as rg
from raptorgraph.inference._conditioning import Conditional
from raptorgraph.inference._draws import JointDraws
from raptorgraph.tl import _effect_blocks, _effects, effects

COLUMNS = ["perturbation", "gene", "effect", "sd", "low", "high", "lfsr", "FDR", "measured", "own_target"]


class ManyEffects:
    """1,100 single perturbations of 30 genes, whose effects are known, and which counts what it is asked for."""

    setup_args = {"perturbation_key": "perturbation", "control": "control", "delimiter": "+"}
    has_posterior = True

    def __init__(self, n=1100, n_genes=30):
        rng = np.random.default_rng(0)
        self.perturbed_genes = self.conditions = [f"P{k:04d}" for k in range(n)]
        self.var_names_ = [f"P{k:04d}" for k in range(n_genes)]
        self.mean = pd.DataFrame(rng.normal(size=(n, n_genes)), self.conditions, self.var_names_)
        self.sd = pd.DataFrame(rng.uniform(0.2, 2.0, size=(n, n_genes)), self.conditions, self.var_names_)
        self.asked = []

    def predict_effects(self, labels, return_sd=False):
        self.asked.append(len(labels))
        return (self.mean.loc[labels], self.sd.loc[labels]) if return_sd else self.mean.loc[labels]


@pytest.fixture(scope="module")
def without_posterior(with_few_steps):
    seed, scvi.settings.seed = scvi.settings.seed, 0
    adata = rg.datasets.simulate(40, 3, n_doubles=1, n_control_cells=60, n_cells_per_perturbation=30, seed=0)
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraphModel(adata, n_hidden=8, effect_posterior=False)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    scvi.settings.seed = seed
    return model


# -- values --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("level", [0.9, 0.5])
def test_rows_are_the_effects_with_normal_intervals_and_sign_rates(pairs_model, level):
    asked = ["P02", ("P03", "P01"), "P02+P01", "P02"]  # one is there twice, P01+P03 was not measured
    table = effects(pairs_model, asked, level=level)
    assert list(table.columns) == COLUMNS
    labels = ["P02", "P01+P03", "P01+P02"]
    mean, sd = (x.astype(float) for x in pairs_model.predict_effects(labels, return_sd=True))
    assert len(table) == mean.size
    assert table["perturbation"].drop_duplicates().tolist() == labels
    square = {name: table.pivot(index="perturbation", columns="gene", values=name) for name in COLUMNS[2:]}
    square = {name: values.loc[labels, mean.columns].to_numpy() for name, values in square.items()}
    np.testing.assert_array_equal(square["effect"], mean)
    np.testing.assert_array_equal(square["sd"], sd)
    low, high = stats.norm.interval(level, mean, sd)
    np.testing.assert_allclose(square["low"].astype(float), low, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(square["high"].astype(float), high, rtol=1e-9, atol=1e-12)
    below = stats.norm.cdf(0, mean, sd)
    np.testing.assert_allclose(square["lfsr"].astype(float), np.minimum(below, 1 - below), atol=1e-15)
    rates = pd.DataFrame(2 * square["lfsr"].astype(float), labels, mean.columns)
    for k, label in enumerate(labels):
        others = rates.loc[label].drop(label.split("+"))
        expected = multipletests(others, method="fdr_bh")[1]
        found = pd.Series(square["FDR"][k].astype(float), mean.columns)
        np.testing.assert_allclose(found[others.index], expected, atol=1e-15)
        of_all = pd.Series(multipletests(rates.loc[label], method="fdr_bh")[1], mean.columns)
        np.testing.assert_allclose(found[label.split("+")], of_all[label.split("+")], atol=1e-15)
    one_side = (square["low"] > 0) | (square["high"] < 0)
    np.testing.assert_array_equal(one_side, square["lfsr"] < (1 - level) / 2)
    np.testing.assert_array_equal(square["measured"][:, 0], [True, False, True])
    own = {label: set(table.loc[(table["perturbation"] == label) & table["own_target"], "gene"]) for label in labels}
    assert own == {"P02": {"P02"}, "P01+P03": {"P01", "P03"}, "P01+P02": {"P01", "P02"}}
    assert table.attrs["intervals"] == f"{100 * level:g} % of a normal posterior of each effect"


def test_all_that_was_measured_by_default(pairs_model):
    table = effects(pairs_model)
    assert table["perturbation"].drop_duplicates().tolist() == pairs_model.conditions
    assert table["measured"].all()
    assert len(table) == len(pairs_model.conditions) * len(pairs_model.var_names_)


def test_sign_rates_are_shares_of_joint_draws(pairs_model):
    """Draws are of the mixture itself, about the posterior mean, and know nothing of the normal form.

    They are those of differences to the very control cells, less an error of the mean of these.
    """
    table = effects(pairs_model, ["P01", "P03+P04"]).set_index(["perturbation", "gene"])
    posterior = pairs_model.calibration.posterior
    measured, design = posterior.fitted.measured, pairs_model.predictor.masks(["P01", "P03+P04"])[1].double()
    joint = JointDraws(Conditional(posterior.fitted), posterior.additivity, 200, 0)
    draws = joint.effects(design, controls=True).numpy()
    error = np.sqrt((measured.control_noise * measured.gene_noise).numpy())
    draws -= np.random.default_rng(0).normal(size=(200, 1, len(error))) * error
    below = pd.DataFrame((draws < 0).mean(axis=0), ["P01", "P03+P04"], pairs_model.var_names_).stack()
    wrong = np.where(table["effect"] > 0, below.loc[table.index], 1 - below.loc[table.index])
    assert np.abs(wrong - table["lfsr"]).mean() < 0.06
    sure = table["lfsr"].to_numpy() < 0.05
    assert sure.sum() >= 20
    assert wrong[sure].mean() < 0.05
    assert wrong[table["lfsr"].to_numpy() > 0.3].mean() > 0.2


def test_sure_signs_are_seldom_opposite(known_screen):
    """Of effects that are known, no more go the other way than the rates say; those that are zero have no sign."""
    truth = known_screen.adata.uns["simulation"]["effects"]
    labels = [label for label in known_screen.model.conditions if label not in (*known_screen.null, "P02")]
    table = effects(known_screen.model, labels, exclude_targets=True)
    true = truth.stack().reindex(pd.MultiIndex.from_frame(table[["perturbation", "gene"]])).to_numpy()
    opposite = np.sign(true) == -np.sign(table["effect"].to_numpy())
    right = np.sign(true) == np.sign(table["effect"].to_numpy())
    for most in (0.05, 0.2):
        sure = (table["lfsr"] <= most).to_numpy()
        assert sure.sum() > 100
        assert opposite[sure].sum() <= table.loc[sure, "lfsr"].sum()
        assert right[sure].sum() > 10 * opposite[sure].sum()
    unsure = (table["lfsr"] > 0.3).to_numpy()
    assert right[unsure].sum() < 3 * opposite[unsure].sum()
    # and of genes that are sure to respond at most as many do not as the rates say
    discovered = (table["FDR"] <= 0.05).to_numpy()
    assert discovered.sum() > 20
    assert (true[discovered] == 0).mean() <= 0.05
    assert (true[(table["lfsr"] <= 0.05).to_numpy()] == 0).mean() > 0.1  # which sign rates do not promise
    # of perturbations that do nothing fewer are sure than the 10 % that intervals without shrinkage would leave out
    of_null = effects(known_screen.model, known_screen.null, exclude_targets=True)
    assert (of_null["lfsr"] <= 0.05).mean() < 0.05


def test_few_controls_make_no_sure_genes():
    """Sixteen perturbations of control cells tell the error of 60 others well, which is no effect of any of them."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(1.0, 2.0, 150) + 0.1
    labels = np.repeat(["control", *(f"P{k:02d}" for k in range(16))], [60, *[100] * 16])
    counts = rng.poisson(rates, (len(labels), 150)).astype(np.float32)
    adata = AnnData(counts, pd.DataFrame({"perturbation": labels}, [f"c{k}" for k in range(len(labels))]))
    rg.RaptorGraphModel.setup_anndata(adata)
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    table = effects(model)
    assert (table["FDR"] <= 0.05).sum() <= 5
    assert ((table["low"] <= 0) & (table["high"] >= 0)).mean() > 0.88
    mean, sd = model.calibration.posterior.mean_and_sd(torch.eye(16))
    assert (mean.abs() < 1.645 * sd).double().mean() < 0.8  # of the difference to these very controls


# -- which rows, in which order ------------------------------------------------------------------------------------
@pytest.mark.parametrize("by", ["effect", "lfsr"])
def test_genes_are_sorted_within_each_perturbation(pairs_model, by):
    table = effects(pairs_model, ["P03", "P01"], by=by)
    for label in ("P03", "P01"):
        of_one = table[table["perturbation"] == label]
        key = of_one["effect"].abs() if by == "effect" else of_one["effect"].abs() / of_one["sd"]
        assert key.is_monotonic_decreasing
    assert by == "effect" or table.groupby("perturbation")["lfsr"].apply(lambda x: x.is_monotonic_increasing).all()
    first = effects(pairs_model, ["P03", "P01"], by=by, top=7)
    pd.testing.assert_frame_equal(first, table.groupby("perturbation", sort=False).head(7).reset_index(drop=True))
    words = "size of the effect" if by == "effect" else "local false sign rate"
    assert first.attrs["ranked"] == f"the first 7 of {len(pairs_model.var_names_)} genes of each, by {words}"
    pd.testing.assert_frame_equal(effects(pairs_model, ["P03", "P01"], by=by, top=10**6), table)


def test_equal_effects_keep_the_order_of_the_genes():
    model = ManyEffects(3)
    model.mean[:] = 1.0
    model.sd[:] = 0.01  # rates that are 0 in floating point
    for by in ("effect", "lfsr"):
        assert effects(model, by=by, top=4)["gene"].tolist() == [*model.var_names_[:4]] * 3


def test_surest_effects_are_told_apart_where_rates_are_zero():
    model = ManyEffects(1)
    model.mean[:] = 10.0
    model.sd[:] = np.linspace(0.2, 0.1, 30)
    table = effects(model, by="lfsr", top=3)
    assert (table["lfsr"] == 0).all()
    assert table["gene"].tolist() == model.var_names_[:-4:-1]


def test_some_genes_and_without_targets(pairs_model):
    genes = ["P05", *pairs_model.var_names_[20:24], "P01"]
    table = effects(pairs_model, ["P01", "P05+P06"], genes=pd.Index(genes))
    assert set(table["gene"]) == set(genes)
    assert table.groupby("perturbation").size().to_dict() == {"P01": 6, "P05+P06": 6}
    others = effects(pairs_model, ["P01", "P05+P06"], genes=genes, exclude_targets=True)
    expected = table[~table["own_target"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(others, expected)
    assert others.groupby("perturbation").size().to_dict() == {"P01": 5, "P05+P06": 5}


def test_sure_ones_alone(pairs_model):
    table = effects(pairs_model)
    sure = effects(pairs_model, max_lfsr=0.05)
    pd.testing.assert_frame_equal(sure, table[table["lfsr"] <= 0.05].reset_index(drop=True))
    first = effects(pairs_model, max_lfsr=0.05, top=2)
    pd.testing.assert_frame_equal(first, sure.groupby("perturbation", sort=False).head(2).reset_index(drop=True))
    none = effects(pairs_model, ["P01"], genes=["P02"], max_lfsr=0.0)
    assert none.empty
    assert list(none.columns) == COLUMNS


# -- sizes ---------------------------------------------------------------------------------------------------------
def test_blocks_make_the_same_table():
    model = ManyEffects()
    table = effects(model, top=3)
    assert model.asked == [512, 512, 76]
    assert table["perturbation"].tolist() == np.repeat(model.conditions, 3).tolist()
    for label in ("P0000", "P0600", "P1099"):
        expected = model.mean.loc[label].abs().nlargest(3).index
        assert table.loc[table["perturbation"] == label, "gene"].tolist() == list(expected)
    own = table[table["own_target"]]
    assert len(own)
    assert (own["perturbation"] == own["gene"]).all()


def test_blocks_of_a_posterior_make_the_same_table(pairs_model, monkeypatch):
    table = effects(pairs_model, top=5)
    monkeypatch.setattr(_effect_blocks, "AT_A_TIME", 2)
    in_blocks = effects(pairs_model, top=5)
    pd.testing.assert_frame_equal(in_blocks, table, rtol=1e-5)


def test_a_table_that_nobody_would_read_is_refused_before_the_work(monkeypatch):
    model = ManyEffects()
    monkeypatch.setattr(_effects, "_MOST_ROWS", 30_000)
    with pytest.raises(ValueError, match=r"1,100 perturbations and 30 genes would have more than 30,000 rows.*top=30"):
        effects(model)
    assert model.asked == []
    with pytest.raises(ValueError, match="more than 30,000 rows"):  # as soon as it is known
        effects(model, max_lfsr=1)
    assert len(effects(model, top=30)) == 33_000
    assert len(effects(model, genes=model.var_names_[:20])) == 22_000
    assert 0 < len(effects(model, max_lfsr=0.01)) < 30_000


# -- models of other kinds -----------------------------------------------------------------------------------------
def test_a_model_without_a_posterior_has_effects_alone(without_posterior):
    table = effects(without_posterior, ["P01", "P01+P02"])
    assert list(table.columns) == COLUMNS
    assert table[["sd", "low", "high", "lfsr"]].isna().all(axis=None)
    expected = without_posterior.predict_effects(["P01", "P01+P02"])
    found = table.pivot(index="perturbation", columns="gene", values="effect").loc[expected.index, expected.columns]
    np.testing.assert_array_equal(found, expected)
    assert table.attrs["intervals"] == "none: the model has no posterior of the effects"
    with pytest.raises(ValueError, match="max_lfsr=0.05: the model has no posterior"):
        effects(without_posterior, max_lfsr=0.05)
    with pytest.raises(ValueError, match="by='lfsr': the model has no posterior"):
        effects(without_posterior, by="lfsr")


def test_a_baseline_answers_too(known_screen):
    baseline = rg.baselines.Additive(library_size_key="total_counts").fit(known_screen.adata)
    table = effects(baseline, ["P03"], top=4)
    measured = baseline.predict_effects("P03").iloc[0]
    assert table["gene"].tolist() == list(measured.abs().nlargest(4).index)
    assert table["lfsr"].isna().all()


def test_a_model_without_data_and_a_gene_that_nobody_perturbed(tmp_path, few_steps):
    scvi.settings.seed = 0
    adata = rg.datasets.simulate(40, 4, n_doubles=0, n_control_cells=60, n_cells_per_perturbation=30, seed=0)
    unseen = adata.var_names[10]  # measured, and not perturbed
    rng = np.random.default_rng(0)
    embedding = pd.DataFrame(rng.normal(size=(5, 3)), index=["P01", "P02", "P03", "P04", unseen])
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts", gene_embedding=embedding)
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    table = effects(model, ["P01", unseen])
    assert table.groupby("perturbation")["measured"].first().to_dict() == {"P01": True, unseen: False}
    own = table[table["own_target"]]
    assert own["perturbation"].tolist() == own["gene"].tolist() == ["P01", unseen]
    model.save(tmp_path / "model")
    pd.testing.assert_frame_equal(
        effects(rg.RaptorGraphModel.load(tmp_path / "model", adata=False), ["P01", unseen]), table
    )


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"perturbations": ["P01", "P99"]}, ValueError, "P99 was not perturbed"),
        ({"perturbations": ["control"]}, ValueError, "'control' is what effects are measured against"),
        ({"perturbations": []}, ValueError, "perturbations is empty"),
        ({"genes": ["nope"]}, ValueError, "'nope' is not a gene of the model"),
        ({"genes": "P01"}, TypeError, r"genes=\['P01'\]"),
        ({"genes": []}, ValueError, "names no gene"),
        ({"level": 0}, ValueError, "level=0"),
        ({"level": 1}, ValueError, "level=1 is out of range"),
        ({"level": 90}, ValueError, "level=90"),
        ({"level": "0.9"}, TypeError, "level='0.9'"),
        ({"top": 0}, ValueError, "top=0"),
        ({"top": 2.5}, TypeError, "top=2.5"),
        ({"by": "p"}, ValueError, "by='p'"),
        ({"max_lfsr": -0.1}, ValueError, "max_lfsr=-0.1"),
        ({"exclude_targets": "yes"}, TypeError, "exclude_targets='yes'"),
    ],
)
def test_bad_input(pairs_model, arguments, error, match):
    with pytest.raises(error, match=match):
        effects(pairs_model, **arguments)


def test_the_wrong_label_of_many_is_found_before_the_work():
    model = ManyEffects()
    with pytest.raises(ValueError, match="P9999 was not perturbed"):
        effects(model, [*model.conditions, "P9999"], top=1)
    assert model.asked == []


def test_few_controls_of_one_batch_make_no_sure_genes():
    """Eight perturbations of control cells tell the error of the 20 others of their batch well, which is no effect."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(1.0, 2.0, 150) + 0.1
    labels = np.repeat([*("control", "control"), *(f"P{k:02d}" for k in range(16))], [500, 20, *[60] * 16])
    batch = np.repeat([*"ab", *"a" * 8, *"b" * 8], [500, 20, *[60] * 16])
    shift = np.where(batch[:, None] == "b", np.exp(rng.normal(0, 0.2, 150)), 1.0)
    counts = rng.poisson(rates * shift).astype(np.float32)
    obs = pd.DataFrame({"perturbation": labels, "batch": batch}, [f"c{k}" for k in range(len(labels))])
    adata = AnnData(counts, obs)
    rg.RaptorGraphModel.setup_anndata(adata, batch_key="batch")
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    table = effects(model)
    assert (table["FDR"] <= 0.05).sum() <= 5
    covered = (table["low"] <= 0) & (table["high"] >= 0)
    assert covered[table["perturbation"] >= "P08"].mean() >= 0.9
    draws = model.sample_effects(model.conditions[8:], n_draws=100, seed=0)
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    assert ((low <= 0) & (high >= 0)).mean() >= 0.9
