"""How predictions are judged: splits, methods under one interface, and scores on held-out cells."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_splits": ["Split", "doubles_folds", "paper_split", "seen_singles", "singles_only", "split_cells"],
    },
)
