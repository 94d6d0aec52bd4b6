"""Scores of predictions: functions of arrays alone."""

from raptorgraph.metrics._effects import pearson_delta, relative_mse
from raptorgraph.metrics._interactions import epistasis, neomorphism, redundancy, suppression, synergy

__all__ = ["epistasis", "neomorphism", "pearson_delta", "redundancy", "relative_mse", "suppression", "synergy"]
