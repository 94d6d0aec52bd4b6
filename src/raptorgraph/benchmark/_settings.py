"""What an experiment is asked to do, and the units of work it is cut into."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd

from raptorgraph.pp._files import is_file_or_store

# Rooms whose code decides the numbers; plots, reports and the command line do not.
_ROOMS = ("nn", "metrics", "pp", "datasets", "model", "baselines", "tl")
_SHARED = ("_screen.py", "_methods.py", "_splits.py", "_settings.py", "_scores.py", "_pairs.py", "_variants.py")


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


def chosen(settings: Settings, option: str, known: Sequence[str], wrong: str = "is unknown") -> list[str]:
    """Names that an option gives, or all that are known.

    Parameters
    ----------
    settings
        Whose option is read; one name or several.
    option
        The option.
    known
        All names that it may give.
    wrong
        What is said of any other name.

    Raises
    ------
    ValueError
        If a name is not among them.
    """
    asked = settings.options.get(option) or known
    asked = [asked] if isinstance(asked, str) else list(asked)
    for name in asked:
        if name not in known:
            raise ValueError(f"{option}: {name!r} {wrong}; there are {', '.join(known)}.")
    return asked


def fingerprint(name: str, unit: Unit, settings: Settings) -> dict[str, Any]:
    """Everything that a unit's numbers depend on; a finished unit is used again only where all of it is the same."""
    screen: Any = settings.screen
    if screen is not None and is_file_or_store(screen):
        screen = [str(Path(screen).resolve()), *_stamp(Path(screen))]
    files = {key: [path, *_stamp(Path(path))] for key, path in _files_of(settings.options).items()}
    found = {
        "experiment": name,
        "key": unit.key,
        "seed": unit.seed,
        "unit": dict(unit.options),
        "screen": screen,
        "setup": dict(settings.setup),
        "quick": settings.quick,
        "n_top_genes": settings.n_top_genes,
        "options": dict(settings.options),
        "files": files,
        "code": code_hash(name),
        "torch": version("torch"),
    }
    return json.loads(json.dumps(found, default=str))  # as it reads back from a file


def _stamp(path: Path) -> list:
    """Size and time of a file; of a zarr store a hash over those of all its files."""
    if not path.is_dir():
        stat = path.stat()
        return [stat.st_size, stat.st_mtime_ns]
    inside = [(str(file.relative_to(path)), file.stat()) for file in sorted(path.rglob("*")) if file.is_file()]
    text = json.dumps([(name, stat.st_size, stat.st_mtime_ns) for name, stat in inside])
    return [hashlib.sha256(text.encode()).hexdigest()]


@cache
def code_hash(name: str) -> str:
    """Hash of the sources that decide the numbers of an experiment."""
    root = Path(__file__).parents[1]
    own = {root / "benchmark" / file for file in (*_SHARED, f"_{name.replace('-', '_')}.py")}
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).parts[0] in _ROOMS or path in own:
            digest.update(str(path.relative_to(root)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _files_of(options: Mapping[str, Any]) -> dict[str, str]:
    """Files among the options: predictions of other tools, gene sets."""
    found = {}
    for key, value in options.items():
        for name, path in value.items() if isinstance(value, Mapping) else [("", value)]:
            if isinstance(path, str | Path) and is_file_or_store(path):
                found[f"{key}:{name}"] = str(path)
    return found
