"""Registered data, whose cells are read in canonical form."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scvi.data import AnnDataManager
from scvi.data._constants import _MANAGER_UUID_KEY, _SCVI_UUID_KEY

from raptorgraph.model._field import KEYS, LIBRARY_KEY
from raptorgraph.screen._inputs import library_of, matrix
from raptorgraph.screen._matrix import as_matrix

_LOOKED_AT = 100  # cells, enough to tell counts from logarithms


class ScreenManager(AnnDataManager):
    """Manager that hands out the matrix as :func:`raptorgraph.screen._matrix.as_matrix` reads it.

    The user's AnnData keeps its own storage; training, prediction and everything that is measured see the same values.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._arrays, self._canonical = (), None

    def validate(self) -> None:
        """Register once more where the data were set up for another model since, library sizes included.

        Raises
        ------
        ValueError
            Where the genes are no longer those, or no longer in the order, of this setup.
        """
        names = list(self.get_state_registry(KEYS.X)["column_names"])
        if list(self.adata.var_names) != names:
            raise ValueError(
                "The genes of the model's adata are no longer those of its setup, in that order: they were changed, or "
                "another setup put its own perturbed genes first. Give each setup a copy of its own: "
                "setup_anndata(adata.copy(), ...)."
            )
        uns = self.adata.uns
        if uns.get(_MANAGER_UUID_KEY) == self.id:
            return
        uns |= {_MANAGER_UUID_KEY: "", _SCVI_UUID_KEY: self.adata_uuid}  # the user may have emptied it
        if KEYS.LIBRARY in self.data_registry:
            args = self._registry["setup_args"]
            X = matrix(self.adata, args["layer"])
            self.adata.obs[LIBRARY_KEY] = library_of(self.adata, X, args["library_size_key"])
        super().validate()

    def get_from_registry(self, registry_key: str):
        """Registered data; the matrix is a copy, made once, where its storage is not canonical.

        Raises
        ------
        ValueError
            Where counts are none any more, as after ``scanpy.pp.log1p``, or the genes were changed.
        """
        self.validate()
        found = super().get_from_registry(registry_key)
        if registry_key != KEYS.X:
            return found
        if KEYS.LIBRARY in self.data_registry and not _whole(found[:_LOOKED_AT]):
            layer = self._registry["setup_args"]["layer"]
            where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
            raise ValueError(
                f"{where} held counts when the data were set up and does not now: keep the counts in a layer, "
                "adata.layers['counts'] = adata.X.copy(), and set the data up with layer='counts'."
            )
        if not sparse.issparse(found):
            return as_matrix(found)
        arrays = (found.data, found.indices, found.indptr)
        if [id(array) for array in arrays] != [id(array) for array in self._arrays]:
            self._arrays, self._canonical = arrays, as_matrix(found)
        return self._canonical


def _whole(X) -> bool:
    X = as_matrix(X)
    values = X.data if sparse.issparse(X) else X
    return bool((values == np.rint(values)).all())
