"""Tools: tables from a trained model."""

from raptorgraph.tl._annotate import annotate_latents
from raptorgraph.tl._dag_export import to_networkx, write_dag
from raptorgraph.tl._dag_paths import knock_out_edge, paths, total_effects
from raptorgraph.tl._dag_stability import dag_stability
from raptorgraph.tl._enrich import enrich, enrich_effects
from raptorgraph.tl._interactions import interactions
from raptorgraph.tl._latent_programs import latent_programs
from raptorgraph.tl._programs import program_similarity
from raptorgraph.tl._reverse import reverse
from raptorgraph.tl._spillover import spillover, spillover_index

__all__ = [
    "annotate_latents",
    "dag_stability",
    "enrich",
    "enrich_effects",
    "interactions",
    "knock_out_edge",
    "latent_programs",
    "paths",
    "program_similarity",
    "reverse",
    "spillover",
    "spillover_index",
    "to_networkx",
    "total_effects",
    "write_dag",
]
