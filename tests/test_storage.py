"""The same values give the same answers, whatever the type and the storage of the matrix."""

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scipy import sparse

import raptorgraph as rg
from raptorgraph.pp._pairing import principal_components
from raptorgraph.screen._expression import data_kind, library_sizes, to_expression
from raptorgraph.screen._matrix import as_matrix
from raptorgraph.screen._moments import condition_moments, log_ratio_moments

TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64", "float32", "float64", "longdouble"]
FORMATS = [
    f"{name}_{kind}" for name in ("csr", "csc", "coo", "bsr", "dia", "lil", "dok") for kind in ("matrix", "array")
]
ODD = ["parts", "parts_csc", "unsorted", "zeros", "remembered", "read_only"]


def split_in_parts(values: np.ndarray, make=sparse.csr_matrix):
    """Compressed matrix in which each entry is the sum of two, the smaller last."""
    whole = make(values)
    halves = np.stack([whole.data - whole.data // 3, whole.data // 3], axis=1).astype(values.dtype).ravel()
    return make((halves, np.repeat(whole.indices, 2), whole.indptr * 2), shape=values.shape)


def store(values: np.ndarray, how: str):
    """Sparse matrix of these values, stored in one of the ways that scipy allows."""
    if how in FORMATS:
        return getattr(sparse, how)(values)
    if how == "parts":
        return split_in_parts(values)
    if how == "parts_csc":
        return split_in_parts(values, sparse.csc_matrix)
    X = sparse.csr_matrix(values)
    if how == "unsorted":
        rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
        order = np.lexsort((-X.indices, rows))
        X = sparse.csr_matrix((X.data[order], X.indices[order], X.indptr), shape=X.shape)
    elif how == "zeros":
        full = np.arange(values.shape[1])
        X = sparse.csr_matrix(
            (values.ravel(), np.tile(full, len(values)), np.arange(len(values) + 1) * full.size), shape=values.shape
        )
    elif how == "remembered":  # scipy looked at the matrix before its arrays were replaced
        X = sparse.csr_matrix(values + values.dtype.type(1))
        assert X.has_canonical_format
        parts = split_in_parts(values)
        X.data, X.indices, X.indptr = parts.data, parts.indices, parts.indptr
        assert X.has_canonical_format
    elif how == "read_only":
        for part in (X.data, X.indices, X.indptr):
            part.setflags(write=False)
    return X


def stored(X) -> list:
    """Copy of all that a sparse matrix or an array holds."""
    if not sparse.issparse(X):
        return [np.array(X)]
    X = X if hasattr(X, "data") and X.format != "dok" else X.tocoo()
    return [np.array(getattr(X, name)) for name in ("data", "indices", "indptr", "row", "col") if hasattr(X, name)]


def screen(X) -> ad.AnnData:
    labels = np.repeat(["control", "G0", "G1", "G0+G1"], [20, 15, 15, 10])
    obs = pd.DataFrame({"perturbation": labels}, index=[f"cell{i}" for i in range(60)])
    return ad.AnnData(X, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(30)]))


@pytest.fixture(scope="module")
def counts():
    """60 cells x 30 genes up to 120: squares exceed 8 bits, and row sums too."""
    counts = np.random.default_rng(0).negative_binomial(0.8, 0.05, size=(60, 30)).clip(max=120)
    counts[20:35, 5] += 7
    counts[:, 0] += 1
    return counts.astype(np.float64)


