"""Experiments that compare models and baselines on a screen, with floor, ceiling, seeds and spread."""

from raptorgraph.benchmark._runner import EXPERIMENTS, UnitsFailed, run
from raptorgraph.benchmark._screen import Screen, load_screen
from raptorgraph.benchmark._settings import Settings
from raptorgraph.benchmark._splits import Split, doubles_folds, paper_split, seen_singles, singles_only, split_cells

__all__ = [
    "EXPERIMENTS",
    "Screen",
    "Settings",
    "Split",
    "UnitsFailed",
    "doubles_folds",
    "load_screen",
    "paper_split",
    "run",
    "seen_singles",
    "singles_only",
    "split_cells",
]
