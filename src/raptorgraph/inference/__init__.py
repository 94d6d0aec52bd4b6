"""Statistics of conditions: the posterior of effects and that of the graph, from tables of measured effects."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_config": ["EffectPosteriorConfig"],
        "_effects": ["EffectPosterior"],
        "_graph": ["GraphPosterior", "infer_graph"],
        "_group_effects": ["GroupEffects", "infer_group_effects"],
        "_loadings": ["loadings_of_cells"],
        "_group_measurements": ["GroupMeasurements"],
    },
)
