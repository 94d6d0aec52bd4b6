"""What users of scvi-tools look for: saving and loading as there, and what this model answers otherwise."""

from __future__ import annotations

from inspect import getattr_static
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np
import rich.pretty  # noqa: F401  scvi-tools' view_anndata_setup takes it to be imported
from mudata import MuData
from scvi.model.base import BaseModelClass
from scvi.train import TrainRunner

from raptorgraph.model._cells import Cells
from raptorgraph.model._loading import load
from raptorgraph.model._module import RaptorGraphModule
from raptorgraph.model._mudata import EXPRESSION_KEY
from raptorgraph.model._plan import RaptorGraphTrainingPlan
from raptorgraph.model._splitter import ScreenSplitter

if TYPE_CHECKING:
    from pathlib import Path

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
    _train_runner_cls = TrainRunner

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
        return Cells(self.module, own, self.registry_, self.var_names_, args, self.is_trained_)

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
    convert_legacy_save = NotOffered("there are no saved models of an older format; use load(folder)")
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
        *args: Any,
        **kwargs: Any,
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
        if save_anndata and self.adata is None:
            raise ValueError(
                "The model was loaded without data: there are none to save; load(folder, adata) gives it data."
            )
        trainer = getattr(self, "trainer", None)  # a loaded model has none
        if trainer is not None and trainer.global_rank > 0:
            return
        if save_anndata and self.adata_manager.stored is not None:
            raise ValueError(
                "The cells are in a file of their own: leave out save_anndata, and load the model with that file, "
                "load(folder, adata)."
            )
        super().save(dir_path, prefix, overwrite, save_anndata, *args, **kwargs)

    @classmethod
    def load(cls, dir_path: str | Path, adata: Data | bool | None = None, *args: Any, **kwargs: Any) -> Self:
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
        model: Self = load(super().load, dir_path, adata, *args, **kwargs)
        return model
