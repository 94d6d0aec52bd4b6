"""What a setup warns of names the offenders and what follows; the line that it gives mends it."""

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import raptorgraph as rg

GENES = ["KLF1", "BAK1", "SPI1", "ACTB", "HLA_A", "GATA1"]
LABELS = ["control", "control", "KLF1", "BAK1", "SPI1", "KLF1+BAK1"]


def screen(labels=LABELS, genes=GENES, repeats=2, var=None, **obs):
    obs = {key: np.repeat(values, repeats) for key, values in {"perturbation": labels, **obs}.items()}
    n = repeats * len(labels)
    cells = pd.DataFrame(obs, index=[f"cell{i}" for i in range(n)])
    X = np.random.default_rng(0).poisson(3.0, (n, len(genes))).astype(np.float32)
    return ad.AnnData(X, obs=cells, var=pd.DataFrame(var, index=list(genes)))


def warned(function, *args, **kwargs):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        function(*args, **kwargs)
    return [str(one.message) for one in found if issubclass(one.category, UserWarning)]


def setup(adata, **kwargs):
    return warned(rg.RaptorGraphModel.setup_anndata, adata, **kwargs)


def test_guides_are_pointed_out_and_collapsed():
    labels = ["control", "control", "KLF1_1", "KLF1|g2", "sgBAK1-3", "KLF1_1+SPI1", "HLA-B"]
    adata = screen(labels)
    (message,) = setup(adata.copy())
    assert "'KLF1_1' of 'KLF1'" in message
    assert "'sgBAK1-3' of 'BAK1'" in message
    assert "(3 of 5)" in message
    assert "HLA-B" not in message
    with pytest.warns(UserWarning, match="look like guides"):
        report = rg.pp.perturbation_report(adata)
    assert report.loc["KLF1|g2", "suggestions"] == "KLF1|g2 -> KLF1"
    assert "look like guides" in rg.pp.suggest_setup(adata).loc["perturbation_key", "reason"]
    call = "raptorgraph." + message.split("raptorgraph.")[1].split(" writes")[0]
    exec(call, {"raptorgraph": rg, "adata": adata})
    expected = np.repeat(["control", "control", "KLF1", "KLF1", "BAK1", "KLF1+SPI1", "HLA-B"], 2)
    assert adata.obs["perturbation"].tolist() == expected.tolist()
    assert setup(adata) == []


def test_doses_are_pointed_out_and_merged():
    adata = screen(["DMSO", "DMSO", "JQ1 (1uM)", "JQ1 (10uM)", "KLF1"])
    (message,) = setup(adata.copy(), control="DMSO")
    assert "'JQ1 (10uM)' of 'JQ1'" in message
    assert "knows no doses" in message
    call = "raptorgraph." + message.split("raptorgraph.")[1].split(" writes")[0]
    exec(call, {"raptorgraph": rg, "adata": adata})
    assert list(adata.obs["perturbation"].cat.categories) == ["DMSO", "JQ1", "KLF1"]


def test_numbered_controls_collapse_to_the_control():
    adata = screen(["NT", "NT_1", "NT_2+KLF1_1", "BAK1"])
    rg.pp.tidy_labels(adata, control="NT", collapse=True)
    assert adata.obs["perturbation"].tolist() == np.repeat(["NT", "NT", "KLF1", "BAK1"], 2).tolist()


def test_every_spelling_of_unknown_cells_is_dropped():
    labels = ["control", "control", "KLF1", " unassigned", "unassigned+BAK1", *(f"doublet{'s' * i}" for i in (0, 1))]
    (message,) = setup(adata := screen(labels))
    names = {"adata": adata}
    exec("adata = adata" + message.split(": adata = adata")[1], names)
    assert set(names["adata"].obs["perturbation"]) == {"control", "KLF1"}
    assert setup(names["adata"]) == []


CONTROLS = [
    np.array(["control", "NT"]), pd.Index(["control", "NT"]), pd.Series(["control", "NT"], index=[5, 7]),
    ("control ", "NT"), {"NT", "control"}, frozenset({"NT", "control"}), np.str_("control"),
]  # fmt: skip


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: type(control).__name__)
def test_lines_hold_controls_of_whatever_collection(control):
    adata = screen(["control", "control", "KLF1_1", "BAK1"])
    (message,) = setup(adata.copy(), control=control)
    call = "raptorgraph." + message.split("raptorgraph.")[1].split(" writes")[0]
    exec(call, {"raptorgraph": rg, "adata": adata})
    assert set(adata.obs["perturbation"]) <= {"control", "NT", "KLF1", "BAK1"}
    assert setup(adata, control=control) == []
    kept = rg.RaptorGraphModel(adata).setup_args["control"]
    assert type(kept) is (str if isinstance(control, str) else list)
    assert all(type(name) is str for name in kept)
    # the first of a set is always the same
    assert kept == ("control" if isinstance(control, str) else sorted(control) if isinstance(control, (set, frozenset))
                    else ["control", "NT"])  # fmt: skip
    assert rg.baselines.Additive(control=control).setup_args["control"] == kept


