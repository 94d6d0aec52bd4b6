"""Tools: tables from a trained model."""

from raptorgraph.tl._enrich import enrich, enrich_effects
from raptorgraph.tl._interactions import interactions
from raptorgraph.tl._reverse import reverse
from raptorgraph.tl._spillover import spillover, spillover_index

__all__ = ["enrich", "enrich_effects", "interactions", "reverse", "spillover", "spillover_index"]
