"""Plots of a trained model and of the tables made from it."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_counterfactual": ["counterfactual"],
        "_dag": ["dag"],
        "_effect": ["effect"],
        "_effects_map": ["effects_map"],
        "_enrichment": ["enrichment"],
        "_guides": ["guides"],
        "_interactions": ["interactions"],
        "_latents": ["latents"],
        "_next_pairs": ["next_pairs"],
        "_pair": ["pair"],
        "_power": ["power"],
        "_reverse": ["reverse"],
        "_similarity": ["similarity"],
        "_state_effects": ["state_effects"],
        "_training": ["training"],
        "_uncertainty": ["uncertainty"],
        "_volcano": ["volcano"],
    },
)
