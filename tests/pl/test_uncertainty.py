import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import raptorgraph as rg
from raptorgraph import pl


def test_intervals_of_the_largest_effects(fixed):
    ax = pl.uncertainty(fixed, "A", n_genes=8)
    mean, sd = (table.iloc[0] for table in fixed.predict_effects(["A"], return_sd=True))
    genes = [tick.get_text() for tick in ax.get_yticklabels()]
    assert set(genes) == set(mean.abs().nlargest(8).index)
    assert list(mean[genes]) == sorted(mean[genes], reverse=True)
    wide, narrow = ([segment[:, 0] for segment in ax.collections[k].get_segments()] for k in (0, 1))
    mean, sd = mean[genes], sd[genes]
    np.testing.assert_allclose(wide, np.column_stack([mean - 1.644854 * sd, mean + 1.644854 * sd]), rtol=1e-5)
    np.testing.assert_allclose(narrow, np.column_stack([mean - 0.674490 * sd, mean + 0.674490 * sd]), rtol=1e-5)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "measured ± SE" in texts
    fixed.effects.loc["B+C"] = 0.5
    texts = [text.get_text() for text in pl.uncertainty(fixed, ("C", "B")).get_legend().get_texts()]
    assert "measured ± SE" not in texts
    given = pl.uncertainty(fixed, "B+C", measured=fixed.effects.loc["A"]).get_legend().get_texts()
    assert "measured" in [text.get_text() for text in given]


class Posterior:
    """Effects that are drawn from what the model says of them, times a factor."""

    has_posterior = True

    def __init__(self, fixed, spread):
        rng = np.random.default_rng(0)
        labels = [f"P{k}" for k in range(30)]
        self.setup_args, self.var_names_ = fixed.setup_args, fixed.var_names_
        shape = (len(labels), len(self.var_names_))
        sd = np.exp(rng.normal(-1.0, 0.7, shape))
        truth = rng.normal(size=shape)
        self.mean = pd.DataFrame(truth + spread * sd * rng.normal(size=shape), labels, self.var_names_)
        self.sd = pd.DataFrame(sd, labels, self.var_names_)
        n = 50
        obs = pd.DataFrame({"perturbation": np.repeat(["control", *labels], n)}, index=[f"c{k}" for k in range(31 * n)])
        values = 6.0 + np.repeat(np.vstack([np.zeros(shape[1]), truth]), n, axis=0)
        noise = rng.normal(scale=0.3, size=values.shape)
        self.adata = AnnData(np.maximum(values + noise, 0), obs=obs, var=pd.DataFrame(index=self.var_names_))

    @property
    def screen(self):
        return rg.screen.Screen(self.adata, self.setup_args)

    def predict_effects(self, labels, return_sd):
        return self.mean.loc[labels], self.sd.loc[labels]


@pytest.mark.parametrize(("spread", "low", "high"), [(1.0, 0.9, 1.12), (2.0, 1.7, 2.2), (0.5, 0.4, 0.65)])
def test_calibration_tells_right_from_too_sure(fixed, spread, low, high):
    ax = pl.uncertainty(Posterior(fixed, spread), kind="calibration")
    x, y = ax.lines[1].get_xydata().T
    assert len(x) == 12
    assert low < np.exp(np.mean(np.log(y / x))) < high
    within = int(ax.get_title(loc="left").split("\n")[1].split("%")[0])
    assert within == pytest.approx({1.0: 50, 2.0: 27, 0.5: 81}[spread], abs=5)


def test_calibration_of_some_perturbations_in_other_cells(fixed):
    model = Posterior(fixed, 1.0)
    ax = pl.uncertainty(model, ["P0", ("P1",)])
    assert ax.get_title(loc="left").startswith("2 perturbations, 40 genes")
    cells, model.adata = model.adata, None
    assert pl.uncertainty(model, ["P3"], measured=cells).get_title(loc="left").startswith("1 perturbation, ")
    with pytest.raises(ValueError, match="no 'X'"):
        pl.uncertainty(model, ["X"], measured=cells)
    with pytest.raises(ValueError, match="without data"):
        pl.uncertainty(model)


def test_of_a_trained_model(trained):
    assert pl.uncertainty(trained, trained.conditions[0]).get_xlabel() == "effect (log-normalized)"
    assert pl.uncertainty(trained).get_xlabel() == "expected error (log-normalized)"


def test_bad_input(fixed):
    with pytest.raises(ValueError, match="kind='other'"):
        pl.uncertainty(fixed, "A", kind="other")
    with pytest.raises(TypeError, match="one perturbation"):
        pl.uncertainty(fixed, kind="effect")
    with pytest.raises(TypeError, match="not a series"):
        pl.uncertainty(fixed, measured=fixed.effects.loc["A"])
    with pytest.raises(ValueError, match="n_genes=0"):
        pl.uncertainty(fixed, "A", n_genes=0)
    fixed.has_posterior = False
    with pytest.raises(ValueError, match="effect_posterior=True"):
        pl.uncertainty(fixed, "A")
