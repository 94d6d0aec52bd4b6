"""Registered cells whose matrix is not in memory: read when they are asked for, or ahead of a series of batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scvi.data import AnnTorchDataset
from scvi.data.fields import LayerField

from raptorgraph.model._field import KEYS
from raptorgraph.screen._matrix import to_dense
from raptorgraph.screen._stored import stack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


class StoredLayerField(LayerField):  # type: ignore[misc]  # scvi-tools has no types
    """The matrix of the model's genes, in its order, whatever the order of the genes in the data."""

    def __init__(self, registry_key: str, layer: str | None, genes: Sequence[str]) -> None:
        super().__init__(registry_key, layer, is_count_data=False, correct_data_format=False)
        self.genes = list(genes)

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """State of the matrix, of which nothing is read."""
        genes = np.asarray(self.genes, dtype=object)
        return {self.N_OBS_KEY: adata.n_obs, self.N_VARS_KEY: len(genes), self.COLUMN_NAMES_KEY: genes}

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """State of the same genes in other cells."""
        return self.register_field(adata_target)


class StoredDataset(AnnTorchDataset):  # type: ignore[misc]  # scvi-tools has no types
    """Cells in the order that is asked for; scvi-tools would sort those of backed data, and does not read all others.

    Rows that are held (:meth:`hold`) are not read again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.held: np.ndarray = np.zeros(0, dtype=np.int64)
        self._values: Any = None

    def hold(self, rows: np.ndarray) -> None:
        """Keep these rows (in ascending order, each once) in memory, and no others."""
        if np.array_equal(rows, self.held):
            return
        known = np.isin(rows, self.held, assume_unique=True)
        parts, X = [], self.data[KEYS.X]
        if known.any():
            parts.append(self._values[np.searchsorted(self.held, rows[known])])
        self._values = None  # before others are read
        if not known.all():
            parts.append(X[rows[~known]])
        values = parts[0] if len(parts) == 1 else stack(parts)
        if len(parts) == 2:
            order = np.empty(len(rows), dtype=np.int64)
            order[np.r_[np.flatnonzero(known), np.flatnonzero(~known)]] = np.arange(len(rows))
            values = values[order]
        self.held, self._values = rows, values

    def _matrix(self, rows: np.ndarray) -> Any:
        place = np.searchsorted(self.held, rows)
        if len(self.held) and place.max(initial=0) < len(self.held) and np.array_equal(self.held[place], rows):
            return self._values[place]
        return self.data[KEYS.X][rows]

    def __getitem__(self, indexes: Any) -> dict[str, np.ndarray]:
        """Tensors of some cells, by name."""
        rows = np.atleast_1d(np.arange(len(self))[indexes])
        found = {}
        for key, dtype in self.keys_and_dtypes.items():
            if key == KEYS.X:
                values = self._matrix(rows)
            else:
                values = self.data[key]
                values = values.iloc[rows].to_numpy() if isinstance(values, pd.DataFrame) else values[rows]
            found[key] = to_dense(values.astype(dtype, copy=False))
        return found
