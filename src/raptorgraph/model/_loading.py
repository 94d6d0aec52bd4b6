"""Other cells than those of the training, and saved models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile, is_zipfile

import rich.pretty  # noqa: F401  scvi-tools' view_anndata_setup takes it to be imported
from anndata import AnnData
from mudata import MuData
from scvi.model.base._save_load import _load_saved_files

from raptorgraph._logging import quietly
from raptorgraph._progress import progress_line
from raptorgraph.model._mudata import EXPRESSION_KEY, label_cells, query_expression
from raptorgraph.model._query import align_genes, check_genes, prepare_query
from raptorgraph.model._setup import check_transfer
from raptorgraph.pp._files import check_cells
from raptorgraph.pp._modalities import refresh, strip_modality_names

if TYPE_CHECKING:
    from raptorgraph.model import RaptorGraphModel


class LoadingMixin:
    """Data are matched by name, in queries and when a model is loaded."""

    def _data(self, adata: AnnData | MuData | None = None, *, labels: bool = False) -> AnnData:
        """The cells that are given, or else the model's own; ValueError where it has none."""
        adata = self.adata if adata is None else self._expression(adata, labels=labels)
        if adata is None:
            raise ValueError("The model was loaded without data: pass adata=...")
        return adata

    def _validate_anndata(self, adata: AnnData | None = None, copy_if_view: bool = True) -> AnnData:
        """Match genes by name and register; a query is worked on as a copy, the user's object stays as it is."""
        adata = self._data(adata)
        if adata is self.adata:
            self.adata_manager.validate()
            return super()._validate_anndata(None, copy_if_view)
        query = prepare_query(adata, self.var_names_, self.setup_args, counts=self.module.counts)
        kept, manager = self._adata, self._adata_manager
        query = super()._validate_anndata(query, copy_if_view)
        if kept is None:  # the parent adopts the first query of a model without data
            self._adata, self._adata_manager = kept, manager
        return query

    @classmethod
    @progress_line("Loading")
    @quietly
    def load(cls, dir_path: str, adata: AnnData | MuData | bool | None = None, *args, **kwargs) -> RaptorGraphModel:
        """Load a saved model, on this or another machine.

        Parameters
        ----------
        dir_path
            Folder to which :meth:`save` wrote.
        adata
            Cells like those that the model was trained on; they are registered, in place, and genes are matched by
            name. Of a MuData, guides are called as they were in training where its cells have no labels yet, and
            cells are dropped as they were. None takes the data that were saved with the model. False loads the model
            without data: it can say what it has learned, and other methods take their cells as an argument.
        *args, **kwargs
            As in scvi-tools: ``accelerator``, ``device``, ``prefix``, ``backup_url``.

        Returns
        -------
        The model.

        Raises
        ------
        ValueError
            If there is no model, its file is damaged, it is of another class, or the data lack genes, labels or control
            cells.

        Examples
        --------
        >>> model.save("fitted", save_anndata=True)
        >>> rg.RaptorGraphModel.load("fitted").predict_effects("P01").equals(model.predict_effects("P01"))
        True
        >>> rg.RaptorGraphModel.load("fitted", adata=False).perturbed_genes == model.perturbed_genes
        True
        """
        _check_files(Path(dir_path), adata, kwargs)
        if not isinstance(adata, AnnData | MuData):
            return super().load(dir_path, adata, *args, **kwargs)
        # To the CPU, since a model that was saved from a GPU must open where there is none.
        files = {name: kwargs[name] for name in ("prefix", "backup_url") if name in kwargs}
        attributes, var_names, _, _ = _load_saved_files(dir_path, load_adata=False, map_location="cpu", **files)
        cells, registry = adata, attributes["registry_"]
        if isinstance(adata, MuData):
            mudata_args, setup_args = attributes.get("mudata_args_"), registry["setup_args"]
            cells = query_expression(adata, mudata_args, setup_args, labels=False)
            if setup_args["perturbation_key"] not in cells.obs:
                cells = label_cells(adata, mudata_args, setup_args)
            strip_modality_names(adata, mudata_args["modalities"]["expression"])
        check_genes(cells, list(var_names))
        check_transfer(cells, registry)
        model = super().load(dir_path, align_genes(cells, list(var_names)), *args, **kwargs)
        if isinstance(adata, MuData):
            adata.uns[EXPRESSION_KEY] = mudata_args["modalities"]["expression"]
            refresh(adata)
        return model

    def view_anndata_setup(self, adata: AnnData | MuData | None = None, hide_state_registries: bool = False) -> None:
        """Print how the data were registered.

        Parameters
        ----------
        adata
            Registered data; by default those of the model.
        hide_state_registries
            Leave out the table of each field, such as the perturbed genes.

        Raises
        ------
        ValueError
            For data that were not registered, and where a model was loaded without data and none are given.

        Examples
        --------
        >>> model.view_anndata_setup(hide_state_registries=True)  # doctest: +ELLIPSIS
        Anndata setup with scvi-tools version ...
        """
        adata = self._data(adata)
        super().view_anndata_setup(adata, hide_state_registries)


def _check_files(folder: Path, adata: AnnData | MuData | bool | None, kwargs: dict) -> None:
    """ValueError that names the file where a saved model is not there, is damaged or is something else."""
    if kwargs.get("backup_url") is not None:
        return  # scvi-tools fetches it
    prefix = kwargs.get("prefix") or ""
    file = folder / f"{prefix}model.pt"
    if not file.is_file():
        raise ValueError(f"There is no model in {str(folder)!r}: no file {file.name!r}, which model.save writes.")
    if not is_zipfile(file) or not any(name.endswith("data.pkl") for name in ZipFile(file).namelist()):
        raise ValueError(f"{str(file)!r} is damaged, was not copied as a whole, or is no saved model.")
    cells = folder / f"{prefix}adata.h5ad"
    if adata is None and cells.is_file():
        check_cells(cells)