def test_a_query_without_labels_of_a_model_with_a_set_of_controls():
    adata = screen(repeats=10)
    rg.RaptorGraphModel.setup_anndata(adata, control={"control", "NT"})
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    model.is_trained_ = True
    query = screen(repeats=2)
    del query.obs["perturbation"]
    np.testing.assert_allclose(
        model.get_latent_representation(query), model.get_latent_representation(screen(repeats=2)), rtol=1e-5
    )


@pytest.mark.parametrize("label", ["unassigned", "Unassigned", "multiplet", "unknown", "no_guide"])
def test_cells_whose_perturbation_is_not_known(label):
    adata = screen(["control", "control", "KLF1", label])
    (message,) = setup(adata.copy())
    assert f"{label!r} will be taken as perturbed genes" in message
    names = {"adata": adata}
    exec("adata = adata" + message.split(": adata = adata")[1], names)
    assert names["adata"].n_obs == 6


# -- batches -------------------------------------------------------------------------------------------------------
def test_batches_without_controls_are_named():
    adata = screen(batch=["a", "b", "a", "b", "c", "d"], repeats=3)
    for found in (setup(adata.copy(), batch_key="batch"), warned(rg.pp.measured_effects, adata, batch_key="batch")):
        (message,) = found
        assert "2 of 4 batches have no control cells, 'c', 'd'. Their 6 cells ('BAK1+KLF1', 'SPI1')" in message
        assert "control cells of all batches" in message
    # which is what happens: the effect is the difference to the mean of all controls
    effects = rg.pp.measured_effects
    with warnings.catch_warnings(action="ignore"):
        by_batch = effects(adata, batch_key="batch")
    np.testing.assert_allclose(by_batch.loc["SPI1"], effects(adata).loc["SPI1"])
    assert setup(screen(batch=["a", "b", "a", "b", "a", "b"]), batch_key="batch") == []


@pytest.mark.parametrize("batch", [["x", "x", "1", "2", "3", "4"], LABELS, ["w", "x", "1", "2", "3", "4"]])
def test_a_batch_that_is_the_perturbation(batch):
    (message,) = setup(screen(batch=batch, repeats=3), batch_key="batch")
    assert "each has one condition alone" in message
    assert "it is the perturbation" in message
    (message,) = setup(screen(plate=batch, repeats=3), categorical_covariate_keys=["plate"])
    assert "obs['plate']" in message
    assert "it is the perturbation" in message


def test_controls_apart_and_conditions_with_controls_of_their_own():
    (message,) = setup(screen(batch=["x", "x", "y", "y", "y", "y"]), batch_key="batch")
    assert "with controls in 'x' alone" in message
    # every perturbation in a batch of its own, with controls there: effects can be told from batches
    labels = ["control", "KLF1", "control", "BAK1", "control", "SPI1"]
    adata = screen(labels, batch=list("aabbcc"), plate=list("aabbcc"))
    assert setup(adata, batch_key="batch", categorical_covariate_keys=["plate"]) == []


def test_text_for_a_missing_batch():
    (message,) = setup(screen(batch=["nan", "a", "a", "nan", "a", "a"]), batch_key="batch")
    assert "obs['batch'] is 'nan' in 4 cells" in message
    adata = screen(batch=["a", None, "a", "a", "a", "a"])
    with pytest.raises(ValueError, match="missing for 2 cells"):
        rg.RaptorGraphModel.setup_anndata(adata, batch_key="batch")


# -- delimiters ----------------------------------------------------------------------------------------------------
def test_a_delimiter_that_cuts_genes():
    labels = ["control", "control", "KLF1", "HLA_A", "HLA_A_KLF1", "BAK1_KLF1"]
    (message,) = setup(screen(labels), delimiter="_")
    assert "delimiter='_' cuts 'HLA_A', which is in var_names" in message
    assert warned(rg.pp.measured_effects, screen(labels), delimiter="_") == [message]
    assert warned(rg.pp.perturbation_report, screen(labels), delimiter="_") == [message]
    assert setup(screen(["control", "control", "KLF1", "HLA_A"]), delimiter="+") == []
    assert setup(screen(["control", "control", "KLF1", "BAK1", "BAK1_KLF1"]), delimiter="_") == []


def test_a_delimiter_that_cuts_numbers_off():
    adata = screen(["control", "control", "KLF1_1", "KLF1_2", "BAK1_1", "KLF1_2_BAK1_1"])
    (message,) = setup(adata.copy(), delimiter="_")
    assert "cuts numbers off" in message
    assert "'1'" in message
    exec(message.split("take them away: ")[1], {"adata": adata})
    assert set(adata.obs["perturbation"]) == {"control", "KLF1", "BAK1", "KLF1_BAK1"}
    assert setup(adata, delimiter="_") == []


