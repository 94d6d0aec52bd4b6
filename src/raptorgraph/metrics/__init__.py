"""Scores of predictions: functions of arrays alone."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_calibration": ["calibration_error"],
        "_differential": ["Differential", "log2_fold_change", "top_genes", "welch_t", "wilcoxon"],
        "_discrimination": ["centroid_accuracy", "discrimination_score"],
        "_distribution": ["distribution_scores", "energy_distance", "mk_mmd", "variance_ratio"],
        "_effects": ["against_centroid", "cosine_delta", "mae", "mse", "on_top_genes", "pearson_delta", "relative_mse"],
        "_gears": ["distance_correlation", "gears_classes", "gears_scores", "gears_strengths"],
        "_graph": [
            "ancestor_auprc",
            "chance_auprc",
            "chance_jaccard",
            "edge_auprc",
            "edge_correlation",
            "orientation_accuracy",
            "structural_hamming_distance",
            "top_edge_jaccard",
        ],
        "_graph_interventions": ["false_omission_rate", "intervention_p_values", "mean_wasserstein"],
        "_interactions": ["epistasis", "neomorphism", "redundancy", "suppression", "synergy"],
        "_latents": ["batch_mixing", "label_accuracy", "own_latent_ranks"],
        "_precision": ["chance_precision", "precision_at_k"],
        "_rank_sum": ["auroc"],
        "_reconstruction": ["SameCellError", "control_mse", "same_cell_mse"],
        "_recovery": ["de_direction_match", "overlap_at_N", "precision_at_N"],
        "_reference": ["floor_and_ceiling", "sampled_scores"],
        "_reverse": ["chance_hit_rates", "hit_rates", "reverse_distances"],
    },
)
