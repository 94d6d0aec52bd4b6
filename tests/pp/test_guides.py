import inspect
from dataclasses import fields

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from raptorgraph.pp import assign_guides, parse_perturbation
from raptorgraph.pp._guide_counts import GuideSettings

GUIDES = {"A_1": "A", "A_2": "A", "B_1": "B", "C_1": "C", "NT_1": "non-targeting", "NT_2": "non-targeting"}
# A_1 A_2 B_1 C_1 NT_1 NT_2
COUNTS = np.array(
    [
        [30, 0, 0, 0, 0, 1],  # A
        [30, 20, 0, 0, 0, 0],  # two guides of A
        [9, 0, 40, 0, 0, 0],  # A and B
        [0, 0, 0, 0, 12, 8],  # control
        [0, 0, 8, 0, 30, 0],  # B and a guide that does nothing
        [20, 0, 30, 10, 0, 0],  # three genes
        [2, 0, 1, 0, 0, 0],  # too little
        [0, 0, 6, 300, 0, 0],  # C, and B below the share
    ]
)
LABELS = ["A", "A", "A+B", "control", "B", None, None, "C"]


def screen(counts=COUNTS):
    names = [f"cell{i}" for i in range(len(counts))]
    adata = ad.AnnData(np.ones((len(counts), 3), np.float32), obs=pd.DataFrame(index=names))
    adata.obsm["guides"] = pd.DataFrame(counts, index=names, columns=list(GUIDES))
    return adata


def mudata(counts=COUNTS, **guides):
    adata = screen(counts)
    X = sparse.csr_matrix(adata.obsm.pop("guides").to_numpy(dtype=np.float32))
    var = pd.DataFrame({"target": list(GUIDES.values())}, index=list(GUIDES))
    return md.MuData({"rna": adata, "crispr": ad.AnnData(X, obs=adata.obs[[]].copy(), var=var, **guides)})


def labels(adata):
    column = adata.obs["perturbation"]
    return column.astype(object).where(column.notna(), None).tolist()


def test_genes_of_the_guides_are_the_perturbation():
    adata = screen()
    report = assign_guides(adata, "guides", GUIDES)
    assert labels(adata) == LABELS
    assert adata.obs["perturbation"].cat.categories.tolist() == ["control", "A", "A+B", "B", "C"]
    assert adata.obs["perturbation_guides"].tolist()[:5] == ["A_1", "A_1|A_2", "A_1|B_1", "NT_1|NT_2", "B_1|NT_1"]
    assert report.outcomes["n_cells"].to_dict() == {
        "control": 1, "1 gene": 4, "2 genes": 1, "no guide": 1, "too many genes": 1,
    }  # fmt: skip
    assert report.outcomes["share"].sum() == pytest.approx(1)
    assert report.outcomes["action"].tolist() == ["labeled"] * 3 + ["no label"] * 2
    assert report.guides["target"].tolist() == ["A", "A", "B", "C", "control", "control"]
    assert report.guides["n_cells"].tolist() == [4, 1, 3, 2, 2, 1]
    assert report.guides["n_alone"].tolist() == [1, 0, 0, 1, 0, 0]
    assert adata.uns["raptorgraph_guides"] == {
        "key": "perturbation", "method": "threshold", "max_genes": 2, "min_counts": 5, "min_fraction": 0.05,
    }  # fmt: skip


def test_thresholds_are_those_of_their_definition():
    rng = np.random.default_rng(0)
    counts = rng.negative_binomial(0.2, 0.03, size=(300, 6))
    for min_counts, min_fraction in [(1, 0.0), (5, 0.05), (3, 0.4)]:
        adata = screen(counts)
        assign_guides(adata, "guides", GUIDES, min_counts=min_counts, min_fraction=min_fraction, max_genes=3)
        total = counts.sum(1, keepdims=True)
        for i, row in enumerate((counts >= min_counts) & (counts >= min_fraction * total)):
            genes = {GUIDES[name] for name, carried in zip(GUIDES, row, strict=True) if carried} - {"non-targeting"}
            assert labels(adata)[i] == (("+".join(sorted(genes)) or "control") if row.any() else None)


