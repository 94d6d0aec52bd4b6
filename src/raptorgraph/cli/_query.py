"""Cells in a wanted state, read beside the screen that they are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raptorgraph.pp._genes import LIBRARY_SIZE_KEY
from raptorgraph.screen._expression import data_kind, library_sizes
from raptorgraph.screen._files import read_cells
from raptorgraph.screen._inputs import matrix
from raptorgraph.screen._names import strip_gene_names

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import anndata as ad


def read_query(path: Path, screen: ad.AnnData, setup: Mapping[str, Any]) -> ad.AnnData:
    """Cells of a wanted state, with the genes of a screen and library sizes over all genes of their file.

    Parameters
    ----------
    path
        An h5ad file or a zarr store.
    screen
        Cells of the screen.
    setup
        How the screen is read; the query is read alike.

    Raises
    ------
    KeyError
        If the layer, a column or a gene of the screen is not there.
    ValueError
        If the values are counts and those of the screen are not, or the other way round.
    """
    cells = read_cells(path)
    strip_gene_names(cells)
    where = f"--query {path}"
    lacking = screen.var_names[~screen.var_names.isin(cells.var_names)]
    if len(lacking):
        raise KeyError(
            f"{where}: {len(lacking):,} of the {screen.n_vars:,} genes of the screen are not there, first "
            f"{lacking[0]!r}: give a file with all of them, with the same names."
        )
    layer, library_key = setup["layer"], setup["library_size_key"]
    if layer is not None and layer not in cells.layers:
        raise KeyError(f"{where}: there is no layer {layer!r}, from which the screen is read.")
    label_key, batch_key = setup["perturbation_key"], setup["batch_key"]
    if batch_key is not None and label_key in cells.obs and batch_key not in cells.obs:
        raise KeyError(f"{where}: there is no column {batch_key!r} with batches, as the screen has it.")
    values = matrix(cells, layer)
    kind, expected = data_kind(values), data_kind(matrix(screen, layer))
    if kind != expected:
        words = {"counts": "counts", "log": "log-normalized values"}
        raise ValueError(f"{where} holds {words[kind]}, and the screen {words[expected]}: give the same.")
    if kind == "counts" and library_key is not None and library_key not in cells.obs:
        if library_key != LIBRARY_SIZE_KEY:
            raise KeyError(f"{where}: there is no column {library_key!r} with library sizes, as the screen has it.")
        cells.obs[LIBRARY_SIZE_KEY] = library_sizes(values)
    elif kind == "counts" and library_key is None and cells.n_vars > screen.n_vars:
        # the same genes as in the screen, whose library sizes are sums over them
        cells = cells[:, screen.var_names].copy()
    return cells
