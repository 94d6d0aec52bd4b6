import numpy as np
import pandas as pd
import pytest

from raptorgraph import benchmark
from raptorgraph.benchmark import Settings, _calls
from raptorgraph.benchmark._settings import Unit

QUICK = {"quick": True, "n_jobs": 0, "progress": False}


@pytest.mark.usefixtures("few_steps")
def test_run(tmp_path):
    tables = benchmark.run("calls", out=tmp_path, seeds=1, interaction_strengths=[1.0], n_draws=20, **QUICK)
    table, long = tables["calls"], tables["calls_long"]
    kinds = [_calls.ADDITIVE, _calls.SHUFFLED, _calls.SATURATING, "interacting, 1"]
    expected = [(kind, measured) for kind in kinds for measured in ("yes", "no")] + [(_calls.UNSEEN, "no")]
    assert list(table[_calls.BY].itertuples(index=False, name=None)) == expected
    value = long.set_index([*_calls.BY, "metric"])["value_mean"]
    assert value[_calls.UNSEEN, "no", _calls.N] == 6
    assert value[_calls.ADDITIVE, "yes", _calls.N] == 3
    # no pair was measured, and no perturbation does anything
    assert value[_calls.UNSEEN, "no", _calls.ALL] == value[_calls.SHUFFLED, "yes", _calls.ALL] == 0
    assert np.isnan(value[_calls.SHUFFLED, "no", _calls.POWER])
    assert {"calls.csv", "calls.png"} <= {path.name for path in tmp_path.iterdir()}


def test_what_is_counted():
    table = pd.DataFrame(
        {
            "interaction": ["undetermined", "synergy", "synergy", "neomorphism", "undetermined", "suppression"],
            "measured": [True, True, True, True, False, False],
        },
        index=list("abcdef"),
    )
    true = pd.DataFrame(False, table.index, ["synergy", "suppression", "neomorphism", "redundancy", "epistasis"])
    true.loc["b", "synergy"] = true.loc["d", "suppression"] = true.loc["e", "neomorphism"] = True
    found = _calls._counted(table, true).set_index(["measured", "metric"])["value"]
    names = [_calls.N, _calls.ALL, _calls.FALSE, _calls.POWER, _calls.NAMED]
    assert found["yes"][names].tolist() == pytest.approx([4, 3 / 4, 1 / 2, 1, 1 / 3])
    assert found["no"][names].tolist() == [2, 1 / 2, 1, 0, 0]


class Truthful:
    """A model whose screen is only simulated."""

    setup_anndata = staticmethod(lambda adata, *args, **kwargs: None)

    def __init__(self, adata):
        self.var_names_ = list(adata.var_names)
        self.truth = adata.uns["simulation"]["effects"].astype(float)

    def train(self, **kwargs):
        pass


@pytest.mark.parametrize(("kind", "strength"), [("interacting, 1", 2.0), (_calls.SHUFFLED, 2.0), ("additive", 0.0)])
def test_calls_of_the_true_synergies_are_right(monkeypatch, kind, strength):
    from raptorgraph import metrics

    def called(model, **kwargs):
        pairs = [label for label in model.truth.index if "+" in label]
        genes = pd.DataFrame([pair.split("+") for pair in pairs], pairs, ["gene_a", "gene_b"])
        a, b, ab = (model.truth.loc[labels].to_numpy() for labels in (genes["gene_a"], genes["gene_b"], pairs))
        longer = metrics.synergy(a, b, ab) > 1.1
        return genes.assign(measured=True, interaction=np.where(longer, "synergy", "undetermined"))

    monkeypatch.setattr(_calls, "RaptorGraphModel", Truthful)
    monkeypatch.setattr(_calls, "interactions", called)
    mechanism = "linear" if kind == "additive" else "saturating"
    options = {"screen": kind, "simulate": {"interaction_strength": strength, "mechanism": mechanism}}
    found = _calls.work(Unit("a", 0, options), Settings(quick=True)).rows.set_index("metric")["value"]
    if kind == "additive":
        assert found[_calls.ALL] == found[_calls.FALSE] == 0
    elif kind == _calls.SHUFFLED:  # whatever is called is wrong
        assert found[_calls.ALL] == found[_calls.FALSE] > 0
        assert found[_calls.NAMED] == 0
    else:
        assert found[_calls.FALSE] == 0
        assert found[_calls.POWER] > 0
        assert found[_calls.NAMED] == 1


@pytest.mark.parametrize(
    ("screen", "options", "match"),
    [
        ("simulated", {}, "leave --screen out"),
        (None, {"interaction_strengths": [0]}, r"\[0\]"),
        (None, {"interaction_strengths": []}, "above 0"),
        (None, {"n_draws": 10}, "n_draws: 10"),
        (None, {"n_cells": 1}, "n_cells: 1"),
    ],
)
def test_bad_options(screen, options, match):
    with pytest.raises(ValueError, match=match):
        _calls.units(Settings(screen=screen, seeds=(0,), options=options))
