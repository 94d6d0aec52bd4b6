"""What a model must beat: means and sums of measured effects, and published models."""

from raptorgraph.baselines._base import Baseline
from raptorgraph.baselines._dvae import DiscrepancyVAE
from raptorgraph.baselines._ladder import ladder
from raptorgraph.baselines._ridge import MainEffectsRidge
from raptorgraph.baselines._sena import SENA
from raptorgraph.baselines._smoothed import DampedLowRank, LowRankAdditive, ShrunkenAdditive
from raptorgraph.baselines._sums import (
    Additive,
    GeneScaledAdditive,
    MeanDouble,
    MeanOfTwo,
    MeanSingle,
    NoChange,
    ScaledAdditive,
)

__all__ = [
    "SENA",
    "Additive",
    "Baseline",
    "DampedLowRank",
    "DiscrepancyVAE",
    "GeneScaledAdditive",
    "LowRankAdditive",
    "MainEffectsRidge",
    "MeanDouble",
    "MeanOfTwo",
    "MeanSingle",
    "NoChange",
    "ScaledAdditive",
    "ShrunkenAdditive",
    "ladder",
]
