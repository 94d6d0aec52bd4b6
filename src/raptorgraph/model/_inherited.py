"""What users of scvi-tools look for: saving and loading as there, and what this model answers otherwise."""

from __future__ import annotations

from inspect import getattr_static
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np
import rich.pretty  # noqa: F401  scvi-tools' view_anndata_setup takes it to be imported
from mudata import MuData
from scvi.data import AnnDataManager
from scvi.model.base import BaseModelClass

from raptorgraph.model._cells import Cells
from raptorgraph.model._loading import load, read_saved
from raptorgraph.model._module import RaptorGraphModule
from raptorgraph.model._mudata import EXPRESSION_KEY
from raptorgraph.model._plan import RaptorGraphTrainingPlan
from raptorgraph.model._runner import ScreenRunner
from raptorgraph.model._saved import write_model
from raptorgraph.model._splitter import ScreenSplitter
from raptorgraph.model._status import Stop, warn_of_state, words_of_stop

if TYPE_CHECKING:
    from anndata import AnnData

    from raptorgraph.model._types import Data

_CELLS = "give the cells to the methods themselves, such as predict(..., adata) and get_latent_representation(adata)"


class NotOffered:
    """Attribute of scvi-tools' models that is missing here: an AttributeError names what to call instead."""

    def __init__(self, instead: str) -> None:
        self.instead = instead

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> NoReturn:
        raise AttributeError(f"RaptorGraphModel has no {self.name}: {self.instead}.")


