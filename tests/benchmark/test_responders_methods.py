import sys

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import norm

from raptorgraph import RaptorGraphModel, datasets, metrics
from raptorgraph.benchmark import Settings
from raptorgraph.benchmark import _responders_methods as responses
from raptorgraph.screen import Screen

QUICK = Settings(quick=True)


def planted(n: int = 200, shift: float = 6.0, seed: int = 0, **setup) -> tuple[Screen, np.ndarray]:
    """Logarithms of 30 genes; A lifts the first two genes of 60 % of its cells, B does nothing."""
    rng = np.random.default_rng(seed)
    adata = datasets.simulate(30, 2, n_doubles=0, n_control_cells=n, n_cells_per_perturbation=n, n_truth_cells=2)
    labels = np.repeat(["control", "A", "B"], n)
    x = 10 + rng.standard_normal((3 * n, 30))
    responded = (labels == "A") & (rng.random(3 * n) < 0.6)
    x[responded, :2] += shift / np.sqrt(2)
    adata = adata[: 3 * n].copy()
    adata.X = x
    adata.obs["perturbation"] = labels
    adata.obs["batch"] = np.where(np.arange(3 * n) % 3, "x", "y")
    adata.obs["rare"] = np.where(np.arange(3 * n) % 50, "x", "y")  # a batch with too few control cells for neighbors
    return Screen(adata, setup), responded


def test_projection_finds_what_stands_out():
    screen, responded = planted()
    found = responses.probabilities(responses.PROJECTION, screen, QUICK, 0)
    assert np.isnan(found[screen.codes == 0]).all()
    rows = screen.rows("A")
    assert metrics.auroc(found[rows][responded[rows]], found[rows][~responded[rows]]) > 0.99
    assert found[rows].mean() == pytest.approx(responded[rows].mean(), abs=0.02)
    assert np.isfinite(found[screen.rows("B")]).all()
    np.testing.assert_array_equal(found, responses.probabilities(responses.PROJECTION, screen, QUICK, 0))


def test_the_mixture_lies_along_the_effect():
    """Cells that lost expression have responded as much as cells that gained."""
    screen, responded = planted(shift=-6.0)
    found, rows = responses.by_projection(screen, 0), screen.rows("A")
    assert metrics.auroc(found[rows][responded[rows]], found[rows][~responded[rows]]) > 0.99


def test_cells_that_cannot_be_told_apart():
    screen, _ = planted(20)
    screen.adata.X[screen.rows("A")] = screen.adata.X[screen.rows("A")[0]]
    screen = Screen(screen.adata)
    np.testing.assert_array_equal(responses.by_projection(screen, 0)[screen.rows("A")], 0)


def test_the_truth_by_bayes():
    """Two Gaussians in one gene, whose posterior is written out."""
    screen, _ = planted(shift=0.0)
    x, control = screen.expression[:, [7]].toarray().ravel().astype(float), screen.codes == 0
    effects = np.zeros((2, 30))
    effects[0, 7] = 1.5
    found = responses.by_truth(screen, effects, 0.3)
    mean, sd, rows = x[control].mean(), x[control].std(), screen.rows("A")
    acted, stayed = 0.7 * norm.pdf(x[rows], mean + 1.5, sd), 0.3 * norm.pdf(x[rows], mean, sd)
    np.testing.assert_allclose(found[rows], acted / (acted + stayed), rtol=1e-3, atol=1e-5)
    # an effect of nothing tells nothing
    np.testing.assert_allclose(found[screen.rows("B")], 0.7)
    assert np.isnan(found[control]).all()
    everyone = responses.by_truth(screen, effects, 0.0)
    np.testing.assert_array_equal(everyone[~control], 1)


