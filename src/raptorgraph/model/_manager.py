"""Registered data, whose cells are read in canonical form."""

from __future__ import annotations

from copy import copy, deepcopy
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scvi.data import AnnDataManager
from scvi.data._constants import _FIELD_REGISTRIES_KEY, _MANAGER_UUID_KEY, _SCVI_UUID_KEY
from torch.utils.data import Subset

from raptorgraph.model._field import KEYS, LIBRARY_KEY
from raptorgraph.model._stored_cells import StoredDataset
from raptorgraph.screen._inputs import library_of, matrix
from raptorgraph.screen._labels import ParsedLabels
from raptorgraph.screen._matrix import as_matrix
from raptorgraph.screen._names import gene_names
from raptorgraph.screen._screen import Screen

if TYPE_CHECKING:
    from raptorgraph.screen._matrix import Matrix
    from raptorgraph.screen._stored import StoredMatrix

_LOOKED_AT = 100  # cells, enough to tell counts from logarithms
_REGISTERED = RLock()  # held while data are registered anew and read: setups of one AnnData share its columns


class ScreenManager(AnnDataManager):  # type: ignore[misc]  # scvi-tools has no types
    """Manager that returns the matrix in canonical form (:func:`raptorgraph.screen._matrix.as_matrix`).

    The user's AnnData keeps its own storage; training, prediction and everything that is measured see the same values.

    Parameters
    ----------
    stored
        The matrix, with the model's genes in its order, where it is not in memory; its AnnData keeps the order that its
        genes have in the file.
    """

    def __init__(self, *args: Any, stored: StoredMatrix | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stored = stored
        # the arrays of the matrix and its canonical form: one value, since threads may read it while it is replaced
        self._canonical: tuple[tuple[Any, ...], Matrix] = ((), None)

    def validate(self) -> None:
        """Register anew, library sizes included, where the data were set up for another model in the meantime.

        Raises
        ------
        ValueError
            Where the genes are no longer those, or no longer in the order, of this setup.
        """
        with _REGISTERED:
            if not self._has_genes():
                raise ValueError(
                    "The genes of the model's adata are no longer those of its setup, in that order: they were "
                    "changed, or another setup put its own perturbed genes first. Give each setup a copy of its own: "
                    "setup_anndata(adata.copy(), ...)."
                )
            uns = self.adata.uns
            if uns.get(_MANAGER_UUID_KEY) == self.id:
                return
            uns |= {_MANAGER_UUID_KEY: "", _SCVI_UUID_KEY: self.adata_uuid}  # the user may have emptied it
            if KEYS.LIBRARY in self.data_registry:
                args = self._registry["setup_args"]
                X = matrix(self.adata, args["layer"]) if self.stored is None else self.stored
                self.adata.obs[LIBRARY_KEY] = library_of(self.adata, X, args["library_size_key"])
            self._register_anew()

    def _register_anew(self) -> None:
        """What scvi-tools' ``validate`` does, on a copy: other threads find data and registry all the time."""
        again = copy(self)
        again.adata, again._registry = None, deepcopy(self._registry)
        again.register_fields(self.adata, self._source_registry, **self._transfer_kwargs)
        self._registry[_FIELD_REGISTRIES_KEY].update(again._registry[_FIELD_REGISTRIES_KEY])

    def _has_genes(self) -> bool:
        """Whether the genes are those of the setup, in its order where the values are in memory."""
        if self.stored is None:
            return list(self.adata.var_names) == self.var_names
        return set(self.var_names) <= set(gene_names(self.adata))

    @property
    def var_names(self) -> list[str]:
        """Names of the genes, in the order in which the matrix is returned."""
        return list(self.get_state_registry(KEYS.X)["column_names"])

    @property
    def screen(self) -> Screen:
        """The registered cells as training reads them; conditions are coded in the order of their first cells."""
        genes = list(self.get_state_registry(KEYS.PERTURBATION)["perturbed_genes"])
        codes, conditions = conditions_of(self.get_from_registry(KEYS.PERTURBATION).tocsr())
        parsed = ParsedLabels(
            codes, tuple(tuple(sorted(genes[j] for j in columns)) for columns in conditions), tuple(sorted(genes))
        )
        library = batch = None
        if KEYS.LIBRARY in self.data_registry:
            library = np.asarray(self.get_from_registry(KEYS.LIBRARY), dtype=float).ravel()
        if KEYS.BATCH in self.data_registry:
            batch = np.asarray(self.get_from_registry(KEYS.BATCH)).ravel().astype(int)
            batch = batch if batch.max() > 0 else None
        source = (self.get_from_registry(KEYS.X), library)
        names = None if self.stored is None else self.var_names
        args = self._registry["setup_args"]
        return Screen(self.adata, args, parsed=parsed, source=source, batch=batch, var_names=names)

    def create_torch_dataset(
        self, indices: Any = None, data_and_attributes: Any = None, load_sparse_tensor: bool = False
    ) -> Any:
        """Dataset of the registered cells, as scvi-tools makes it; of a matrix that is not in memory, read by rows."""
        if self.stored is None:
            return super().create_torch_dataset(indices, data_and_attributes, load_sparse_tensor)
        dataset = StoredDataset(self, getitem_tensors=data_and_attributes)
        return dataset if indices is None else Subset(dataset, indices)

    def get_from_registry(self, registry_key: str) -> Any:
        """Registered data; the matrix is a copy, made once, where its storage is not canonical.

        Raises
        ------
        ValueError
            Where the values are no longer counts, as after ``scanpy.pp.log1p``, or the genes were changed.
        """
        with _REGISTERED:
            self.validate()
            if registry_key == KEYS.X and self.stored is not None:
                return self.stored
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
        known, canonical = self._canonical
        if [id(array) for array in arrays] != [id(array) for array in known]:
            canonical = as_matrix(found)
            self._canonical = arrays, canonical
        return canonical


def _whole(X: Matrix) -> bool:
    X = as_matrix(X)
    values = X.data if sparse.issparse(X) else X
    return bool((values == np.rint(values)).all())


def conditions_of(mask: sparse.csr_matrix) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """Number the distinct rows of a CSR 0/1 mask in the order in which they come; 0 is the empty row (control).

    Returns
    -------
    codes
        Shape (n_cells,), int: the number of each row.
    conditions
        Columns of each number; none for 0, whether or not there is such a row.
    """
    if not mask.has_sorted_indices:  # on a copy: it is the user's, and other threads may read it
        mask = mask.sorted_indices()
    sizes = np.diff(mask.indptr)
    codes = np.zeros(mask.shape[0], dtype=np.int64)
    found: list[tuple[int, tuple[int, ...], np.ndarray]] = []  # first row, columns, all rows
    for size in np.unique(sizes[sizes > 0]):
        rows = np.flatnonzero(sizes == size)
        columns = mask.indices[mask.indptr[rows][:, None] + np.arange(size)]
        distinct, first, which = np.unique(columns, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(which.ravel(), kind="stable")
        members = np.split(rows[order], np.cumsum(np.bincount(which.ravel()))[:-1])
        found += [(rows[i], tuple(row.tolist()), cells) for row, i, cells in zip(distinct, first, members, strict=True)]
    found.sort(key=lambda condition: condition[0])
    for code, (_, _, cells) in enumerate(found, start=1):
        codes[cells] = code
    return codes, [(), *(columns for _, columns, _ in found)]
