"""Tools: tables from a trained model."""

from raptorgraph.tl._interactions import interactions

__all__ = ["interactions"]
