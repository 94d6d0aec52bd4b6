"""What cannot be said is said where it holds, and not where it does not."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from raptorgraph.evaluation._held_out_scores import SINGLES, UNSEEN, HeldOut
from raptorgraph.report._unsaid import unsaid


@pytest.fixture
def run():
    """A run of which all can be said."""
    return SimpleNamespace(
        answers=SimpleNamespace(
            strength=pd.DataFrame({"p": 0.01, "stands_out": [True, True, True]}, index=["A", "B", "A+B"])
        ),
        interactions=pd.DataFrame({"interaction": ["synergy"]}, index=["A+B"]),
        edges=pd.DataFrame({"source": ["A"], "target": ["B"], "direction_support": [0.9]}),
        model=SimpleNamespace(perturbed_genes=["A", "B"]),
    )


HELD = HeldOut(scores={UNSEEN: None, SINGLES: None})


def test_nothing_is_missing(run):
    assert unsaid(run, HELD) == []


def test_perturbations(run):
    run.answers.strength["stands_out"] = [True, False, False]
    assert unsaid(run, HELD) == [
        "What B and A+B do cannot be said: the effects of these 2 perturbations are not told from noise."
    ]
    run.answers.strength["stands_out"] = [True, False, True]
    assert unsaid(run, HELD) == ["What B does cannot be said: its effect is not told from noise."]
    run.answers.strength["p"] = np.nan
    assert unsaid(run, HELD) == [
        "Which perturbations do anything cannot be said: to tell effects from the noise of sampling cells takes 20 "
        "control cells or more."
    ]


def test_pairs(run):
    run.interactions = pd.DataFrame({"interaction": ["synergy", "undetermined"]})
    text = "cannot be said: undetermined does not mean that effects add up."
    assert unsaid(run, HELD) == [f"Whether 1 pair interacts {text}"]
    run.interactions.attrs["n_pairs"] = 1000
    assert unsaid(run, HELD) == [f"Whether 999 pairs interact {text}"]
    run.interactions = None
    assert unsaid(run, HELD) == []


def test_directions(run):
    run.edges = pd.DataFrame({"source": ["A", "B"], "target": ["B", "C"], "direction_support": [0.9, 0.6]})
    assert unsaid(run, HELD) == [
        "Which gene acts on the other cannot be said of 1 of 2 edges: the data support neither direction."
    ]
    run.edges["direction_support"] = 0.6
    assert unsaid(run, HELD) == [
        "Which gene acts on the other cannot be said of any of 2 edges: the data support neither direction."
    ]


def test_predictions(run):
    start = "How good the predictions are cannot be said:"
    assert unsaid(run, None) == [f"{start} --report tests them on held-out cells."]
    assert unsaid(run, HeldOut(reason="there are few cells")) == [
        f"{start} they were not tested, because there are few cells."
    ]
    (text,) = unsaid(run, HeldOut(scores={SINGLES: None}))
    assert text.startswith("How well pairs are predicted cannot be said: no combination could be left out")
    run.model.perturbed_genes = ["A"]
    assert unsaid(run, HeldOut(scores={SINGLES: None})) == []


def test_order_of_pairs(run):
    ranks = pd.DataFrame({"type": ["synergy", "epistasis"], "raptorgraph": [0.1, 0.9], "half": 0.9, "n_pairs": 40})
    assert unsaid(run, HeldOut(scores=HELD.scores, ranks=ranks)) == [
        "Which pairs lead by synergy cannot be said: on held-out cells their predicted order is not told from chance."
    ]
