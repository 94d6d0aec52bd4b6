from itertools import combinations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi
from scipy import sparse

import raptorgraph as rg
from raptorgraph.tl._reverse import reverse

pytestmark = pytest.mark.usefixtures("few_steps")

GENES = [f"G{k}" for k in range(12)] + ["P0", "P1", "P2"]


class FakeModel:
    """Additive effects of five genes, of which three are in the panel; the control is predicted to be `shift` off."""

    def __init__(self, delimiter="+", shift=0.0):
        rng = np.random.default_rng(0)
        self.perturbed_genes = [f"P{k}" for k in (3, 0, 4, 1, 2)]
        self.singles = {gene: rng.normal(size=len(GENES)) for gene in self.perturbed_genes}
        for gene in ("P0", "P1", "P2"):
            self.singles[gene][GENES.index(gene)] = -10.0
        self.setup_args = {"perturbation_key": "perturbation", "control": "control", "delimiter": delimiter}
        self.shift = shift
        self.asked = []

    def predict_effects(self, labels):
        self.asked.append(len(labels))
        rows = [sum(self.singles[g] for g in label.split(self.setup_args["delimiter"])) for label in labels]
        return pd.DataFrame(rows, index=labels, columns=GENES)

    def predict_control(self):
        return np.linspace(1, 2, len(GENES)) + self.shift


def truth(model, labels, noise=0.0, seed=1):
    effects = model.predict_effects(labels)
    return effects + noise * np.random.default_rng(seed).normal(size=effects.shape)


DISTANCES = {
    "euclidean": lambda a, b: np.sqrt(((a - b) ** 2).sum()),
    "cosine": lambda a, b: 1 - a @ b / np.sqrt((a @ a) * (b @ b)),
    "pearson": lambda a, b: 1 - np.corrcoef(a, b)[0, 1],
}


@pytest.mark.parametrize("metric", DISTANCES)
@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("by", ["effect", "profile"])
def test_brute_force(metric, exclude, by):
    model = FakeModel(shift=0.3)
    query = truth(model, ["P0+P1", "P3", "P2+P4"], noise=1.0).rename(index=lambda label: f"query {label}")
    genes = GENES[:12] if exclude else GENES
    offset = pd.Series(model.predict_control() if by == "profile" else 0.0, index=GENES)
    query = query + 0.7 * offset
    table = reverse(model, query, metric=metric, exclude_targets=exclude, by=by)
    sets = [*combinations(sorted(model.perturbed_genes), 1), *combinations(sorted(model.perturbed_genes), 2)]
    assert len(table) == 3 * 15
    assert list(table["query"].unique()) == list(query.index)
    for name, part in table.groupby("query"):
        brute = {}
        for chosen in sets:
            predicted = model.predict_effects(["+".join(chosen)]).iloc[0] + offset
            brute[chosen] = DISTANCES[metric](query.loc[name, genes].to_numpy(), predicted[genes].to_numpy())
        assert list(part["genes"]) == sorted(brute, key=brute.get)
        np.testing.assert_allclose(part["distance"], sorted(brute.values()), atol=1e-12)
        assert list(part["rank"]) == list(range(1, 16))
        assert list(part["perturbation"]) == ["+".join(chosen) for chosen in part["genes"]]


def test_truth_comes_first():
    model = FakeModel(delimiter="_")
    labels = ["P0_P1", "P3", "P2_P4"]
    table = reverse(model, truth(model, labels, noise=0.05), top=1)
    assert list(table["perturbation"]) == labels
    assert (table["rank"] == 1).all()
    assert (table["distance"] > 0).all()


def test_own_genes_do_not_help():
    model = FakeModel()
    query = truth(model, ["P0"])
    query.loc["P0", GENES[:12]] = model.singles["P3"][:12]
    best = {exclude: reverse(model, query, max_genes=1, exclude_targets=exclude, top=1) for exclude in (True, False)}
    assert best[True]["perturbation"].item() == "P3"
    assert best[False]["perturbation"].item() == "P0"


