"""How predictions are judged: splits, methods under one interface, and scores on held-out cells."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_held_out": ["held_out"],
        "_held_out_scores": ["HeldOut", "Scores"],
        "_methods": ["RaptorGraphMethod", "make_method"],
        "_predictions": ["Predictions"],
        "_scores": ["cell_references", "cell_scores", "effect_scores"],
        "_splits": ["Split", "doubles_folds", "paper_split", "seen_singles", "singles_only", "split_cells"],
    },
)
