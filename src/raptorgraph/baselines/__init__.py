"""Baselines: means and sums of measured effects, published models, and graphs by other methods."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_base": ["Baseline"],
        "_dvae": ["DiscrepancyVAE"],
        "_graph_methods": ["graph_methods"],
        "_graphs": [
            "dagma_on_targets",
            "difference_of_means",
            "modular_response",
            "random_graph_weights",
            "sort_by_variance",
        ],
        "_graphs_interventional": ["dotears", "sdcd"],
        "_ladder": ["ladder"],
        "_linear_embedding": ["LinearEmbedding"],
        "_ridge": ["MainEffectsRidge"],
        "_sena": ["SENA"],
        "_smoothed": ["DampedLowRank", "LowRankAdditive", "ShrunkenAdditive"],
        "_sums": [
            "Additive",
            "GeneScaledAdditive",
            "MeanDouble",
            "MeanOfTwo",
            "MeanSingle",
            "NoChange",
            "ScaledAdditive",
        ],
    },
)