def test_search_space_of_the_paper():
    model = FakeModel()
    table = reverse(model, truth(model, ["P0+P1"]), min_genes=2, candidates=["P1", "P0", "P4", "P0"])
    assert set(table["genes"]) == {("P0", "P1"), ("P0", "P4"), ("P1", "P4")}
    table = reverse(model, truth(model, ["P0"]), max_genes=3)
    assert len(table) == 5 + 10 + 10
    assert table["genes"].map(len).max() == 3


def test_chunks_and_top():
    model = FakeModel()
    query = truth(model, ["P0+P1", "P3"], noise=0.5)
    whole = reverse(model, query)
    model.asked.clear()
    chunked = reverse(model, query, chunk_size=4)
    assert model.asked == [1, 4, 4, 4, 3]
    pd.testing.assert_frame_equal(whole, chunked)
    few = reverse(model, query, top=2, chunk_size=4)
    expected = whole[whole["query"].groupby(whole["query"]).cumcount() < 2]
    pd.testing.assert_frame_equal(few, expected.reset_index(drop=True))


def test_ties_share_their_mean_rank():
    model = FakeModel()
    model.singles = dict.fromkeys(model.perturbed_genes, np.arange(len(GENES), dtype=float))
    table = reverse(model, truth(model, ["P0"], noise=0.1))
    assert list(table["rank"]) == [3.0] * 5 + [10.5] * 10
    assert list(table["perturbation"][:5]) == ["P0", "P1", "P2", "P3", "P4"]


def test_zero_effect_has_no_direction():
    model = FakeModel()
    model.singles["P4"][:] = 0.0
    table = reverse(model, truth(model, ["P0"], noise=0.1), max_genes=1, metric="cosine")
    assert table["perturbation"].iloc[-1] == "P4"
    assert np.isnan(table["distance"].iloc[-1])
    assert list(table["rank"]) == [1, 2, 3, 4, 5]


def test_query_of_other_genes_in_other_order():
    model = FakeModel()
    query = truth(model, ["P0+P1"], noise=0.3)
    other = query[GENES[9::-1]].assign(unknown=5.0)
    expected = DISTANCES["euclidean"](query.iloc[0, :10], model.predict_effects(["P3"]).iloc[0, :10])
    found = reverse(model, other).set_index("perturbation").loc["P3", "distance"]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"candidates": ["P0", "X"]}, KeyError, "'X' is not a perturbed gene"),
        ({"candidates": ["P0", "control"]}, KeyError, r"'control' is not a perturbed gene of the model; .*\]\.\"$"),
        ({"candidates": "P0"}, TypeError, "list of genes"),
        ({"candidates": 5}, TypeError, "list of genes, not 5"),
        ({"candidates": [("P0", "P1")]}, TypeError, r"\('P0', 'P1'\) is no gene"),
        ({"candidates": ["P1+P0"]}, KeyError, "did you mean 'P0', 'P1'"),
        ({"candidates": ["p1"]}, KeyError, "did you mean 'P1'"),
        ({"candidates": ["P0"], "min_genes": 2}, ValueError, "no set of 2 genes"),
        ({"max_genes": 0}, ValueError, "max_genes=0"),
        ({"by": "cell"}, ValueError, "by='cell'"),
        ({"metric": "l1"}, ValueError, "metric='l1'"),
        ({"top": 0}, ValueError, "top=0"),
        ({"chunk_size": 0}, ValueError, "chunk_size=0"),
        ({"query": np.zeros((1, 3))}, TypeError, "not ndarray"),
        ({"query": pd.DataFrame(columns=GENES, dtype=float)}, ValueError, "no rows"),
        ({"query": pd.DataFrame([[1.0, 2.0]], columns=["P0", "G1"])}, ValueError, "^1 genes are left"),
        ({"query": pd.DataFrame([[1.0, np.nan]], index=["q"], columns=["G0", "G1"])}, ValueError, "'q' has missing"),
        ({"query": pd.DataFrame([[1.0, 2.0]], columns=["G0", "G0"])}, ValueError, "Gene 'G0' is there twice"),
        ({"query": pd.DataFrame(0.5, index=["q", "q"], columns=GENES)}, ValueError, "Query 'q' is there twice"),
        ({"query": ad.AnnData(np.ones((2, 1)), var=pd.DataFrame(index=["G0"]))}, KeyError, "14 of the model's 15"),
    ],
)
def test_bad_arguments(change, error, match):
    model = FakeModel()
    arguments = {"query": pd.DataFrame(0.5, index=["q"], columns=GENES), **change}
    with pytest.raises(error, match=match):
        reverse(model, arguments.pop("query"), **arguments)
    assert sum(model.asked) <= 1


