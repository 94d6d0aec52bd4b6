"""Preprocessing: labels, guides, gene selection, gene sets, effects and pairing of cells."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_gene_sets": ["read_gene_sets"],
        "_genes": ["select_genes"],
        "_guides": ["GuideReport", "assign_guides"],
        "_label_tables": ["perturbation_report", "tidy_labels"],
        "_labels": ["format_perturbation", "parse_perturbation"],
        "_pairing": ["pair_cells"],
        "_statistics": ["measured_effects"],
        "_suggest": ["suggest_setup"],
    },
)
