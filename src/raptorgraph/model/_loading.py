"""Files of saved models, and cells for them: on this or another machine, with genes matched by name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from zipfile import ZipFile, is_zipfile

from anndata import AnnData
from mudata import MuData
from scvi.model.base._save_load import _load_saved_files

from raptorgraph._logging import quietly
from raptorgraph._progress import progress_line
from raptorgraph.model._mudata import EXPRESSION_KEY, label_cells, query_expression
from raptorgraph.model._query import align_genes, check_genes
from raptorgraph.model._setup import check_transfer
from raptorgraph.screen import Setup
from raptorgraph.screen._files import check_cells
from raptorgraph.screen._modalities import refresh, strip_modality_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from raptorgraph.model._types import Data

Model = TypeVar("Model")


@progress_line("Loading")
@quietly
def load(
    parent_load: Callable[..., Model], folder: str | Path, adata: Data | bool | None, *args: Any, **kwargs: Any
) -> Model:
    """Load a saved model; cells that are given get the genes of the model in its order, and are registered."""
    _check_files(Path(folder), adata, kwargs)
    if not isinstance(adata, AnnData | MuData):
        return _build(parent_load, folder, adata, *args, **kwargs)
    # To the CPU, since a model that was saved from a GPU must open where there is none.
    files = {name: kwargs[name] for name in ("prefix", "backup_url") if name in kwargs}
    attributes, var_names, _, _ = _load_saved_files(folder, load_adata=False, map_location="cpu", **files)
    cells, registry = adata, attributes["registry_"]
    if isinstance(adata, MuData):
        mudata_args, setup = attributes.get("mudata_args_"), Setup.of(registry["setup_args"])
        cells = query_expression(adata, mudata_args, setup, labels=False)
        if setup.perturbation_key not in cells.obs:
            cells = label_cells(adata, mudata_args, setup)
        strip_modality_names(adata, mudata_args["modalities"]["expression"])
    check_genes(cells, list(var_names))
    check_transfer(cells, registry)
    layer = Setup.of(registry["setup_args"]).layer
    model = _build(parent_load, folder, align_genes(cells, list(var_names), layer), *args, **kwargs)
    if isinstance(adata, MuData):
        adata.uns[EXPRESSION_KEY] = mudata_args["modalities"]["expression"]
        refresh(adata)
    return model


def _build(parent_load: Callable[..., Model], *args: Any, **kwargs: Any) -> Model:
    """Build the model without warnings of old names of its settings, which are in the file and not in the call."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "effect_posterior: .* is now", FutureWarning)
        # Data that are not in memory keep their order, and the model reads them in its own.
        warnings.filterwarnings("ignore", "`var_names` for the loaded `model` does not match", UserWarning)
        return parent_load(*args, **kwargs)


def _check_files(folder: Path, adata: Data | bool | None, kwargs: Mapping[str, Any]) -> None:
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
