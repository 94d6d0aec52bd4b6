"""What finished units of work found, as files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anndata as ad
import pandas as pd

from raptorgraph._files import file_hash, put_table, put_text, replaced, write_h5ad
from raptorgraph.benchmark._settings import Part, Unit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write_part(folder: Path, unit: Unit, part: Part) -> None:
    """Keep a part in place of an earlier one, without the mark that says that it is finished and of what."""
    for suffix in ("json", "csv", "h5ad"):
        (folder / f"{unit.key}.{suffix}").unlink(missing_ok=True)
    put_table(folder / f"{unit.key}.csv", part.rows, digits=None)
    if part.arrays is not None:
        with replaced(folder / f"{unit.key}.h5ad") as file:
            write_h5ad(file, part.arrays)


def read_part(folder: Path, unit: Unit) -> Part:
    """A part that was kept."""
    arrays = folder / f"{unit.key}.h5ad"
    rows = pd.read_csv(folder / f"{unit.key}.csv", keep_default_na=False, na_values=["", "nan"])
    return Part(rows, ad.read_h5ad(arrays) if arrays.exists() else None)


def mark_finished(folder: Path, unit: Unit, made: Mapping[str, Any]) -> None:
    """Say of what a part was `made`, and which files it is."""
    put_text(_mark(folder, unit), json.dumps({"made": made, "files": _files(folder, unit)}, indent=1))


def is_finished(folder: Path, unit: Unit, made: Mapping[str, Any]) -> bool:
    """Whether there is a whole part that was `made` of this."""
    try:
        found = json.loads(_mark(folder, unit).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # not finished, or broken
        return False
    return bool(found == {"made": made, "files": _files(folder, unit)})


def _mark(folder: Path, unit: Unit) -> Path:
    return folder / f"{unit.key}.json"


def _files(folder: Path, unit: Unit) -> dict[str, str]:
    """Checksums of the files of a part."""
    files = [folder / f"{unit.key}.{suffix}" for suffix in ("csv", "h5ad")]
    return {file.name: file_hash(file) for file in files if file.is_file()}
