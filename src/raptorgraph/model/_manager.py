"""Registered data, whose cells are read in canonical form."""

from __future__ import annotations

from scvi.data import AnnDataManager

from raptorgraph.model._field import KEYS
from raptorgraph.pp._matrix import as_matrix


class ScreenManager(AnnDataManager):
    """Manager that hands out the matrix as :func:`raptorgraph.pp._matrix.as_matrix` reads it.

    The user's AnnData keeps its own storage; training, prediction and everything that is measured see the same values.
    """

    def get_from_registry(self, registry_key: str):
        """Registered data; the matrix is a copy where its storage is not canonical."""
        found = super().get_from_registry(registry_key)
        return as_matrix(found) if registry_key == KEYS.X else found
