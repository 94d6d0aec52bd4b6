import numpy as np
import pandas as pd
import pytest

from raptorgraph import benchmark
from raptorgraph.benchmark import Settings
from raptorgraph.benchmark import _intervals as intervals
from raptorgraph.benchmark._settings import Unit
from raptorgraph.metrics import synergy

QUICK = {"quick": True, "n_jobs": 0, "progress": False}


def test_run(tmp_path):
    tables = benchmark.run("intervals", out=tmp_path, seeds=1, interaction_strengths=[0.3], n_draws=20, **QUICK)
    table, long = tables["intervals"], tables["intervals_long"]
    assert table["intervals of"].tolist() == 2 * [intervals.EFFECTS, *intervals.SCORES]
    assert table["pairs"].tolist() == 6 * ["measured"] + 6 * ["not measured"]
    mean = long.set_index(["pairs", "intervals of", "metric"])["value_mean"]
    # a lower bound of 0 is below everything
    assert (mean[:, "neomorphism", "true value below"] == 0).all()
    assert {"intervals.csv", "intervals.png"} <= {path.name for path in tmp_path.iterdir()}


class Off:
    """A model that is off by known amounts: +2 SD for one gene of ten, -2 SD for two of ten, right for the others."""

    setup_anndata = staticmethod(lambda adata, *args, **kwargs: None)

    def __init__(self, adata):
        self.truth = adata.uns["simulation"]["effects"].astype(float)
        self.pairs = [label for label in self.truth.index if "+" in label]

    def train(self, **kwargs):
        pass

    def predict_effects(self, labels, *, return_sd):
        off = pd.Series(np.resize([2, -2, -2, 0, 0, 0, 0, 0, 0, 0], self.truth.shape[1]), self.truth.columns)
        mean = self.truth.loc[labels] + 0.5 * off
        return mean, 0 * mean + 0.5


def around(model, **kwargs):
    """Intervals of the scores: of synergy one that holds it, of the others one that lies above every value."""
    genes = pd.DataFrame([pair.split("+") for pair in model.pairs], model.pairs, ["gene_a", "gene_b"])
    a, b, ab = (model.truth.loc[labels].to_numpy() for labels in (genes["gene_a"], genes["gene_b"], genes.index))
    ends = {f"{name}_{end}": 1e9 for name in intervals.SCORES for end in ("low", "high")}
    true = synergy(a, b, ab)
    ends |= {"synergy_low": true - 0.1, "synergy_high": true + 0.3}
    return genes.assign(measured=np.arange(len(genes)) % 2 == 0, **ends)


def test_what_is_held_of_a_model_that_is_off_by_known_amounts(monkeypatch):
    monkeypatch.setattr(intervals, "RaptorGraphModel", Off)
    monkeypatch.setattr(intervals, "interactions", around)
    rows = intervals.work(Unit("a", 0, {"strength": 0.3}), Settings(quick=True)).rows
    found = rows.set_index(["pairs", "intervals of", "metric"])["value"].sort_index()
    for pairs in ("measured", "not measured"):
        effects, of_synergy, of_other = (found[pairs, name] for name in (intervals.EFFECTS, "synergy", "epistasis"))
        assert effects.to_dict() == pytest.approx({"held": 0.7, "true value below": 0.1, "width": 1.645})
        assert of_synergy.to_dict() == pytest.approx({"held": 1, "true value below": 0, "width": 0.4})
        assert of_other.to_dict() == {"held": 0, "true value below": 1, "width": 0}


def test_what_is_counted():
    rows = intervals._counted("measured", "synergy", np.array([0.0, 1.0, 2.0, 3.0]), ([1, 1, 1, 1], [2, 2, 2, 2]))
    assert [row[2:] for row in rows] == [("held", 0.5), ("true value below", 0.25), ("width", 1.0)]


@pytest.mark.parametrize(
    ("screen", "options", "match"),
    [
        ("simulated", {}, "leave --screen out"),
        (None, {"interaction_strengths": [-1]}, r"\[-1\]"),
        (None, {"interaction_strengths": []}, "numbers"),
        (None, {"n_draws": 1}, "n_draws: 1"),
    ],
)
def test_bad_options(screen, options, match):
    with pytest.raises(ValueError, match=match):
        intervals.units(Settings(screen=screen, seeds=(0,), options=options))
