"""Agreement with cell-eval, the reference implementation of the metrics that both define."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raptorgraph import metrics
from raptorgraph.metrics import _differential as differential
from raptorgraph.metrics._discrimination import discrimination_score
from raptorgraph.metrics._effects import mae, mse, pearson_delta

cell_eval = pytest.importorskip("cell_eval")
# cell-eval uses a class that polars 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:the string cache has been replaced:DeprecationWarning")

GENES = [f"G{k}" for k in range(40)]
LABELS = ["G0", "G1", "G2+G3", "G4", "absent", "weak"]


def _screen(seed):
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(7).uniform(0.5, 4, size=40)
    factors = np.exp(np.random.default_rng(8).normal(scale=0.7, size=(len(LABELS), 40)))
    factors[-1] = 1  # no gene differs
    factors[:, 30:] = 1
    parts = {"control": rng.poisson(base, size=(80, 40))}
    for label, factor in zip(LABELS, factors, strict=True):
        noisy = factor * np.exp(0.5 * rng.normal(size=40) * (np.arange(40) < 30) * (label != "weak"))
        parts[label] = rng.poisson(base * noisy, size=(30, 40))
    counts = np.vstack(list(parts.values())).astype(float)
    obs = pd.DataFrame({"perturbation": np.repeat(list(parts), [len(part) for part in parts.values()])})
    obs.index = obs.index.astype(str)
    X = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    return ad.AnnData(X, obs=obs, var=pd.DataFrame(index=GENES))


@pytest.fixture(scope="module")
def screens():
    return _screen(0), _screen(1)


@pytest.fixture(scope="module")
def pair(screens):
    from cell_eval._types import PerturbationAnndataPair

    predicted, measured = screens
    return PerturbationAnndataPair(real=measured, pred=predicted, pert_col="perturbation", control_pert="control")


@pytest.fixture(scope="module")
def comparison(screens):
    """Tables of pdex as cell-eval makes them, and the comparison of the two."""
    from cell_eval._types import initialize_de_comparison
    from pdex import pdex

    settings = {"reference": "control", "is_log1p": True, "epsilon": 0.0, "threads": 1}  # those of cell-eval
    tables = [pdex(screen, "perturbation", mode="ref", **settings) for screen in screens]
    return initialize_de_comparison(real=tables[1], pred=tables[0]), tables


def _cells(screen, label):
    return screen.X[(screen.obs["perturbation"] == label).to_numpy()]


def _means(screen, labels):
    return np.array([_cells(screen, label).mean(axis=0) for label in labels])


def _agree(theirs, rows, labels):
    assert set(theirs) == set(labels)
    np.testing.assert_allclose(rows, [theirs[label] for label in labels], rtol=0, atol=1e-6)
    assert len(np.unique(np.round(rows, 6))) > 1  # a score that tells the perturbations apart


@pytest.mark.parametrize(
    ("name", "score"),
    [("pearson_delta", pearson_delta), ("mse", mse), ("mae", mae), ("mse_delta", mse), ("mae_delta", mae)],
)
def test_scores_of_profiles_and_effects(pair, screens, name, score):
    profiles = [_means(screen, pair.perts) for screen in screens]
    effects = [_means(screen, pair.perts) - _means(screen, ["control"]) for screen in screens]
    rows = score(*(effects if name.endswith("delta") else profiles), per_row=True)
    _agree(getattr(cell_eval.metrics, name)(pair), rows, pair.perts)


@pytest.mark.parametrize("metric", ["l1", "l2", "cosine"])
@pytest.mark.parametrize("leave_out", [True, False])
def test_discrimination(pair, screens, metric, leave_out):
    effects = [_means(screen, pair.perts) - _means(screen, ["control"]) for screen in screens]
    exclude = pair.perts[:, None] == np.array(GENES) if leave_out else None
    rows = discrimination_score(*effects, metric, exclude=exclude, per_row=True)
    theirs = cell_eval.metrics.discrimination_score(pair, metric=metric, exclude_target_gene=leave_out)
    _agree(theirs, rows, pair.perts)


def _tables(screens, labels):
    """Change and FDR of both screens by our own functions."""
    changes, fdrs = [], []
    for screen in screens:
        changes.append(differential.log2_fold_change(_means(screen, labels), _means(screen, ["control"])[0]))
        control = _cells(screen, "control")
        fdrs.append(np.array([differential.wilcoxon(_cells(screen, label), control).fdr for label in labels]))
    return changes, fdrs


def test_differential_expression(pair, screens, comparison):
    changes, fdrs = _tables(screens, pair.perts)
    for table, change, fdr in zip(comparison[1], changes, fdrs, strict=True):
        theirs = table.to_pandas().set_index(["target", "feature"])
        for row, label in enumerate(pair.perts):
            np.testing.assert_allclose(change[row], theirs.loc[label].loc[GENES, "log2_fold_change"], atol=1e-6)
            np.testing.assert_allclose(fdr[row], theirs.loc[label].loc[GENES, "fdr"], atol=1e-6)


@pytest.mark.parametrize("metric", ["overlap", "precision"])
@pytest.mark.parametrize("k", [None, 5, 50])
def test_recovery_of_differential_genes(pair, screens, comparison, metric, k):
    changes, fdrs = _tables(screens, pair.perts)
    score = {"overlap": metrics.overlap_at_N, "precision": metrics.precision_at_N}[metric]
    theirs = cell_eval.metrics.de_overlap_metric(comparison[0], k=k, metric=metric)
    _agree(theirs, score(*changes, *fdrs, k=k, per_row=True), pair.perts)


def test_direction(pair, screens, comparison):
    changes, fdrs = _tables(screens, pair.perts)
    rows = metrics.de_direction_match(*changes, fdrs[1], per_row=True)
    theirs = cell_eval.metrics.DEDirectionMatch()(comparison[0])
    defined = ~np.isnan(rows)
    assert not defined.all()  # cell-eval leaves out a perturbation without differential genes
    _agree(theirs, rows[defined], pair.perts[defined])
