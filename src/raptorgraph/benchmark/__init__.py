"""Experiments that compare models and baselines on a screen, with floor, ceiling, seeds and spread."""

import lazy_loader as lazy

from raptorgraph._deprecated import with_old_names

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_experiments": ["EXPERIMENTS", "UnitsFailed"],
        "_runner": ["run"],
        "_load": ["load_screen"],
        "_settings": ["Settings"],
    },
)
_MOVED = {"Screen": "raptorgraph.screen.Screen"} | {
    name: f"raptorgraph.evaluation.{name}"
    for name in ("Split", "doubles_folds", "paper_split", "seen_singles", "singles_only", "split_cells")
}
__getattr__ = with_old_names(__name__, __getattr__, _MOVED)
