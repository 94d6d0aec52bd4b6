"""Registered data, whose cells are read in canonical form."""

from __future__ import annotations

from scipy import sparse
from scvi.data import AnnDataManager

from raptorgraph.model._field import KEYS
from raptorgraph.pp._matrix import as_matrix


class ScreenManager(AnnDataManager):
    """Manager that hands out the matrix as :func:`raptorgraph.pp._matrix.as_matrix` reads it.

    The user's AnnData keeps its own storage; training, prediction and everything that is measured see the same values.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._arrays, self._canonical = (), None

    def get_from_registry(self, registry_key: str):
        """Registered data; the matrix is a copy, made once, where its storage is not canonical."""
        found = super().get_from_registry(registry_key)
        if registry_key != KEYS.X:
            return found
        if not sparse.issparse(found):
            return as_matrix(found)
        arrays = (found.data, found.indices, found.indptr)
        if [id(array) for array in arrays] != [id(array) for array in self._arrays]:
            self._arrays, self._canonical = arrays, as_matrix(found)
        return self._canonical
