"""Preprocessing: labels, guides, gene selection, gene sets, effects and pairing of cells."""

from raptorgraph.pp._gene_sets import read_gene_sets
from raptorgraph.pp._genes import select_genes
from raptorgraph.pp._guides import GuideReport, assign_guides
from raptorgraph.pp._label_tables import perturbation_report, tidy_labels
from raptorgraph.pp._labels import format_perturbation, parse_perturbation
from raptorgraph.pp._pairing import pair_cells
from raptorgraph.pp._statistics import measured_effects
from raptorgraph.pp._suggest import suggest_setup

__all__ = [
    "GuideReport",
    "assign_guides",
    "format_perturbation",
    "measured_effects",
    "pair_cells",
    "parse_perturbation",
    "perturbation_report",
    "read_gene_sets",
    "select_genes",
    "suggest_setup",
    "tidy_labels",
]
