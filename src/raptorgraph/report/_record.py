"""Where a run came from: the file, the settings, the versions."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch

from raptorgraph._files import file_hash, size_of
from raptorgraph._progress import progress_bar
from raptorgraph._text import counted

if TYPE_CHECKING:
    from pathlib import Path

    from raptorgraph.report._findings import Findings

_PACKAGES = (
    "raptorgraph",
    "scvi-tools",
    "torch",
    "lightning",
    "anndata",
    "scanpy",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "pot",
    "gseapy",
    "matplotlib",
)


def source_of_file(path: Path) -> list[tuple[str, str]]:
    """Name, size and SHA-256 of a file, or of a zarr store: of the names and contents of its files, in their order."""
    with progress_bar("Checksum"):
        digest = file_hash(path)
    return [
        ("file", str(path)),
        ("size", f"{size_of(path) / 1e6:,.1f} MB"),
        ("SHA-256 of the file", digest),
    ]


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    return {"Python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def of_run(found: Findings) -> list[tuple[str, str]]:
    """Date, settings, model, times and versions."""
    model = found.model
    return [
        ("date", f"{found.date:%Y-%m-%d %H:%M %Z}"),
        *((name.replace("_", " "), _plain(value)) for name, value in found.options.items()),
        ("model", model.summary_string.splitlines()[0]),
        *([("epochs of the network", f"{max(map(len, model.history.values())):,}")] if model.history else []),
        ("device", f"{model.device}, {counted(torch.get_num_threads(), 'thread')}"),
        ("times", ", ".join(f"{name} {value:.0f} s" for name, value in found.seconds.items())),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("versions", ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)),
    ]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a copy of the source on the path
        return "not installed"


def _plain(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
