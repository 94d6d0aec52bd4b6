"""Other cells than those of the training, and saved models."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile, is_zipfile

import rich.pretty  # noqa: F401  scvi-tools' view_anndata_setup takes it to be imported
from anndata import AnnData
from mudata import MuData
from scvi.model.base._save_load import _load_saved_files

from raptorgraph._logging import quietly
from raptorgraph._progress import progress_line
from raptorgraph.model._field import KEYS, MASK_KEY
from raptorgraph.model._mudata import EXPRESSION_KEY, label_cells, query_expression
from raptorgraph.model._query import (
    align_genes,
    check_categories,
    check_genes,
    control_cells,
    known_categories,
    prepare_query,
)
from raptorgraph.model._setup import check_transfer, screen_manager
from raptorgraph.screen import Setup
from raptorgraph.screen._files import check_cells
from raptorgraph.screen._modalities import refresh, strip_modality_names

if TYPE_CHECKING:
    from scvi.data import AnnDataManager

    from raptorgraph.model import RaptorGraphModel


class LoadingMixin:
    """Data are matched by name, in queries and when a model is loaded."""

    def _data(self, adata: AnnData | MuData | None = None, *, labels: bool = False) -> AnnData:
        """The cells that are given, or else the model's own; ValueError where it has none."""
        adata = self.adata if adata is None else self._expression(adata, labels=labels)
        if adata is None:
            raise ValueError("The model was loaded without data: pass adata=...")
        return adata

    def _check_data(self, consequence: str) -> None:
        """Raise where the model has no data of its own, and none can be given."""
        if self.adata is None:
            raise ValueError(f"The model was loaded without data: {consequence}; load(folder, adata) gives it data.")

    def _validate_anndata(self, adata: AnnData | None = None, copy_if_view: bool = True) -> AnnData:
        """Register other cells as scvi-tools asks for it; the user's object stays as it is."""
        manager = self._query(adata)
        if manager is not self._adata_manager:
            self._register_manager_for_instance(manager)
        return manager.adata

    def _query(self, adata: AnnData | MuData | None = None, use: str = "all", *, batch: bool = True) -> AnnDataManager:
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
        adata = self._data(adata, labels=use == "controls")
        if adata is self.adata:
            self.adata_manager.validate()
            super()._validate_anndata(None)
            return self.adata_manager
        args = self.setup_args
        if use == "controls":
            adata = control_cells(adata, args)
        query = prepare_query(adata, self.var_names_, args, counts=self.module.counts)
        used = {KEYS.X, KEYS.LIBRARY}
        if use != "latents":
            used |= {KEYS.CATEGORICAL, KEYS.CONTINUOUS} | ({KEYS.BATCH} if batch else set())
        if use == "all":
            used.add(KEYS.PERTURBATION)
        else:
            query.obsm.pop(MASK_KEY, None)  # of another setup
        known = known_categories(self.registry_)
        used_columns = {column: values for key in known if key in used for column, values in known[key].items()}
        check_categories(query, used_columns, args["batch_key"])
        method_args = {key: self.registry_[key] for key in ("model_name", "setup_args")}
        manager = screen_manager(Setup.of(args), method_args, counts=self.module.counts, only=used)
        with warnings.catch_warnings():
            # Advice on training, of which there is none.
            warnings.filterwarnings("ignore", "Category .* has fewer than 3 cells", UserWarning)
            manager.register_fields(query, self.registry_)
        return manager

    def save(
        self,
        dir_path: str | Path,
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        *args,
        **kwargs,
    ) -> None:
        """Save the model.

        Parameters
        ----------
        dir_path
            Folder, made if it is not there.
        prefix
            Put before the names of the files.
        overwrite
            Write into a folder that exists.
        save_anndata
            Save the data too.
        *args, **kwargs
            As in scvi-tools: ``save_kwargs``, and arguments of ``write_h5ad``.

        Raises
        ------
        ValueError
            If the folder exists and is not to be overwritten, and if data are to be saved of a model without.

        Examples
        --------
        >>> model.save("fitted", overwrite=True)
        >>> rg.RaptorGraphModel.load("fitted", adata=False).is_trained
        True
        """
        if save_anndata:
            self._check_data("there are none to save")
        super().save(dir_path, prefix, overwrite, save_anndata, *args, **kwargs)

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
