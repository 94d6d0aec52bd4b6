"""Cells as the network reads them: the model's own, or others that are brought into their shape."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from mudata import MuData
from scvi import settings

from raptorgraph._arguments import check_integer
from raptorgraph._order import name_order, places
from raptorgraph._progress import track
from raptorgraph.model._field import KEYS, MASK_KEY
from raptorgraph.model._loader import as_tensors
from raptorgraph.model._mudata import query_expression
from raptorgraph.model._query import check_categories, known_categories, prepare_query
from raptorgraph.model._setup import screen_manager
from raptorgraph.model._status import NOT_TRAINED
from raptorgraph.screen import Setup
from raptorgraph.screen._cells_file import check_out

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pandas as pd
    import torch
    from anndata import AnnData
    from scvi.data import AnnDataManager

    from raptorgraph.model._module import RaptorGraphModule
    from raptorgraph.model._types import Data

_BATCH = 1024
_READ = (KEYS.X, KEYS.LIBRARY, KEYS.BATCH, KEYS.CATEGORICAL, KEYS.CONTINUOUS)


@dataclass(frozen=True)
class Cells:
    """Cells as the network reads them: genes matched by name, in batches of tensors on its device.

    Parameters
    ----------
    module
        The network.
    own
        Manager of the model's own data; None where it has none.
    registry
        Registry of these data.
    var_names
        Genes of the model.
    mudata_args
        Arguments of the setup that belong to a MuData; None where the model was set up with an AnnData.
    is_trained
        Whether the model was trained; cells are not read where it was not.

    Examples
    --------
    >>> cells = model.cells
    >>> query = cells.query(adata[:5].copy(), "cells")
    >>> [tuple(expression.shape) for expression in cells.expression(query)]
    [(5, 100)]
    """

    module: RaptorGraphModule
    own: AnnDataManager | None
    registry: dict[str, Any]
    var_names: Sequence[str]
    mudata_args: dict[str, Any] | None = None
    is_trained: bool = True

    @property
    def setup(self) -> Setup:
        """Setup of these data."""
        return Setup.of(self.registry["setup_args"])

    def data(self, adata: Data | None = None, *, labels: bool = False) -> AnnData:
        """Pick the cells that are given (of a MuData the modality with the expression), or else the model's own.

        `labels` says whether labels are needed. ValueError where no cells are given and the model has none.
        """
        if isinstance(adata, MuData):
            adata = query_expression(adata, self.mudata_args, self.setup, labels=labels)
        if adata is None and self.own is not None:
            adata = self.own.adata
        if adata is None:
            raise ValueError("The model was loaded without data: pass adata=...")
        return adata

    def destination(self, out: str | Path | None, adata: Data | None = None) -> Path | None:
        """Path of a file for answers, not one that the cells or the model's are read from; None without `out`."""
        if out is None:
            return None
        return check_out(out, self.data(adata), *([] if self.own is None else [self.own.adata]))

    def query(self, adata: Data | None = None, use: str = "all", *, batch: bool = True) -> AnnDataManager:
        """Register cells with what they are used for, so that they need no more than that.

        Genes are matched by name, on a copy: the user's object stays as it is.

        Parameters
        ----------
        adata
            Cells; by default the model's own, which are registered.
        use
            ``"all"``; ``"controls"``: the control cells alone, all cells where there are none; ``"cells"``: whatever
            their labels; ``"latents"``: whatever their labels and covariates, of which the encoder knows nothing.
        batch
            Whether the batch of the cells is used.
        """
        adata = self.data(adata, labels=use == "controls")
        if self.own is not None and adata is self.own.adata:
            self.own.validate()
            return self.own
        setup = self.setup
        counts = KEYS.LIBRARY in self.registry["field_registries"]
        names = list(self.var_names)
        query, stored = prepare_query(adata, names, setup, counts=counts, controls=use == "controls")
        used = {KEYS.X, KEYS.LIBRARY}
        if use != "latents":
            used |= {KEYS.CATEGORICAL, KEYS.CONTINUOUS} | ({KEYS.BATCH} if batch else set())
        if use == "all":
            used.add(KEYS.PERTURBATION)
        else:
            query.obsm.pop(MASK_KEY, None)  # of another setup
        known = known_categories(self.registry)
        used_columns = {column: values for key in known if key in used for column, values in known[key].items()}
        check_categories(query, used_columns, setup.batch_key)
        method_args = {key: self.registry[key] for key in ("model_name", "setup_args")}
        values = None if stored is None else (stored, names)
        manager = screen_manager(setup, method_args, counts=counts, only=used, stored=values)
        manager.register_fields(query, self.registry)
        return manager

    def batches(
        self, manager: AnnDataManager, *, rows: np.ndarray | None = None, batch_size: int = _BATCH
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Yield tensors of registered cells, or of some rows of them, batch by batch."""
        if not self.is_trained:
            raise RuntimeError(NOT_TRAINED)
        check_integer("batch_size", batch_size, 1)
        dataset = manager.create_torch_dataset()
        rows = np.arange(manager.adata.n_obs) if rows is None else rows
        self.module.eval()
        for i in track(range(0, len(rows), batch_size), "Cells"):
            batch = dataset[rows[i : i + batch_size]]
            yield {key: value.to(self.module.device) for key, value in as_tensors(batch).items()}

    def expression(self, manager: AnnDataManager, *, rows: np.ndarray | None = None) -> Iterator[torch.Tensor]:
        """Yield the expression scale of registered cells, cells x genes, batch by batch."""
        for tensors in self.batches(manager, rows=rows):
            yield self.module.expression(tensors)

    def digest(self, manager: AnnDataManager, rows: np.ndarray | None = None) -> str:
        """Digest of registered cells, by default the controls, by what the model reads of them.

        Cells in another order, type or storage, or of other names, have the same one.
        """
        dataset = manager.create_torch_dataset()
        rows = self.control_rows(manager.adata) if rows is None else rows
        cells = []
        for i in range(0, len(rows), _BATCH):
            batch = dataset[rows[i : i + _BATCH]]
            values = np.hstack([np.asarray(batch[key], dtype="<f4") for key in _READ if key in batch])
            values += 0.0  # a negative zero is a zero
            cells += [hashlib.blake2b(cell.tobytes(), digest_size=16).digest() for cell in values]
        return hashlib.blake2b(b"".join(sorted(cells)), digest_size=16).hexdigest()

    @staticmethod
    def control_rows(adata: AnnData) -> np.ndarray:
        """Rows of the control cells of registered data, or all rows where there are none."""
        if MASK_KEY not in adata.obsm:  # of a query, all cells are controls
            return np.arange(adata.n_obs)
        rows = np.flatnonzero(np.asarray(adata.obsm[MASK_KEY].sum(1)).ravel() == 0)
        return rows if len(rows) else np.arange(adata.n_obs)

    @property
    def by_name(self) -> bool:
        """Whether random numbers are given out in the order of names; those of the published losses are not."""
        return bool(self.module.config.perturbed_prior)

    def in_order(self, adata: AnnData, rows: np.ndarray) -> np.ndarray:
        """Rows of cells in the order in which random numbers are given to them: of their names, or of the file."""
        rows = np.sort(rows)
        return rows[_name_order_of(adata, rows)] if self.by_name else rows

    def start_rows(self, adata: AnnData, n_cells: int | None, rng: np.random.Generator, *, replace: bool) -> np.ndarray:
        """Rows of the control cells that a prediction starts from, in the order of draws; all of them for None."""
        rows = self.in_order(adata, self.control_rows(adata))
        if n_cells is not None:
            check_integer("n_cells", n_cells, 1)
        if n_cells is not None and (n_cells < len(rows) or replace):
            rows = rng.choice(rows, n_cells, replace=n_cells > len(rows))
        return self.in_order(adata, rows)


def _name_order_of(adata: AnnData, rows: np.ndarray) -> np.ndarray:
    """Order of rows by the names of their cells, in which a cell may be several times."""
    used, which = np.unique(rows, return_inverse=True)
    return np.argsort(places(name_order(adata.obs_names[used]))[which], kind="stable")


def draw_seed(seed: int | None) -> int:
    """Seed that is asked for, or else ``scvi.settings.seed``, or 0."""
    if seed is not None:
        return check_integer("seed", seed, 0)
    return 0 if settings.seed is None else int(settings.seed)


def genes_of(cells: AnnData, var_names: Sequence[str]) -> pd.DataFrame:
    """Table of the model's genes, in its order, which that of cells in a file need not be."""
    found: pd.DataFrame = cells.var if list(cells.var_names) == list(var_names) else cells.var.loc[list(var_names)]
    return found.copy()