class InheritedModel(BaseModelClass):  # type: ignore[misc]  # scvi-tools has no types
    """scvi-tools' base class, less what does not fit this model; genes of other cells are matched by name."""

    _module_cls = RaptorGraphModule
    _training_plan_cls = RaptorGraphTrainingPlan
    _data_splitter_cls = ScreenSplitter
    _train_runner_cls = ScreenRunner
    stopped_: Stop | None  # how the last training stopped early; None where it did not

    @property
    def setup_args(self) -> dict[str, Any]:
        """Arguments of the registration.

        Examples
        --------
        >>> model.setup_args["library_size_key"]
        'total_counts'
        """
        return dict(self.registry_["setup_args"])

    @property
    def cells(self) -> Cells:
        """Cells of the model, and others, as the network reads them."""
        own, args = self._adata_manager, self.mudata_args_
        told = self.is_trained_ or self.stopped_ is not None  # of the latter the model warns by itself
        return Cells(self.module, own, self.registry_, self.var_names_, args, told)

    differential_expression = NotOffered(
        "predict_effects(perturbations, return_sd=True) gives the effects of perturbations with their standard "
        "deviations, measured_effects() those that were measured"
    )
    differential_abundance = NotOffered(
        "cell states of samples are compared on get_latent_representation(), for example by pertpy's Milo"
    )
    get_elbo = NotOffered(
        "history has the losses of the training; raptorgraph.metrics compares predict_effects with measured_effects()"
    )
    get_reconstruction_error = NotOffered(
        "raptorgraph.metrics.same_cell_mse compares get_counterfactual('control', adata) with measured cells"
    )
    get_marginal_ll = NotOffered("raptorgraph.metrics compares predict() and predict_effects() with held-out cells")
    get_likelihood_parameters = NotOffered(
        "get_normalized_expression() gives the means, predict(..., noise='new') draws from the likelihood"
    )
    posterior_predictive_sample = NotOffered("predict('control', adata, noise='new') draws cells from the likelihood")
    get_feature_correlation_matrix = NotOffered(
        "take correlations of the cells of predict('control', noise='new'); get_dag() is the graph of perturbed genes"
    )
    get_latent_library_size = NotOffered("the model takes library sizes as they are: setup_args['library_size_key']")
    load_query_data = NotOffered(f"nothing is trained on queries; load the model and {_CELLS}")
    prepare_query_anndata = NotOffered(f"genes are matched by name; {_CELLS}")
    prepare_query_mudata = NotOffered(f"genes are matched by name; {_CELLS}")
    minify_adata = NotOffered("a saved model needs no data: save(folder) and load(folder, adata=False)")
    convert_legacy_save = NotOffered(
        "load(folder, adata=False, allow_pickle=True) reads a model of an earlier release, and save(folder, "
        "overwrite=True) writes it in the present format"
    )
    update_setup_method_args = NotOffered("register the screen anew with setup_anndata(...) and train a new model")
    setup_annbatch = NotOffered(
        "cells of a file are read in windows by setup_anndata(adata, ...) itself, with adata = read_h5ad(path, 'r')"
    )
    view_registry = NotOffered("view_anndata_setup() prints how the data were registered")

    def __dir__(self) -> list[str]:
        offered = super().__dir__()
        return [name for name in offered if not isinstance(getattr_static(type(self), name, None), NotOffered)]

    @property
    def adata(self) -> AnnData | None:
        """Data of the model; None where it was loaded without.

        Examples
        --------
        >>> model.adata.shape
        (1100, 100)
        """
        return self._adata

    @adata.setter
    def adata(self, value: object) -> NoReturn:
        raise AttributeError(
            f"The data of a model stay those that it was made or loaded with: {_CELLS}, or use load(folder, adata)."
        )

    def _validate_anndata(self, adata: AnnData | None = None, copy_if_view: bool = True) -> AnnData:
        """Register other cells as scvi-tools asks for it; the user's object stays as it is."""
        manager = self.cells.query(adata)
        if manager is not self._adata_manager:
            self._register_manager_for_instance(manager)
        return manager.adata

    @classmethod
    def _get_most_recent_anndata_manager(cls, adata: Data, required: bool = False) -> Any:
        if isinstance(adata, MuData):
            name = adata.uns.get(EXPRESSION_KEY, "rna")
            raise TypeError(f"This works on an AnnData: pass the modality with the expression, mdata[{name!r}].")
        return super()._get_most_recent_anndata_manager(adata, required)

    def view_anndata_setup(self, adata: Data | None = None, hide_state_registries: bool = False) -> None:
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
        super().view_anndata_setup(self.cells.data(adata), hide_state_registries)

    def get_var_names(self, legacy_mudata_format: bool = False) -> Any:
        """Names of the genes, in the model's order, which that of data in a file need not be.

        Parameters
        ----------
        legacy_mudata_format
            As in scvi-tools.

        Examples
        --------
        >>> list(model.get_var_names()[:2])
        ['P01', 'P02']
        """
        names: Any = super().get_var_names(legacy_mudata_format)
        if self._adata_manager is None or self._adata_manager.stored is None:
            return names
        return np.asarray(self.var_names_, dtype=str)

    def save(
        self,
        dir_path: str | Path,
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        **anndata_write_kwargs: Any,
    ) -> None:
        """Save the model; of several processes that trained it together, the first saves.

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
        **anndata_write_kwargs
            Arguments of ``write_h5ad``, by which the data are written.

        Raises
        ------
        TypeError
            If an attribute of the model whose name ends with an underscore is of a type that is not saved.
        ValueError
            If the folder exists and is not to be overwritten, and if data are to be saved of a model without.

        Warns
        -----
        UnfinishedModelWarning
            If the training stopped early, or weights are not finite.

        Notes
        -----
        Writes ``model.json`` (settings, registry, history, versions, and the SHA-256 of every other file),
        ``model-<hash>.safetensors`` (weights, statistics, posterior, graph) and with `save_anndata` ``adata.h5ad``,
        each after the `prefix`. A model that was saved there before is replaced at once, at the end, with its data: it
        is whole until then. Other files in the folder stay.

        Examples
        --------
        >>> model.save("fitted", overwrite=True)
        >>> rg.RaptorGraphModel.load("fitted", adata=False).is_trained
        True
        """
        if save_anndata and self.adata is None:
            raise ValueError(
                "The model was loaded without data: there are none to save; load(folder, adata) gives it data."
            )
        if anndata_write_kwargs and not save_anndata:
            raise TypeError(f"{sorted(anndata_write_kwargs)} are arguments for the data: give save_anndata=True too.")
        trainer = getattr(self, "trainer", None)  # a loaded model has none
        if trainer is not None and trainer.global_rank > 0:
            return
        if save_anndata and self.adata_manager.stored is not None:
            raise ValueError(
                "The cells are in a file of their own: leave out save_anndata, and load the model with that file, "
                "load(folder, adata)."
            )
        folder = Path(dir_path)
        if folder.exists() and not overwrite:
            raise ValueError(f"{str(folder)!r} already exists: choose another folder, or give overwrite=True.")
        warn_of_state(self)
        write_model(self, folder, prefix or "", with_cells=save_anndata, **anndata_write_kwargs)

    @classmethod
    def load(
        cls,
        dir_path: str | Path,
        adata: Data | bool | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        prefix: str | None = None,
        backup_url: str | None = None,
        *,
        allow_pickle: bool = False,
    ) -> Self:
        """Load a saved model, on this or another machine. It runs no code that a file may hold.

        Parameters
        ----------
        dir_path
            Folder to which :meth:`save` wrote.
        adata
            Cells like those that the model was trained on; they are registered, in place, and genes are matched by
            name. Of a MuData, guides are called as they were in training where its cells have no labels yet, and
            cells are dropped as they were. None takes the data that were saved with the model. False loads the model
            without data: it can say what it has learned, and other methods take their cells as an argument.
        accelerator, device
            Where the network is put, as in scvi-tools.
        prefix
            As in :meth:`save`.
        backup_url
            Address of a ``model.pt``, fetched where it is not in the folder; needs `allow_pickle`.
        allow_pickle
            Read a ``model.pt`` of an earlier release where there is no ``model.json``. It is a pickle, which runs
            whatever code it holds: for files that you trust, once, to save the model again.

        Returns
        -------
        The model.

        Raises
        ------
        ValueError
            If there is no model, a file is missing, damaged, of a later format or a pickle, the model is of another
            class, or the data lack genes, labels or control cells.

        Warns
        -----
        UnfinishedModelWarning
            If the training stopped early, or weights are not finite.

        Examples
        --------
        >>> model.save("fitted", save_anndata=True)
        >>> rg.RaptorGraphModel.load("fitted").predict_effects("P01").equals(model.predict_effects("P01"))
        True
        >>> rg.RaptorGraphModel.load("fitted", adata=False).perturbed_genes == model.perturbed_genes
        True
        """
        model: Self = load(
            cls,
            dir_path,
            adata,
            accelerator=accelerator,
            device=device,
            prefix=prefix,
            backup_url=backup_url,
            allow_pickle=allow_pickle,
        )
        return model

    @staticmethod
    def load_registry(dir_path: str | Path, prefix: str | None = None) -> dict[str, Any]:
        """Registry of the data of a saved model: how they were set up, with genes and conditions.

        Parameters
        ----------
        dir_path, prefix
            As in :meth:`load`.

        Examples
        --------
        >>> model.save("fitted")
        >>> rg.RaptorGraphModel.load_registry("fitted")["setup_args"]["delimiter"]
        '+'
        """
        return read_saved(dir_path, prefix).registry

    @staticmethod
    def view_setup_args(dir_path: str | Path, prefix: str | None = None) -> None:
        """Print how the data of a saved model were set up.

        Parameters
        ----------
        dir_path, prefix
            As in :meth:`load`.

        Examples
        --------
        >>> model.save("fitted")
        >>> rg.RaptorGraphModel.view_setup_args("fitted")  # doctest: +ELLIPSIS
        Setup via `RaptorGraphModel.setup_anndata` with arguments:
        ...
        """
        AnnDataManager.view_setup_method_args(read_saved(dir_path, prefix).registry)

    @property
    def summary_string(self) -> str:
        """What the model is, and whether it is trained, which printing it shows."""
        summary: str = super().summary_string
        return summary if self.stopped_ is None else f"{summary.rpartition(': ')[0]}: {words_of_stop(self.stopped_)}"
