"""Scores of predictions: functions of arrays alone."""

from raptorgraph.metrics._differential import (
    Differential,
    de_direction_match,
    log2_fold_change,
    overlap_at_N,
    precision_at_N,
    top_genes,
    welch_t,
    wilcoxon,
)
from raptorgraph.metrics._discrimination import centroid_accuracy, discrimination_score
from raptorgraph.metrics._distribution import distribution_scores, energy_distance, mk_mmd, variance_ratio
from raptorgraph.metrics._effects import (
    against_centroid,
    cosine_delta,
    mae,
    mse,
    on_top_genes,
    pearson_delta,
    relative_mse,
)
from raptorgraph.metrics._gears import distance_correlation, gears_classes, gears_scores, gears_strengths
from raptorgraph.metrics._graph import (
    ancestor_auprc,
    chance_auprc,
    chance_jaccard,
    edge_auprc,
    edge_correlation,
    orientation_accuracy,
    structural_hamming_distance,
    top_edge_jaccard,
)
from raptorgraph.metrics._graph_interventions import false_omission_rate, intervention_p_values, mean_wasserstein
from raptorgraph.metrics._interactions import epistasis, neomorphism, redundancy, suppression, synergy
from raptorgraph.metrics._precision import chance_precision, precision_at_k
from raptorgraph.metrics._reconstruction import SameCellError, control_mse, same_cell_mse
from raptorgraph.metrics._reference import floor_and_ceiling, sampled_scores
from raptorgraph.metrics._reverse import chance_hit_rates, hit_rates, reverse_distances

__all__ = [
    "Differential",
    "SameCellError",
    "against_centroid",
    "ancestor_auprc",
    "centroid_accuracy",
    "chance_auprc",
    "chance_hit_rates",
    "chance_jaccard",
    "chance_precision",
    "control_mse",
    "cosine_delta",
    "de_direction_match",
    "discrimination_score",
    "distance_correlation",
    "distribution_scores",
    "edge_auprc",
    "edge_correlation",
    "energy_distance",
    "epistasis",
    "false_omission_rate",
    "floor_and_ceiling",
    "gears_classes",
    "gears_scores",
    "gears_strengths",
    "hit_rates",
    "intervention_p_values",
    "log2_fold_change",
    "mae",
    "mean_wasserstein",
    "mk_mmd",
    "mse",
    "neomorphism",
    "on_top_genes",
    "orientation_accuracy",
    "overlap_at_N",
    "pearson_delta",
    "precision_at_N",
    "precision_at_k",
    "redundancy",
    "relative_mse",
    "reverse_distances",
    "same_cell_mse",
    "sampled_scores",
    "structural_hamming_distance",
    "suppression",
    "synergy",
    "top_edge_jaccard",
    "top_genes",
    "variance_ratio",
    "welch_t",
    "wilcoxon",
]