# -- cells and a real model ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def screen():
    return rg.datasets.simulate(
        n_genes=60, n_perturbed=5, n_control_cells=150, n_cells_per_perturbation=60, n_doubles=4, n_truth_cells=20
    )


@pytest.fixture(scope="module")
def trained(screen):
    scvi.settings.seed = 0
    adata = screen.copy()
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraph(adata)
    model.train(max_epochs=20, enable_progress_bar=False, accelerator="cpu")
    return model


def test_measured_effects_find_their_perturbation(trained):
    effects = trained.measured_effects()
    table = reverse(trained, effects)
    truth = table[table["query"] == table["perturbation"]]
    assert len(truth) == 9
    assert len(table) == 9 * 15
    assert truth["rank"].mean() < 4  # 8 by chance
    pd.testing.assert_frame_equal(table, reverse(trained, effects))


def test_cells_as_query(trained, screen):
    cells = screen[screen.obs["perturbation"].isin(["control", "P01", "P02"])].copy()
    expected = reverse(trained, trained.measured_effects().loc[["P01", "P02"]])
    pd.testing.assert_frame_equal(reverse(trained, cells), expected)

    alone = cells[cells.obs["perturbation"] == "P01"].copy()
    first = expected[expected["query"] == "P01"].reset_index(drop=True)
    # the model's own control cells stand in
    pd.testing.assert_frame_equal(reverse(trained, alone), first, rtol=1e-6)
    del alone.obs["perturbation"]
    pd.testing.assert_frame_equal(reverse(trained, alone), first.assign(query="query"), rtol=1e-6)


def test_profiles_of_cells(trained, screen):
    cells = screen[screen.obs["perturbation"].isin(["control", "P01"])].copy()
    counts = cells[cells.obs["perturbation"] == "P01"]
    scaled = np.log1p(1e4 * counts.X.toarray() / counts.obs["total_counts"].to_numpy()[:, None])
    profile = pd.DataFrame(scaled.mean(axis=0, keepdims=True), index=["P01"], columns=screen.var_names)
    table = reverse(trained, cells, by="profile")
    pd.testing.assert_frame_equal(table, reverse(trained, profile, by="profile"), rtol=1e-5)

    control = trained.adata[trained.adata.obs["perturbation"] == "control"]
    predicted = trained.get_counterfactual("control", control).mean(axis=0)
    predicted = pd.Series(predicted, index=trained.adata.var_names) + trained.predict_effects(["P03"]).iloc[0]
    others = [gene for gene in trained.adata.var_names if gene not in trained.perturbed_genes]
    distance = np.linalg.norm(profile.loc["P01", others] - predicted[others])
    assert table.set_index("perturbation").loc["P03", "distance"] == pytest.approx(distance, rel=1e-5)


def test_genes_that_are_there_twice():
    cells = ad.AnnData(np.full((4, len(GENES)), 0.5), var=pd.DataFrame(index=GENES))
    cells.var.index = [GENES[1], *GENES[1:]]
    with pytest.raises(ValueError, match="var_names of the query are not unique"):
        reverse(FakeModel(), cells)


def test_cells_without_anything_to_compare():
    cells = ad.AnnData(sparse.csr_matrix(np.full((4, len(GENES)), 0.5)), var=pd.DataFrame(index=GENES))
    with pytest.raises(ValueError, match="Neither the query nor the model has control cells"):
        reverse(FakeModel(), cells)
    assert len(reverse(FakeModel(), cells, by="profile")) == 15
    cells.obs["perturbation"] = "control"
    with pytest.raises(ValueError, match="All cells of the query are control cells"):
        reverse(FakeModel(), cells)


def test_a_part_of_the_cells_of_a_file(tmp_path):
    values = np.random.default_rng(0).random((6, len(GENES)))
    cells = ad.AnnData(sparse.csr_matrix(values), var=pd.DataFrame(index=GENES))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    part = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")[:4]
    expected = reverse(FakeModel(), cells[:4], by="profile")
    pd.testing.assert_frame_equal(reverse(FakeModel(), part, by="profile"), expected)


