"""What adapters do by themselves; the tools are asked where they are installed."""

import gzip
import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raptorgraph.baselines.peers import cpa_adapter, gears_adapter


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    labels = ["control"] * 20 + ["A"] * 6 + ["A+B"] * 4
    obs = pd.DataFrame({"perturbation": labels, "library": rng.uniform(50, 90, 30)}, index=[f"c{i}" for i in range(30)])
    X = rng.poisson(2.0, size=(30, 5)).astype(np.float32)
    return ad.AnnData(X, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(5)]))


# -- GEARS -----------------------------------------------------------------------------------------------------------
def test_cells_as_gears_reads_them(cells):
    condition = {label: gears_adapter.condition_of(label) for label in ("control", "A", "A+B")}
    assert condition == {"control": "ctrl", "A": "A+ctrl", "A+B": "A+B"}
    adata = gears_adapter.prepared(cells, condition)
    assert adata.obs["condition"].value_counts().to_dict() == {"ctrl": 20, "A+ctrl": 6, "A+B": 4}
    assert adata.var["gene_name"].tolist() == list(cells.var_names)
    np.testing.assert_array_equal(adata.X.toarray(), cells.X)
    assert list(cells.obs) == ["perturbation", "library"]


def test_terms_and_nodes(tmp_path):
    terms = {"A": ["t1", "t2"], "g0": ["t1"], "other": ["t3"], "none": []}
    (tmp_path / "terms.json").write_text(json.dumps(terms))
    with gzip.open(tmp_path / "terms.json.gz", "wt") as file:
        json.dump(terms, file)
    for name in ("terms.json", "terms.json.gz"):
        assert gears_adapter.read_terms(tmp_path / name) == terms
    nodes = gears_adapter.nodes_of(terms, ["A", "B", "none"], ["g0", "g1", "none"])
    assert nodes == {"A": {"t1", "t2"}, "g0": {"t1"}, "B": {"self:B"}, "none": {"self:none"}}


@pytest.mark.parametrize("k", [1, 3, 20])
def test_the_graph_of_genes_with_common_terms(k):
    rng = np.random.default_rng(1)
    names = [f"g{i}" for i in range(12)]
    terms = {name: {f"t{j}" for j in np.flatnonzero(rng.random(15) < 0.3)} | {"t0"} for name in names}
    weight = {}
    for target in names:
        similar = {source: len(terms[source] & terms[target]) / len(terms[source] | terms[target]) for source in names}
        best = sorted(similar.values(), reverse=True)[: k + 1]
        weight[target] = [value for value in best if value > 0.1]
    (sources, targets), found = gears_adapter.go_graph(names, terms, k)
    for i, target in enumerate(names):
        np.testing.assert_allclose(sorted(found[targets == i], reverse=True), weight[target])
        assert (i, 1.0) in zip(sources[targets == i], found[targets == i], strict=True)  # itself
    for source, target, value in zip(sources, targets, found, strict=True):
        a, b = terms[names[source]], terms[names[target]]
        assert value == pytest.approx(len(a & b) / len(a | b))
    assert len(set(zip(sources, targets, strict=True))) == len(found)


def test_genes_without_common_terms_are_alone():
    (sources, targets), weights = gears_adapter.go_graph(["A", "B"], {"A": {"self:A"}, "B": {"self:B"}})
    assert (sources.tolist(), targets.tolist(), weights.tolist()) == ([0, 1], [0, 1], [1, 1])


# -- CPA -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n_basal", [8, 50])
def test_control_cells_stand_for_the_asked(cells, n_basal):
    rng = np.random.default_rng(0)
    adata, library = cpa_adapter.with_basal_cells(cells, ["A+C", "control"], n_basal, rng)
    basal = adata.obs["split"] == "ood"
    assert adata.obs["perturbation"][basal].tolist() == ["A+C"] * n_basal + ["control"] * n_basal
    assert set(adata.obs["split"][~basal]) == {"train", "valid"}
    np.testing.assert_array_equal(adata.X[: cells.n_obs], cells.X)
    rows = {(*x, size) for x, size in zip(cells.X[:20].tolist(), cells.obs["library"][:20], strict=True)}
    drawn = [(*x, size) for x, size in zip(adata.X[basal.to_numpy()].tolist(), library, strict=True)]
    assert set(drawn) <= rows
    assert len(set(drawn[:n_basal])) == (n_basal if n_basal <= 20 else len(set(drawn[:n_basal])))


def test_effects_and_cells_of_predicted_counts():
    rng = np.random.default_rng(0)
    n, labels = 4000, np.repeat(["A", "control"], 4000)
    library = rng.uniform(500, 900, 2 * n)
    rate = np.array([[4e-3, 1e-3, 0.0], [2e-3, 1e-3, 0.0]])
    mean = library[:, None] * np.repeat(rate, n, axis=0)
    genes = pd.Index(["x", "y", "z"])
    effects = cpa_adapter.effects_of(mean, library, labels, genes)
    assert list(effects.index) == ["A"]
    np.testing.assert_allclose(effects.loc["A"], np.log1p(1e4 * rate[0]) - np.log1p(1e4 * rate[1]))
    found = cpa_adapter.drawn(mean, library, labels, genes, rng)
    counts = np.expm1(found.X.toarray()) * library[:, None] / 1e4
    np.testing.assert_allclose(counts, counts.round(), atol=1e-3)
    for label, expected in zip(("A", "control"), rate, strict=True):
        of = (found.obs["perturbation"] == label).to_numpy()
        sums = counts[of].sum(axis=0)
        # a sum of Poisson counts: within four of its standard deviations
        assert (np.abs(sums - expected * library[of].sum()) <= 4 * np.sqrt(expected * library[of].sum())).all()
    assert list(found.var_names) == list(genes)
