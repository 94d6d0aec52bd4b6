"""Preprocessing: labels, guides, gene selection, gene sets, effects and pairing of cells."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_gene_sets": ["read_gene_sets"],
        "_genes": ["select_genes"],
        "_guides": ["GuideReport", "assign_guides"],
        "_pairing": ["pair_cells"],
        "_screen": [
            "format_perturbation",
            "guide_features",
            "measured_effects",
            "parse_perturbation",
            "perturbation_report",
            "suggest_setup",
            "tidy_labels",
        ],
    },
)