@pytest.mark.parametrize(
    ("no_guide", "too_many", "expected"),
    [
        ("drop", "drop", ["A", "A", "A+B", "control", "B", "C"]),
        ("control", "top", ["A", "A", "A+B", "control", "B", "A+B", "control", "C"]),
        ("drop", None, ["A", "A", "A+B", "control", "B", None, "C"]),
    ],
)
def test_cells_without_and_with_too_many_guides_follow_the_choice(no_guide, too_many, expected):
    adata, mdata = screen(), mudata()
    report = assign_guides(adata, "guides", GUIDES, no_guide=no_guide, too_many=too_many)
    again = assign_guides(mdata, "crispr", expression="rna", no_guide=no_guide, too_many=too_many)
    assert labels(adata) == labels(mdata["rna"]) == expected
    assert report.outcomes["n_cells"].sum() == 8  # those that were dropped, too
    pd.testing.assert_frame_equal(report.outcomes, again.outcomes)
    assert mdata.n_obs == mdata["crispr"].n_obs == len(expected)
    assert list(mdata.obs_names) == list(mdata["rna"].obs_names) == list(adata.obs_names)


def test_top_guides_stop_before_there_are_too_many_genes():
    counts = np.array([[9, 8, 7, 6, 40, 0], [5, 0, 9, 7, 0, 0], [0, 0, 0, 0, 9, 0]])
    for max_genes, expected in [(1, ["A", "B", "control"]), (2, ["A+B", "B+C", "control"]), (3, ["A+B+C"] * 2)]:
        adata = screen(counts)
        assign_guides(adata, "guides", GUIDES, max_genes=max_genes, too_many="top")
        assert labels(adata)[: len(expected)] == expected
    adata = screen(counts)
    assign_guides(adata, "guides", GUIDES, max_genes=1, too_many="top")
    assert adata.obs["perturbation_guides"].tolist() == ["A_1|A_2|NT_1", "B_1", "NT_1"]


def test_forms_of_counts_and_targets_agree():
    table = screen()
    assign_guides(table, "guides", pd.Series(GUIDES))
    array = screen()
    array.obsm["guides"] = sparse.csr_matrix(COUNTS)
    array.uns["names"], array.uns["genes"] = np.array(list(GUIDES)), np.array(list(GUIDES.values()))
    assign_guides(array, "guides", "genes", guide_names="names")
    given = screen()
    given.obsm["guides"] = COUNTS.astype(float)
    assign_guides(given, "guides", GUIDES, guide_names=list(GUIDES))
    layer = mudata(layers={"umis": COUNTS})
    layer["crispr"].X = sparse.csr_matrix(np.zeros(COUNTS.shape))
    assign_guides(layer, "crispr", expression="rna", layer="umis")
    assert labels(table) == labels(array) == labels(given) == labels(layer["rna"]) == LABELS


def test_assignments_and_calls():
    carried = (COUNTS >= 5) & (0.05 * COUNTS.sum(1, keepdims=True) <= COUNTS)
    binary = screen(carried.astype(int))
    with pytest.raises(ValueError, match="method='assigned'"):
        assign_guides(binary, "guides", GUIDES)
    report = assign_guides(binary, "guides", GUIDES, method="assigned")
    assert report.guides["threshold"].isna().all()
    called = screen()
    names = np.array(list(GUIDES))
    called.obs["feature_call"] = ["|".join(names[row]) if row.any() else np.nan for row in carried]
    assign_guides(called, targets=GUIDES, calls="feature_call")
    inside = mudata()
    inside["crispr"].obs["calls"] = [" ; ".join(names[row]) for row in carried]
    assign_guides(inside, "crispr", expression="rna", calls="calls", calls_delimiter=";")
    assert labels(binary) == labels(called) == labels(inside["rna"]) == LABELS
    with pytest.raises(ValueError, match="too_many='top'"):
        assign_guides(binary, "guides", GUIDES, method="assigned", too_many="top")


