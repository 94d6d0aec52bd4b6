"""Experiments that compare models and baselines on a screen, with floor, ceiling, seeds and spread."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_experiments": ["EXPERIMENTS", "UnitsFailed"],
        "_runner": ["run"],
        "_screen": ["Screen", "load_screen"],
        "_settings": ["Settings"],
        "_splits": ["Split", "doubles_folds", "paper_split", "seen_singles", "singles_only", "split_cells"],
    },
)
