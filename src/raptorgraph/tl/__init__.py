"""Tools: tables from a trained model."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_annotate": ["annotate_latents"],
        "_dag_export": ["to_networkx", "write_dag"],
        "_dag_paths": ["knock_out_edge", "paths", "total_effects"],
        "_dag_stability": ["dag_stability"],
        "_effect_similarity": ["effect_similarity"],
        "_effects": ["effects"],
        "_enrich": ["enrich", "enrich_effects"],
        "_evaluate": ["evaluate"],
        "_guides": ["guides"],
        "_interactions": ["interactions"],
        "_latent_programs": ["latent_programs"],
        "_next_pairs": ["next_pairs"],
        "_power": ["power"],
        "_programs": ["program_similarity"],
        "_responders": ["responders"],
        "_reverse": ["reverse"],
        "_spillover": ["spillover", "spillover_index"],
        "_state_effects": ["state_effects"],
    },
)