def measured(adata: ad.AnnData) -> dict[str, np.ndarray]:
    """All that is computed from the cells up to the start of the training."""
    X, before, codes = adata.X, stored(adata.X), np.repeat(np.arange(4), [20, 15, 15, 10])
    found = {
        "library": library_sizes(X),
        "expression": dense(to_expression(X, library_sizes(X))),
        "effects": rg.pp.measured_effects(adata).to_numpy(),
        "components": principal_components(X, 3, library=library_sizes(X)),
    }
    moments = {
        "moments": condition_moments(X, codes, 4, library=library_sizes(X)),
        "counts": condition_moments(X, codes, 4),
        "log_ratios": log_ratio_moments(X, codes, 4, library=library_sizes(X)),
    }
    found |= {f"{name}, {key}": value for name, of in moments.items() for key, value in vars(of).items()}
    for flavor in ("seurat", "seurat_v3"):
        chosen = adata.copy()
        rg.pp.select_genes(chosen, 10, flavor=flavor, subset=False)
        found[flavor] = chosen.var["highly_variable"].to_numpy()
    paired = adata.copy()
    rg.pp.pair_cells(paired, n_comps=3)
    found["pairs"] = paired.obsp["raptorgraph_pairing"].toarray()
    rg.RaptorGraphModel.setup_anndata(paired)
    module = rg.RaptorGraphModel(paired, n_hidden=4).module
    found |= {name: getattr(module, name).detach().numpy() for name in ("center", "spread")}
    found["log_scale"] = module.distribution.log_scale.detach().numpy()
    found["base"] = module.decoder.base.detach().numpy()
    for part, same in zip(stored(adata.X), before, strict=True):
        np.testing.assert_array_equal(part, same)  # the user's matrix is only read
    return found


def dense(X) -> np.ndarray:
    return X.toarray() if sparse.issparse(X) else X


def in_any_type() -> list:
    """Arrays of all types, then every type and storage of a sparse matrix that an AnnData takes."""
    arrays = [(dtype, "C") for dtype in [*TYPES, "float16", ">f4", ">i2"]]
    others = [("float32", "F"), ("uint16", "masked"), ("float64", "read_only_array")]
    plain = [(dtype, "csr_matrix") for dtype in TYPES]
    parts = [(dtype, "parts") for dtype in TYPES]
    odd = [("uint16", how) for how in ("csr_array", "csc_matrix", "csc_array", *ODD)]
    return arrays + others + plain + parts + odd


ARRAYS = {
    "C": np.asarray,
    "F": np.asfortranarray,
    "masked": np.ma.masked_array,
    "read_only_array": lambda values: np.frombuffer(values.tobytes(), values.dtype).reshape(values.shape),
}


@pytest.fixture(scope="module")
def expected(counts):
    """Answers from a plain array, and from a plain sparse matrix, whose arithmetic has another order."""
    return {"array": measured(screen(counts)), "sparse": measured(screen(sparse.csr_matrix(counts)))}


@pytest.mark.parametrize(("dtype", "how"), in_any_type())
def test_the_same_counts_give_the_same_answers(counts, expected, dtype, how):
    values = counts.astype(dtype)
    adata = screen(ARRAYS[how](values) if how in ARRAYS else store(values, how))
    found = measured(adata)
    assert data_kind(adata.X) == "counts"
    for name, value in expected["array"].items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=2e-5, err_msg=name)
    for name, value in expected["array" if how in ARRAYS else "sparse"].items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("how", [*FORMATS, *ODD])
def test_every_sparse_format_is_brought_to_one_form(counts, how):
    X = store(counts.astype(np.uint16), how)
    before = stored(X)
    found = as_matrix(X)
    np.testing.assert_array_equal(found.toarray(), counts)
    again = sparse.csr_matrix((found.data, found.indices, found.indptr), shape=found.shape)
    assert again.has_canonical_format
    assert np.count_nonzero(again.data) == again.nnz == len(found.data)
    assert isinstance(found, sparse.csr_matrix)
    for part, same in zip(stored(X), before, strict=True):
        np.testing.assert_array_equal(part, same)