@pytest.mark.parametrize("dtype", [object, "category", "string[pyarrow]"])
def test_doses_and_strands_that_a_delimiter_cuts_off(dtype):
    if dtype == "string[pyarrow]":
        pytest.importorskip("pyarrow", exc_type=ImportError)
    adata = screen(["control", "control", "KLF1_10nM", "BAK1_0.5uM", "KLF1_24h_BAK1_3", "SPI1"])
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(dtype)
    (message,) = setup(adata.copy(), delimiter="_")
    exec(message.split("take them away: ")[1], {"adata": adata})
    assert set(adata.obs["perturbation"]) == {"control", "KLF1", "BAK1", "KLF1_BAK1", "SPI1"}
    assert setup(adata, delimiter="_") == []

    adata = screen(["control", "control", "KLF1_+_12997999.23-P1P2", "BAK1_+_33580000.2-P1", "SPI1"])
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(dtype)
    (message,) = setup(adata.copy())
    assert "at the strand" in message
    exec(message.split("Write the genes alone: ")[1], {"adata": adata})
    assert set(adata.obs["perturbation"]) == {"control", "KLF1", "BAK1", "SPI1"}
    assert setup(adata) == []


@pytest.mark.parametrize(("label", "delimiter"), [("NKX2-1", "-"), ("NKX2_1", "_"), ("NKX2_1_KLF1", "_")])
def test_genes_that_end_in_a_number_do_not_lose_it(label, delimiter):
    (message,) = setup(screen(["control", "control", "KLF1", label], genes=[*GENES, "NKX2-1"]), delimiter=delimiter)
    assert "cuts 'NKX2-1'" in message
    assert "numbers" not in message


def test_two_genes_are_no_cut_gene():
    # their readthrough is measured, too, and numbers of guides are not those that made names unique
    genes = [*GENES, "KLF1-BAK1", "KLF1-1"]
    assert setup(screen(["control", "control", "KLF1_BAK1", "BAK1"], genes=genes), delimiter="_") == []
    (message,) = setup(screen(["control", "control", "KLF1_1", "BAK1"], genes=genes), delimiter="_")
    assert "cuts numbers off" in message


def test_guides_of_several_genes_in_one_label():
    labels = ["control", "control", "KLF1_g1:BAK1_g2", "BAK1_g1:SPI1_g1", "GATA9_g1:KLF1_g1"]
    (message,) = setup(adata := screen(labels))
    assert message.endswith("each would be a perturbed gene of its own: use delimiter=':'.")
    (message,) = setup(adata, delimiter=":")
    call = "raptorgraph." + message.split("raptorgraph.")[1].split(" writes")[0]
    exec(call, {"raptorgraph": rg, "adata": adata})
    assert set(adata.obs["perturbation"]) == {"control", "BAK1:KLF1", "BAK1:SPI1", "GATA9:KLF1"}
    assert setup(adata, delimiter=":") == []


def test_a_delimiter_that_leaves_nothing_between():
    labels = ["NegCtrl0_NegCtrl0__NegCtrl0_NegCtrl0", "KLF1_NegCtrl0__KLF1_NegCtrl0", "KLF1_BAK1__KLF1_BAK1"]
    with pytest.raises(ValueError, match="nothing between two delimiters '_'.*another delimiter") as error:
        rg.RaptorGraphModel.setup_anndata(screen(labels), control="NegCtrl0", delimiter="_")
    assert "drop" not in str(error.value)


def test_warnings_come_before_any_change():
    adata = screen(["control", "control", "KLF1_1", "BAK1"], genes=[f" {gene}" for gene in GENES])
    before = adata.copy()
    with warnings.catch_warnings(action="error"), pytest.raises(UserWarning, match="look like guides"):
        rg.RaptorGraphModel.setup_anndata(adata)
    assert list(adata.var_names) == list(before.var_names)
    assert list(adata.obs) == list(before.obs)
    assert not adata.uns
    assert not adata.obsm


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("papalexi2021_eccite.h5ad", {"batch_key": "bio_rep"}),
        ("norman2019_devel.h5ad", {}),
        ("carpool_semireal.h5ad", {"library_size_key": "total_counts"}),
    ],
)
def test_real_screens_give_no_warning(shared_data, file, arguments):
    adata = ad.read_h5ad(shared_data / file)
    adata = adata[:, ~rg.pp.guide_features(adata)].copy()  # in carpool 240 of 2,000
    with warnings.catch_warnings(action="error", category=UserWarning):
        assert rg.pp.perturbation_report(adata).attrs["hints"] == []
        rg.RaptorGraphModel.setup_anndata(adata, **arguments)


def test_perturbed_genes_that_are_named_like_controls_are_pointed_out():
    (message,) = setup(screen(["control", "KLF1", "NT", "BAK1"]))
    assert message.startswith("NT will be taken as perturbed genes")