def test_a_pair_responds_where_both_genes_do():
    adata = datasets.simulate(30, 2, n_doubles=1, n_control_cells=40, n_cells_per_perturbation=20, n_truth_cells=2)
    screen = Screen(adata)
    found = responses.by_truth(screen, np.zeros((3, 30)), 0.2)
    for label in screen.conditions:
        share = 0.8 ** len(screen.genes_of[label])
        np.testing.assert_allclose(found[screen.rows(label)], expit(np.log(share / (1 - share))))


def test_signal_to_noise_is_in_units_of_a_control_cell():
    screen, _ = planted(2000)
    effects = np.zeros((2, 30))
    effects[0, :2], effects[1, 3] = [3.0, 4.0], -2.0
    np.testing.assert_allclose(responses.signal_to_noise(screen, effects), [5, 2], rtol=0.03)
    screen.adata.X[:, 3] = 1.0
    constant = Screen(screen.adata)
    assert responses.signal_to_noise(constant, effects)[1] == 0


def test_ours_is_asked_for_the_cells_of_the_screen(monkeypatch):
    def answer(self, adata=None):
        cells = self.adata.obs
        values = np.where(cells["perturbation"] == "A", 0.9, np.where(cells["perturbation"] == "B", 0.2, np.nan))
        return pd.Series(values, index=cells.index)[::-1]  # cells are known by their names

    monkeypatch.setattr(RaptorGraphModel, "get_response_probability", answer, raising=False)
    screen, _ = planted(30)
    found = responses.probabilities(responses.OURS, screen, QUICK, 0)
    for label, value in {"control": np.nan, "A": 0.9, "B": 0.2}.items():
        np.testing.assert_array_equal(found[screen.rows(label)], value)


def test_mixscape_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pertpy", None)
    with pytest.raises(ImportError, match=r'pip install "raptorgraph\[pertpy\]"'):
        responses.by_mixscape(planted(20)[0], 0)


def test_mixscape_in_an_environment_of_its_own(monkeypatch, fake_peer):
    """It gets the expression scale, with conditions and batches, and gives a number for each cell."""
    code = """
        import numpy as np
        import pandas as pd

        def run(cells, task):
            condition = cells.obs["perturbation"].astype(str).str[-1].map({"l": 0.0, "1": 0.5, "2": 0.25})
            found = condition + cells.X.toarray()[:, 3] / 100 + (cells.obs["batch"] == "1") * task["seed"]
            return {"responses.csv": pd.DataFrame({"probability": found})}
    """
    monkeypatch.setitem(sys.modules, "pertpy", None)
    monkeypatch.setattr(responses, "_TOOL", fake_peer(code, experiment="responders"))
    screen, _ = planted(20, batch_key="batch")
    x = screen.expression[:, [3]].toarray().ravel()
    expected = np.choose(screen.codes, [np.nan, 0.5, 0.25]) + x / 100 + screen.batch * 7
    np.testing.assert_allclose(responses.probabilities(responses.MIXSCAPE, screen, QUICK, 7), expected, rtol=1e-5)
    assert responses.mixscape()["versions"]["fake-tool"] == "1.2"


@pytest.mark.parametrize("setup", [{}, {"batch_key": "batch"}, {"batch_key": "rare"}])
def test_mixscape(setup):
    pytest.importorskip("pertpy", exc_type=ImportError)
    screen, responded = planted(**setup)
    # a gene more than its five must differ
    x = screen.adata.X
    x[responded, 2:8] += 3.0
    screen = Screen(screen.adata, setup)
    found, rows = responses.probabilities(responses.MIXSCAPE, screen, QUICK, 0), screen.rows("A")
    assert found[rows].mean() == pytest.approx(responded[rows].mean(), abs=0.02)
    assert metrics.auroc(found[rows][responded[rows]], found[rows][~responded[rows]]) > 0.99
    np.testing.assert_array_equal(found[screen.rows("B")], 0)  # without differential genes
    np.testing.assert_array_equal(found, responses.probabilities(responses.MIXSCAPE, screen, QUICK, 0))
