"""Predicted cells, which come batch by batch and are kept perturbation by perturbation, in memory or in a file."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

import anndata as ad
import numpy as np

from raptorgraph._files import scratch
from raptorgraph.screen._cells_file import CellsFile, append_rows
from raptorgraph.screen._files import lazily
from raptorgraph.screen._room import new_file
from raptorgraph.screen._stored import StoredMatrix, reader_of

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    import pandas as pd
    from anndata import AnnData

    from raptorgraph.nn._likelihood_base import Likelihood, Matrix


class PartsInMemory:
    """Drawn cells of so many perturbations, in lists."""

    def __init__(self, n: int) -> None:
        self._parts: list[list[Matrix]] = [[] for _ in range(n)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._parts.clear()

    def append(self, i: int, cells: Matrix) -> None:
        """Add drawn cells of perturbation i."""
        self._parts[i].append(cells)

    def cells(
        self, distribution: Likelihood, obs: pd.DataFrame, var: pd.DataFrame, sizes: np.ndarray | None, back: np.ndarray
    ) -> AnnData:
        """All cells, of which these are the tables; library sizes are as cells came, `back` their order in the file."""
        n = len(self._parts)
        sizes = None if sizes is None else np.tile(sizes, n)
        X, layers = distribution.matrices([part for parts in self._parts for part in parts], sizes)
        if (np.diff(back) < 0).any():
            rows = (np.arange(n)[:, None] * len(back) + back).ravel()
            X, layers = X[rows], {name: values[rows] for name, values in layers.items()}
        return ad.AnnData(X, obs=obs, var=var, layers=layers)


class PartsInFile:
    """Drawn cells of so many perturbations, in a file that is removed once they are written in order to `path`."""

    def __init__(self, n: int, path: Path) -> None:
        self.n, self.path = n, path

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(scratch(self.path.parent))
            self._file = stack.enter_context(new_file(folder / "drawn.h5"))
            self._opened = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)

    def append(self, i: int, cells: Matrix) -> None:
        """Add drawn cells of perturbation i."""
        append_rows(self._file, str(i), cells)

    def cells(
        self, distribution: Likelihood, obs: pd.DataFrame, var: pd.DataFrame, sizes: np.ndarray | None, back: np.ndarray
    ) -> AnnData:
        """As in memory; the values stay in the file."""
        file = CellsFile(self.path)
        with file:
            for i in range(self.n):
                drawn = StoredMatrix(reader_of(lazily(self._file[str(i)]), "X"))
                for rows in drawn.chunks():
                    taken = back[rows]
                    X, layers = distribution.matrices([drawn[taken]], None if sizes is None else sizes[taken])
                    file.append("X", X)
                    for name, values in layers.items():
                        file.append(f"layers/{name}", values)
            file.finish(obs, var)
        return file.read(list(layers))
