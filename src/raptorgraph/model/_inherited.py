"""What users of scvi-tools look for: setup, saving and loading as there, and what this model answers otherwise."""

from __future__ import annotations

from inspect import getattr_static
from typing import TYPE_CHECKING, Any, NoReturn, Self

import rich.pretty  # noqa: F401  scvi-tools' view_anndata_setup takes it to be imported
from scvi.model.base import BaseModelClass
from scvi.train import TrainRunner

from raptorgraph.model._cells import Cells
from raptorgraph.model._loading import load
from raptorgraph.model._module import RaptorGraphModule
from raptorgraph.model._plan import RaptorGraphTrainingPlan
from raptorgraph.model._setup import plain_names, register
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
    def cells(self) -> Cells:
        """Cells of the model, and others, as the network reads them."""
        own, args = self._adata_manager, self.mudata_args_
        return Cells(self.module, own, self.registry_, self.var_names_, args, self.is_trained_)

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        perturbation_key: str = "perturbation",
        *,
        control: str | list[str] = "control",
        delimiter: str = "+",
        layer: str | None = None,
        library_size_key: str | None = None,
        batch_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Register a screen; puts the perturbed genes first in ``adata.var``, in place.

        Every aligned slot (X, layers, varm, varp) moves along; ``raw`` stays as it is. A second call changes
        nothing. All checks come first: on an error ``adata`` is as it was.

        Parameters
        ----------
        adata
            Cells x genes, counts or log-normalized values, of any type of number, dense or sparse.
        perturbation_key
            Column of ``obs`` with the labels.
        control
            Label or labels of control cells.
        delimiter
            Between the genes of a combination. ``A+B`` and ``B+A`` are the same.
        layer
            Layer with the values; by default ``X``.
        library_size_key
            Column of ``obs`` with the total counts of each cell over all genes, at least the sum of its row, for data
            that hold a part of the genes; by default row sums. Not used for log-normalized values.
        batch_key
            Column of ``obs`` with batches, within which effects are measured; it enters the decoder.
        categorical_covariate_keys
            Columns of ``obs`` with further categories; they enter the decoder.
        continuous_covariate_keys
            Columns of ``obs`` with finite numbers, in any unit; they enter the decoder less their mean over these
            cells and over their standard deviation, and within 10 of these. A query's values are brought to the same
            units, and to the border of the range of these cells where they lie outside.

        Raises
        ------
        ValueError
            For missing labels (text such as ``nan``, ``NA`` or ``None`` is one, unless it is in `control`), an unknown
            control label, fewer than two control cells, views, backed data, names that are not unique, negative,
            non-finite or masked values, values that are neither counts (without rounding errors) nor log values,
            sparse matrices with more room than entries; for library sizes below the row sums in more than half of the
            cells, or below a hundredth of it in one; for covariates that are named twice, or are no finite numbers.
        KeyError
            For columns or layers that are not there.
        TypeError
            For labels that are no strings, for data that are no AnnData, for a matrix of no numbers, and for arguments
            of a wrong type.

        Warns
        -----
        UserWarning
            If a perturbed gene is named like a control, a cell of unknown perturbation, a guide or a dose; if nearly
            no perturbed gene is in ``var_names`` while a column of ``var`` has them, or other letters; if `delimiter`
            cuts the name of a gene; if batches have no control cells, or a batch or covariate is the perturbation;
            if library sizes are below the row sums in a tenth of the cells, or ten thousand times larger; if a
            continuous covariate is constant or has far outliers.

        Notes
        -----
        Blanks around ``var_names`` are taken away, in place; those around labels do not matter.

        Writes ``obsm["_scvi_perturbation"]`` (sparse cells x perturbed genes), ``obs["_scvi_batch"]``, for counts
        ``obs["_scvi_library_size"]``, and scvi-tools' keys in ``uns``.

        Errors about labels name the call that would work, as :func:`raptorgraph.pp.suggest_setup` finds it.

        Examples
        --------
        >>> rg.RaptorGraphModel.setup_anndata(adata, "perturbation", library_size_key="total_counts")
        >>> list(adata.var_names[:3])
        ['P01', 'P02', 'P03']
        """
        control, categorical_covariate_keys, continuous_covariate_keys = plain_names(
            control, categorical_covariate_keys, continuous_covariate_keys
        )
        cls.register_manager(register(cls, adata, cls._get_setup_method_args(**locals()), **kwargs))

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
        "cells are paired with controls in memory: read those that are needed, then setup_anndata(adata, ...)"
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

    def save(
        self,
        dir_path: str | Path,
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        *args: Any,
        **kwargs: Any,
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
        if save_anndata and self.adata is None:
            raise ValueError(
                "The model was loaded without data: there are none to save; load(folder, adata) gives it data."
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