@pytest.mark.parametrize("dtype", ["uint16", "int32", "uint32", "int64", "float32", "float64"])
def test_large_counts_do_not_wrap_around(dtype):
    """Squares of counts near 60,000 exceed 32 bits; the dispersion starts at its closed form."""
    rng = np.random.default_rng(3)
    counts = rng.integers(40_000, 65_000, size=(60, 30))
    for X in (counts.astype(dtype), sparse.csr_matrix(counts.astype(dtype))):
        adata = screen(X)
        rg.RaptorGraphModel.setup_anndata(adata)
        control = counts[:20].astype(float)
        mean, var = control.mean(0), control.var(0)
        theta = (mean**2 / np.maximum(var - mean, 0.01 * mean**2)).clip(0.2, 50)
        found = rg.RaptorGraphModel(adata, n_hidden=4).module.distribution.log_scale.detach().exp().numpy()
        np.testing.assert_allclose(found, theta, rtol=1e-4)


def test_a_matrix_of_half_precision_logarithms(counts):
    values = np.log1p(counts).astype(np.float16)
    exact = condition_moments(values.astype(np.float64), np.zeros(60, dtype=int), 1)
    found = condition_moments(values, np.zeros(60, dtype=int), 1)
    np.testing.assert_allclose(found.var, exact.var, rtol=1e-6)
    np.testing.assert_array_equal(rg.pp.measured_effects(screen(values)),
                                  rg.pp.measured_effects(screen(values.astype(np.float64))))  # fmt: skip


def test_values_that_cannot_be_read_are_refused_before_a_change(counts):
    X = np.ma.masked_array(counts, mask=counts > 100)
    half = sparse.csr_matrix(counts.astype(np.float32))
    half.data = half.data.astype(np.float16)
    longer = sparse.csr_matrix(counts)
    longer.data, longer.indices = np.append(longer.data, 1.0), np.append(longer.indices, 0)
    for wrong, error, words in [
        (longer, ValueError, r"room for (\d+) entries .*X.prune\(\)"),
        (X, ValueError, rf"{(counts > 100).sum()} values are masked.*filled\(0\)"),
        (half, TypeError, r"float16.*astype\(numpy.float32\)"),
        (counts.astype(complex), TypeError, "complex128"),
    ]:
        adata = screen(counts)
        adata.X = wrong
        with pytest.raises(error, match=words):
            rg.RaptorGraphModel.setup_anndata(adata)
        assert list(adata.obs) == ["perturbation"]
        assert not adata.obsm
        assert not adata.uns
        with pytest.raises(error, match=words):
            rg.pp.measured_effects(adata)


@pytest.fixture(scope="module")
def simulated():
    return rg.datasets.simulate(40, 4, n_doubles=2, n_control_cells=80, n_cells_per_perturbation=20, seed=1)


def trained(adata: ad.AnnData, X) -> rg.RaptorGraphModel:
    adata = adata.copy()
    adata.X = X
    scvi.settings.seed = 0
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraphModel(adata, n_hidden=8, effect_posterior=False)
    model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.mark.parametrize("how", ["parts", "F"])
def test_the_same_counts_train_the_same_model(simulated, how):
    """Bit for bit, and so are predictions for cells in any storage."""
    values = simulated.X.toarray()
    assert values.max() < 2**16
    make, query = (np.asarray, np.asfortranarray) if how == "F" else (sparse.csr_matrix, sparse.csc_array)
    narrow = query(values.astype(np.uint16)) if how == "F" else store(values.astype(np.uint16), how)
    before = stored(narrow)
    first, second = trained(simulated, make(values)), trained(simulated, narrow)
    for part, same in zip(stored(narrow), before, strict=True):
        np.testing.assert_array_equal(part, same)
    for name, value in first.module.named_parameters():
        assert torch.equal(value, second.module.get_parameter(name)), name
    np.testing.assert_array_equal(first.predict_effects(["P01"]), second.predict_effects(["P01"]))
    np.testing.assert_array_equal(first.get_latent_representation(), second.get_latent_representation())

    plain, other = simulated[::3].copy(), simulated[::3].copy()
    plain.X, other.X = make(values[::3]), query(values[::3].astype(np.int64))
    drawn = [first.predict("P02", cells, seed=1).X.toarray() for cells in (plain, other)]
    np.testing.assert_array_equal(*drawn)
    np.testing.assert_array_equal(first.get_counterfactual("P02", plain), first.get_counterfactual("P02", other))


