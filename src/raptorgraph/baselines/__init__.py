"""What a model must beat: means and sums of measured effects, published models, and graphs by other means."""

from raptorgraph.baselines._base import Baseline
from raptorgraph.baselines._dvae import DiscrepancyVAE
from raptorgraph.baselines._graphs import (
    dagma_on_targets,
    difference_of_means,
    graph_methods,
    modular_response,
    random_graph_weights,
    sort_by_variance,
)
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
    "dagma_on_targets",
    "difference_of_means",
    "graph_methods",
    "ladder",
    "modular_response",
    "random_graph_weights",
    "sort_by_variance",
]