class DrawnModel(FakeModel):
    """Draws of every set about its prediction, the same for the same seed beside whatever other sets."""

    has_posterior = True
    spread = 0.6

    def sample_effects(self, labels, n_draws, seed):
        self.asked.append(-len(labels))
        mean = super().predict_effects(labels).to_numpy()
        draws = np.empty((n_draws, *mean.shape))
        for k, label in enumerate(labels):
            rng = np.random.default_rng([seed, *label.encode()])
            draws[:, k] = mean[k] + self.spread * rng.normal(size=(n_draws, len(GENES)))
        return draws


def true_ranks(effects, query, genes):
    distance = np.linalg.norm(effects[genes].to_numpy() - query[genes].to_numpy(), axis=1)
    return pd.Series(distance, effects.index).rank()


@pytest.mark.parametrize("by", ["effect", "profile"])
def test_ranks_of_draws_by_brute_force(by):
    model = DrawnModel(shift=0.3)
    offset = model.predict_control() if by == "profile" else np.zeros(len(GENES))
    query = truth(model, ["P0+P1", "P3"], noise=1.0) + offset
    table = reverse(model, query, by=by, n_draws=41, seed=5)
    sets = ["+".join(chosen) for size in (1, 2) for chosen in combinations(sorted(model.perturbed_genes), size)]
    draws, genes = model.sample_effects(sets, 41, 5)[:, :, :12] + offset[:12], GENES[:12]
    for name, part in table.groupby("query"):
        distance = np.linalg.norm(draws - query.loc[name, genes].to_numpy(), axis=2)
        ranks = pd.DataFrame(distance, columns=sets).rank(axis=1)
        part = part.set_index("perturbation").loc[sets]
        np.testing.assert_allclose(part["rank"], ranks.median())
        np.testing.assert_allclose(part["distance"], np.median(distance, axis=0))
        np.testing.assert_allclose(part["rank_low"], ranks.quantile(0.05))
        np.testing.assert_allclose(part["rank_high"], ranks.quantile(0.95))
        np.testing.assert_allclose(part["best_probability"], (ranks == 1).mean())
    for _, part in table.groupby("query"):
        assert part["best_probability"].sum() == pytest.approx(1)
        assert (np.diff(part["rank"]) >= 0).all()
        assert part["rank"].between(part["rank_low"], part["rank_high"]).all()


def test_chunks_of_draws_are_joint():
    model = DrawnModel()
    query = truth(model, ["P0+P1"], noise=1.0)
    whole, parts = (reverse(model, query, n_draws=20, seed=1, chunk_size=size) for size in (256, 4))
    pd.testing.assert_frame_equal(whole, parts)
    assert min(model.asked) == -15  # and then four at a time
    assert model.asked.count(-4) == 3


def test_intervals_of_ranks_hold_the_true_ranks():
    """True effects are one more draw; each time the query is the true effect of one of the sets."""
    held, best = [], []
    for seed in range(40):
        model = DrawnModel()
        sets = ["+".join(chosen) for size in (1, 2) for chosen in combinations(sorted(model.perturbed_genes), size)]
        true = pd.DataFrame(model.sample_effects(sets, 1, 1000 + seed)[0], sets, GENES)
        query = model.predict_effects(["P0+P1+P2"])  # of a state that no candidate has
        table = reverse(model, query, n_draws=200, seed=seed).set_index("perturbation")
        ranks = true_ranks(true, query.iloc[0], GENES[:12])[table.index]
        held.append(ranks.between(table["rank_low"], table["rank_high"]).mean())
        best.append(table["best_probability"][ranks.idxmin()])
    assert 0.87 < np.mean(held) < 0.97
    # a calibrated probability is as high in the mean as the squared ones that it is drawn by
    assert np.mean(best) == pytest.approx((table["best_probability"] ** 2).sum(), abs=0.12)


def test_draws_need_a_posterior():
    model = FakeModel()
    with pytest.raises(ValueError, match="FakeModel has no posterior"):
        reverse(model, truth(model, ["P0"]), n_draws=10)
    with pytest.raises(ValueError, match="n_draws=-1"):
        reverse(model, truth(model, ["P0"]), n_draws=-1)
