"""What finished units of work found, as files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import pandas as pd

from raptorgraph.benchmark._settings import Part, Unit

if TYPE_CHECKING:
    from pathlib import Path


def write_part(folder: Path, unit: Unit, part: Part) -> None:
    """Keep a part in place of an earlier one, without the mark that says that it is finished and of what."""
    for suffix in ("json", "csv", "h5ad"):
        (folder / f"{unit.key}.{suffix}").unlink(missing_ok=True)
    part.rows.to_csv(folder / f"{unit.key}.csv", index=False)
    if part.arrays is not None:
        part.arrays.write_h5ad(folder / f"{unit.key}.h5ad")


def read_part(folder: Path, unit: Unit) -> Part:
    """A part that was kept."""
    arrays = folder / f"{unit.key}.h5ad"
    rows = pd.read_csv(folder / f"{unit.key}.csv", keep_default_na=False, na_values=["", "nan"])
    return Part(rows, ad.read_h5ad(arrays) if arrays.exists() else None)