def test_modalities_are_matched_by_the_names_of_cells():
    mdata = mudata()
    guides = mdata["crispr"][["cell4", "cell2", "cell0"]].copy()
    guides.obs_names = ["cell4", "cell2", "elsewhere"]
    mdata = md.MuData({"rna": mdata["rna"], "crispr": guides})
    report = assign_guides(mdata, "crispr", expression="rna")
    assert labels(mdata["rna"]) == [None, None, "A+B", None, "B", None, None, None]
    assert report.outcomes.loc["no guide", "n_cells"] == 6
    assign_guides(mdata, "crispr", expression="rna", no_guide="drop")
    assert list(mdata["rna"].obs_names) == ["cell2", "cell4"]
    assert list(mdata["crispr"].obs_names) == ["cell4", "cell2", "elsewhere"]
    guides.obs_names = ["x", "y", "z"]
    with pytest.raises(ValueError, match="No cell is in both"):
        assign_guides(md.MuData({"rna": mdata["rna"], "crispr": guides}), "crispr", expression="rna")


def test_guides_of_several_genes_and_other_spellings():
    targets = {**GUIDES, "A_2": "A;B", "NT_1": "ctrl", "NT_2": "safe"}
    adata = screen()
    arguments = {"delimiter": ";", "control": "ctrl", "non_targeting": ["safe", "non-targeting"]}
    assign_guides(adata, "guides", targets, **arguments)
    assert labels(adata) == ["A", "A;B", "A;B", "ctrl", "B", None, None, "C"]
    assert parse_perturbation("A;B", delimiter=";") == ("A", "B")
    with pytest.raises(ValueError, match="'A_2' alone has 2 genes"):
        assign_guides(adata, "guides", targets, max_genes=1, **arguments)
    with pytest.warns(UserWarning, match="safe will be taken .* non_targeting"):
        assign_guides(adata, "guides", targets, delimiter=";", control="ctrl")


def test_a_mixture_finds_the_threshold_of_each_guide():
    rng = np.random.default_rng(0)
    n = 400
    counts = rng.poisson(4.0, size=(n, 6))  # ambient
    own = np.arange(n) % 6
    counts[np.arange(n), own] = rng.poisson(120.0, size=n)
    counts[:, 3] = 0
    adata = screen(counts)
    report = assign_guides(adata, "guides", GUIDES, method="mixture", min_counts=1, min_fraction=0)
    truth = np.array(list(GUIDES.values()))[own]
    clear = own != 3
    assert (np.array(labels(adata))[clear] == np.where(truth == "non-targeting", "control", truth)[clear]).all()
    assert report.guides["threshold"].drop("C_1").between(12, 100).all()
    assert report.guides.loc["C_1", "threshold"] == 1
    counts[:, 0] = 50  # one component: every count is alike
    assert assign_guides(screen(counts), "guides", GUIDES, method="mixture").guides.loc["A_1", "threshold"] == 5


