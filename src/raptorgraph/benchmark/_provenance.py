"""What the numbers of an experiment depend on beside its settings: sources, versions, device and files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raptorgraph.benchmark._sources import Closure
from raptorgraph.screen._files import is_file_or_store

if TYPE_CHECKING:
    from raptorgraph.benchmark._experiments import Work


@cache
def own_closure(work: Work) -> Closure:
    """What decides the numbers of an experiment in this copy of the package."""
    return work_closure(work, Path(__file__).parents[1])


def work_closure(work: Work, root: Path) -> Closure:
    """What decides the numbers of an experiment: its work, and how that is kept.

    Parameters
    ----------
    work
        Function of the package that does the work.
    root
        Folder of the package, or of another copy of it.
    """
    return Closure(root, f"{work.__module__}.{work.__qualname__}", f"{root.name}.benchmark._parts.write_part")


def versions(modules: Collection[str]) -> dict[str, str]:
    """Versions of Python, of every core dependency, and of the packages that these modules belong to."""
    try:
        required = metadata.requires("raptorgraph") or []
    except metadata.PackageNotFoundError:  # a source tree on the path, not installed
        required = []
    core = [line for line in required if "extra" not in line.partition(";")[2]]
    names = {re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in core}
    known = _distributions()
    names |= {name for module in modules for name in known.get(module, ())}
    found = {"python": platform.python_version()}
    for name in sorted({name.lower().replace("_", "-") for name in names}):
        with contextlib.suppress(metadata.PackageNotFoundError):  # for other systems
            found[name] = metadata.version(name)
    return found


@cache
def _distributions() -> dict[str, list[str]]:
    """Installed packages by the modules that they bring, without the package itself: its code is hashed."""
    found = metadata.packages_distributions()
    return {module: names for module, names in found.items() if module != "raptorgraph"}


def device() -> str:
    """Where models are trained: scvi-tools takes a GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def files_of(options: Any, name: str = "") -> Iterator[tuple[str, Path]]:
    """Files among the options, at any depth: predictions of other tools, gene sets."""
    if isinstance(options, str | Path) and is_file_or_store(options):
        yield name, Path(options)
    elif isinstance(options, Mapping | list | tuple):
        for key, value in options.items() if isinstance(options, Mapping) else enumerate(options):
            yield from files_of(value, f"{name}:{key}")


def stamp(path: Path) -> list[Any]:
    """Place, size and time of a file, or of all the files of a store."""
    files = sorted(place for place in path.rglob("*") if place.is_file()) if path.is_dir() else [path]
    stats = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    if path.is_file():
        return stats[0]
    return [str(path.resolve()), hashlib.sha256(json.dumps(stats).encode()).hexdigest()]
