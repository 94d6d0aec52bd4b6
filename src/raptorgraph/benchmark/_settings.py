"""What an experiment is asked to do, and the units of work it is cut into."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raptorgraph.screen._files import is_file_or_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import anndata as ad
    import pandas as pd


@dataclass(frozen=True)
class Settings:
    """Everything a unit of work needs to know, small enough to be sent to another process.

    Attributes
    ----------
    screen
        Path of an h5ad file or a zarr store, or a name that :func:`~raptorgraph.benchmark.load_screen` knows.
    setup
        Arguments of ``setup_anndata``.
    seeds
        Seeds of the repetitions.
    quick
        Whether to run a small version that shows that everything works; its numbers mean nothing.
    n_top_genes
        Number of highly variable genes to keep, beside the perturbed ones; None for all.
    options
        Options of the experiment.

    Examples
    --------
    >>> settings = rg.benchmark.Settings(screen="simulated", seeds=(0, 1), options={"methods": ["additive"]})
    >>> settings.quick
    False
    """

    screen: str | None = None
    setup: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    quick: bool = False
    n_top_genes: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def option(self, name: str, default: Any, *, quick: Any = None) -> Any:
        """An option, or else its default, which may be another one for the small version."""
        return self.options.get(name, quick if self.quick and quick is not None else default)


@dataclass(frozen=True)
class Unit:
    """One piece of work, done in a process of its own.

    Attributes
    ----------
    key
        Name, unique in the experiment and fit for a file.
    seed
        Seed of all its randomness.
    options
        What to do; values that JSON can hold.
    """

    key: str
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """What a unit of work found.

    Attributes
    ----------
    rows
        Long table: what was measured, and its ``value``.
    arrays
        Optional matrices with their row and column tables, such as predicted effects.
    """

    rows: pd.DataFrame
    arrays: ad.AnnData | None = None


def units_by_seed(settings: Settings, pieces: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Unit]:
    """One unit for each seed and piece of work, with the piece's options, named by its words and the seed."""
    named = [(words.replace(",", "").replace(" ", "-"), options) for words, options in pieces]
    return [Unit(f"{words}-seed{seed}", seed, options) for seed in settings.seeds for words, options in named]


def chosen(settings: Settings, option: str, known: Sequence[str], wrong: str = "is unknown") -> list[str]:
    """Names that an option gives, or all that are known.

    Parameters
    ----------
    settings
        Settings whose option is read; it holds one name or several.
    option
        The option.
    known
        All names that it may give; case does not matter.
    wrong
        What the error says of any other name.

    Raises
    ------
    ValueError
        If a name is not among them.
    """
    asked = settings.options.get(option) or known
    asked = [asked] if isinstance(asked, str) else list(asked)
    spelled = {name.casefold(): name for name in known}
    for name in asked:
        if str(name).casefold() not in spelled:
            raise ValueError(f"{option}: {name!r} {wrong}; there are {', '.join(known)}.")
    return [spelled[str(name).casefold()] for name in asked]


def screen_file(name: str) -> Path | None:
    """File, or zarr store, of a screen: of this path, or of this name in the folder ``$RAPTORGRAPH_DATA``."""
    places = [Path(name)]
    if folder := os.environ.get("RAPTORGRAPH_DATA"):
        places += [Path(folder) / f"{name}.{suffix}" for suffix in ("h5ad", "zarr")]
    return next((path for path in places if is_file_or_store(path)), None)
