"""What users ask of labels and effects before there is a model; the room `screen` has it."""

from raptorgraph.screen._effects import measured_effects
from raptorgraph.screen._label_tables import guide_features, perturbation_report, tidy_labels
from raptorgraph.screen._labels import format_perturbation, parse_perturbation
from raptorgraph.screen._suggest import suggest_setup

__all__ = [
    "format_perturbation",
    "guide_features",
    "measured_effects",
    "parse_perturbation",
    "perturbation_report",
    "suggest_setup",
    "tidy_labels",
]
