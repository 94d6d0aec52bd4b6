"""Screens to learn from: public ones, and simulated ones whose truth is known."""

from raptorgraph.datasets._norman2019 import norman2019
from raptorgraph.datasets._replogle2020 import replogle2020
from raptorgraph.datasets._simulate import simulate

__all__ = ["norman2019", "replogle2020", "simulate"]
