"""Methods as the settings of an experiment ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raptorgraph.baselines import SENA, ladder
from raptorgraph.benchmark._settings import Settings, chosen
from raptorgraph.evaluation._methods import MODELS, ON_REQUEST, make_method

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from raptorgraph.baselines import Baseline

QUICK_EPOCHS = 2


def method_names(settings: Settings, *, doubles: bool) -> list[str]:
    """Methods that can be fitted: those without measured doubles where there are none, SENA where there are gene sets.

    With ``options["methods"]`` these alone, in that order; ValueError for an unknown one.
    """
    baselines = ladder()
    asked = chosen_methods(settings, [*baselines, *MODELS])
    return [name for name in asked if doubles or name not in baselines or not baselines[name].needs_doubles]


def chosen_methods(settings: Settings, known: Sequence[str], wrong: str = "is unknown") -> list[str]:
    """Methods that the option ``methods`` gives, or all that are known; none of them SENA without gene sets.

    Models that are fitted on request alone can be named too. ValueError for SENA without gene sets, and for one that is
    not known, of which `wrong` is said.
    """
    named = settings.options.get("methods")
    asked = chosen(settings, "methods", [*known, *ON_REQUEST], wrong) if named else list(known)
    if "SENA" not in asked or settings.options.get("gene_sets"):
        return asked
    if settings.options.get("methods"):
        raise ValueError("methods: 'SENA' needs gene sets: give a GMT file as gene_sets.")
    return [name for name in asked if name != "SENA"]


def check_methods(names: Iterable[str], settings: Settings, setup: Mapping[str, Any], var_names: pd.Index) -> None:
    """ValueError, before any work, where a method cannot be fitted to data with these genes."""
    if "SENA" in names:
        SENA(settings.options["gene_sets"], **setup).match(var_names)


def method_of(name: str, settings: Settings, setup: Mapping[str, Any], seed: int) -> Baseline:
    """Unfitted method of that name, with the number of epochs and the gene sets of the settings."""
    gene_sets = settings.options.get("gene_sets")
    return make_method(name, setup, seed=seed, max_epochs=epochs_of(settings), gene_sets=gene_sets)


def epochs_of(settings: Settings) -> int | None:
    """Number of epochs that is asked for; None for a method's own."""
    return settings.options.get("max_epochs") or (QUICK_EPOCHS if settings.quick else None)


def n_repeats_of(settings: Settings) -> int:
    """Number of samples over which scores of cells are averaged."""
    n_repeats: int = settings.option("n_repeats", 5, quick=2)
    return n_repeats
