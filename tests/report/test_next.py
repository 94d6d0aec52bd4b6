"""The section on what to measure next."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from raptorgraph.report._next import to_measure_next
from raptorgraph.report._tables import Table


def found(table, reason=""):
    return SimpleNamespace(answers=SimpleNamespace(next_pairs=table, no_next=reason))


def test_pairs_by_goal():
    table = pd.DataFrame(
        {
            "perturbation": ["A+B", "A+C", "B+C"], "goal": ["learn", "learn", "interactions"], "rank": [1, 2, 1],
            "gain": [0.3, 0.1, 0.6], "total": [0.3, 0.4, 0.6], "magnitude": 2.0, "n_cells": 250,
            "cells_needed": [100.0, 200.0, np.inf], "singles_measured": True,
        }
    )  # fmt: skip
    learn, interactions = (block for block in to_measure_next(found(table)).blocks if isinstance(block, Table))
    assert [[cell.text for cell in row] for row in learn.rows] == [
        ["1", "A+B", "0.300", "0.300", "2.00", "250", "100", "yes"],
        ["2", "A+C", "0.100", "0.400", "2.00", "250", "200", "yes"],
    ]
    # no number of cells suffices, and probabilities have no sum
    assert [cell.text for cell in interactions.rows[0]] == ["1", "B+C", "0.600", "2.00", "250", "–", "yes"]
    assert interactions.caption == "The only pair"


def test_why_there_is_none():
    (text,) = to_measure_next(found(pd.DataFrame(), "all were measured")).blocks
    assert text.text == "No pair is named, because all were measured."