@pytest.mark.parametrize(("dtype", "how"), [("uint8", "parts"), ("uint8", "remembered"), ("int16", "parts_csc")])
def test_guides_are_counted_whole(simulated, dtype, how):
    """Parts of 3 and 2 are 5 counts of a guide, which is enough to call it; expression comes in parts, too."""
    targets = ["P01", "P02", "P03", "P04", "control"]
    labels = simulated.obs["perturbation"].astype(str)
    counts = np.array([[5 * (target in label.split("+")) for target in targets] for label in labels], dtype=dtype)
    cells = simulated.copy()
    cells.X, found = split_in_parts(cells.X.toarray().astype(np.uint16)), cells.obs.pop("perturbation")
    guides = ad.AnnData(
        store(counts, how),
        obs=cells.obs[[]],
        var=pd.DataFrame({"target": targets}, index=[f"{t} guide" for t in targets]),
    )
    mdata = md.MuData({"rna": cells, "guides": guides})
    rg.RaptorGraphModel.setup_mudata(
        mdata, modalities={"expression": "rna", "guides": "guides"}, library_size_key="total_counts"
    )
    assert (mdata["rna"].obs["perturbation"].astype(str) == found.astype(str)).all()
    effects = rg.pp.measured_effects(simulated, library_size_key="total_counts")
    here = rg.RaptorGraphModel(mdata, n_hidden=4).measured_effects()
    np.testing.assert_array_equal(here[effects.columns], effects)


@pytest.mark.parametrize("make", [lambda frame: frame.astype("Int64"), lambda frame: frame.astype(pd.SparseDtype(int))])
def test_guides_in_a_table_of_any_type(make):
    counts = np.random.default_rng(0).poisson(0.3, size=(30, 3)) * 6
    frame = pd.DataFrame(counts, columns=["a", "b", "c"], index=[f"cell{i}" for i in range(30)])
    called = []
    for table in (frame, make(frame)):
        adata = ad.AnnData(np.ones((30, 1)), obs=pd.DataFrame(index=frame.index), obsm={"guides": table})
        targets = {"a": "A", "b": "B", "c": "control"}
        rg.pp.assign_guides(adata, guides="guides", targets=targets, no_guide="control", max_genes=3)
        called.append(adata.obs["perturbation"].astype(str))
    assert (called[0] == called[1]).all()
    assert called[0].nunique() > 2
    adata.obsm["guides"] = frame.astype(object).replace(0, "none")
    with pytest.raises(ValueError, match=r"obsm\['guides'\] must hold counts of guides.*none"):
        rg.pp.assign_guides(adata, guides="guides", targets=targets, key_added="other")


def test_scores_of_cells_do_not_wrap_around(counts):
    cells, others = counts[:30].astype(np.uint8), counts[30:].astype(np.uint8)
    exact = counts[:30], counts[30:]
    for a, b in [(cells, others), (split_in_parts(cells), store(others, "coo_array"))]:
        assert rg.metrics.same_cell_mse(a, b) == pytest.approx(rg.metrics.same_cell_mse(*exact))
        assert rg.metrics.control_mse(a, b) == pytest.approx(rg.metrics.control_mse(*exact))
        assert rg.metrics.variance_ratio(a, b) == pytest.approx(rg.metrics.variance_ratio(*exact))
        assert rg.metrics.energy_distance(a, b) == pytest.approx(rg.metrics.energy_distance(*exact))
        np.testing.assert_array_equal(rg.metrics.wilcoxon(a, b).statistic, rg.metrics.wilcoxon(*exact).statistic)
    with pytest.raises(ValueError, match="masked"):
        rg.metrics.energy_distance(np.ma.masked_array(counts, mask=counts > 100), counts)
