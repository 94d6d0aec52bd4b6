"""Screens to learn from: simulated ones whose truth is known."""

from raptorgraph.datasets._simulate import simulate

__all__ = ["simulate"]
