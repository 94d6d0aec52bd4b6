"""Converted screens, stored beside the downloads that they were made of, so that each is converted once."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any

from raptorgraph._files import replaced, write_h5ad
from raptorgraph.datasets._download import checksum
from raptorgraph.screen._files import read_cells

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import anndata as ad

logger = logging.getLogger(__name__)

_VERSION = 1  # of the conversion: another one where the same file becomes another screen


def converted(
    name: str, files: Sequence[Path], arguments: Mapping[str, Any], convert: Callable[[], ad.AnnData]
) -> ad.AnnData:
    """The screen as it was converted before, or converted now and stored as ``NAME-KEY.h5ad`` in the files' folder.

    Parameters
    ----------
    name
        Name of the screen.
    files
        Downloaded files, whose checksums were compared.
    arguments
        All that the conversion depends on beside them, as JSON holds it.
    convert
        Makes the screen.

    Returns
    -------
    The screen, as it is read from the stored file; where the folder must not be written, as it was made.
    """
    made = {"version": _VERSION, "files": {file.name: checksum(file) for file in files}, **arguments}
    key = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:12]
    path = files[0].with_name(f"{name}-{key}.h5ad")
    if not path.is_file():
        adata = convert()
        try:
            with replaced(path) as part:
                write_h5ad(part, adata)
        except PermissionError as error:
            logger.info("The converted screen is not kept: %s.", error)
            return adata
    return read_cells(path)