def test_labels_of_the_user_are_kept_and_its_own_replaced():
    adata = screen()
    adata.obs["perturbation"] = "mine"
    with pytest.raises(ValueError, match="is there already"):
        assign_guides(adata, "guides", GUIDES)
    assert (adata.obs["perturbation"] == "mine").all()
    assert "perturbation_guides" not in adata.obs
    assign_guides(adata, "guides", GUIDES, key_added="called")
    first = adata.obs["called"].copy()
    assign_guides(adata, "guides", GUIDES, key_added="called", min_counts=20)
    assert not first.equals(adata.obs["called"])
    assign_guides(adata, "guides", GUIDES, key_added="called")
    pd.testing.assert_series_equal(first, adata.obs["called"])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"guides": "grna"}, KeyError, "grna.*guides"),
        ({"guides": None}, ValueError, "Name the key of obsm"),
        ({"targets": "target"}, KeyError, "uns"),
        ({"targets": {"A_1": "A"}}, ValueError, "5 of 6 guides have no target: A_2"),
        ({"targets": dict(GUIDES, NT_1="NT", NT_2="NT")}, ValueError, r"non_targeting=\['NT'\]"),
        ({"targets": pd.concat([pd.Series(GUIDES), pd.Series({"A_1": "B"})])}, ValueError, "twice.*A_1"),
        ({"method": "best"}, ValueError, "'best' is unknown"),
        ({"min_counts": 0}, ValueError, "min_counts=0"),
        ({"max_genes": 1.5}, TypeError, "max_genes=1.5"),
        ({"min_fraction": 2}, ValueError, "min_fraction=2"),
        ({"no_guide": "ignore"}, ValueError, "no_guide='ignore'"),
        ({"too_many": "control"}, ValueError, "too_many='control'"),
        ({"expression": "rna"}, ValueError, "is an AnnData"),
        ({"layer": "umis"}, ValueError, "layer"),
        ({"calls": "missing"}, KeyError, "calls='missing'"),
        ({"guide_names": ["A", "B"]}, ValueError, "2 guide_names"),
        ({"guide_names": ["A"] * 6}, ValueError, "not unique"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_written(arguments, error, words):
    adata = screen()
    with pytest.raises(error, match=words):
        assign_guides(adata, **{"guides": "guides", "targets": GUIDES, **arguments})
    assert list(adata.obs) == []
    assert not adata.uns


def test_wrong_data_are_named():
    adata = screen()
    with pytest.raises(ValueError, match="copy"):
        assign_guides(adata[:3], "guides", GUIDES)
    with pytest.raises(TypeError, match="DataFrame"):
        assign_guides(adata.obs, "guides", GUIDES)
    adata.obsm["guides"] = adata.obsm["guides"] + 0.5
    with pytest.raises(ValueError, match="whole numbers"):
        assign_guides(adata, "guides", GUIDES)
    mdata = mudata()
    with pytest.raises(ValueError, match="two modalities"):
        assign_guides(mdata, "crispr")
    with pytest.raises(ValueError, match="same modality"):
        assign_guides(mdata, "rna", expression="rna")
    with pytest.raises(KeyError, match="gdo.*rna.*crispr"):
        assign_guides(mdata, "gdo", expression="rna")
    with pytest.raises(KeyError, match=r"targets='gene'.*\['target'\]"):
        assign_guides(mdata, "crispr", "gene", expression="rna")
    with pytest.raises(ValueError, match="copy"):
        assign_guides(mdata[:3], "crispr", expression="rna")


def test_settings_have_the_documented_defaults():
    public = inspect.signature(assign_guides).parameters
    for field in fields(GuideSettings):
        assert public[field.name].default == field.default


def test_labels_survive_files(tmp_path):
    mdata = mudata()
    assign_guides(mdata, "crispr", expression="rna")
    mdata.write_h5mu(tmp_path / "m.h5mu")
    back = md.read_h5mu(tmp_path / "m.h5mu")
    assert labels(back["rna"]) == LABELS
    assert back["rna"].uns["raptorgraph_guides"]["min_counts"] == 5


def test_papalexi_agrees_with_the_published_guide(shared_data):
    adata = ad.read_h5ad(shared_data / "papalexi2021_eccite.h5ad")
    published = adata.obs["perturbation"].astype(str).to_numpy()
    report = assign_guides(adata, "grna_counts", "grna_targets", guide_names="grna_ids", key_added="called")
    called = adata.obs["called"]
    found = called.astype(object).where(called.notna(), "").to_numpy()
    double = np.char.find(found.astype(str), "+") >= 0
    single = ~double & (found != "")
    assert 1000 < double.sum() < 2000
    assert report.outcomes.loc["too many genes", "n_cells"] == (found == "").sum() < 100
    # The published label is that of the top guide. Beside a non-targeting guide, a second guide decides here.
    differ = single & (found != published)
    assert differ.sum() < 0.01 * single.sum()
    assert (published[differ] == "control").all()
    assert np.mean([p in f.split("+") for p, f in zip(published[double], found[double], strict=True)]) > 0.99
    mixture = assign_guides(
        adata, "grna_counts", "grna_targets", guide_names="grna_ids", key_added="called", method="mixture"
    )
    other = adata.obs["called"].astype(object).where(adata.obs["called"].notna(), "").to_numpy()
    both = (other != "") & (found != "")
    assert both.mean() > 0.85  # its thresholds are higher
    assert (other == found)[both].mean() > 0.97
    assert mixture.guides["threshold"].median() > 8
