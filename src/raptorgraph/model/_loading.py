"""Files of saved models, and cells for them: on this or another machine, with genes matched by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zipfile import ZipFile, is_zipfile

from mudata import MuData
from scvi.model.base._save_load import _load_saved_files

from raptorgraph.model._mudata import label_cells, query_expression
from raptorgraph.model._query import align_genes, check_genes
from raptorgraph.model._setup import check_transfer
from raptorgraph.screen._files import check_cells
from raptorgraph.screen._modalities import strip_modality_names

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData

    from raptorgraph.model._types import Data


def saved_cells(folder: str | Path, adata: Data, kwargs: Mapping[str, Any]) -> AnnData:
    """Cells for a saved model, with its genes in its order; ValueError where they lack genes, labels or controls."""
    # To the CPU, since a model that was saved from a GPU must open where there is none.
    files = {name: kwargs[name] for name in ("prefix", "backup_url") if name in kwargs}
    attributes, var_names, _, _ = _load_saved_files(folder, load_adata=False, map_location="cpu", **files)
    cells, registry = adata, attributes["registry_"]
    if isinstance(adata, MuData):
        mudata_args, setup_args = attributes.get("mudata_args_"), registry["setup_args"]
        cells = query_expression(adata, mudata_args, setup_args, labels=False)
        if setup_args["perturbation_key"] not in cells.obs:
            cells = label_cells(adata, mudata_args, setup_args)
        strip_modality_names(adata, mudata_args["modalities"]["expression"])
    check_genes(cells, list(var_names))
    check_transfer(cells, registry)
    return align_genes(cells, list(var_names))


def check_files(folder: Path, adata: Data | bool | None, kwargs: Mapping[str, Any]) -> None:
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
