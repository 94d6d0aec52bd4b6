"""What is saved of a model: settings, registry, weights and statistics, in files that run no code."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile, is_zipfile

import anndata as ad
from scvi.data._constants import _SCVI_UUID_KEY
from scvi.model.base._save_load import _load_saved_files

from raptorgraph._files import remove, write_h5ad
from raptorgraph.model._records import Kind, check_seal, file_of, read, write
from raptorgraph.screen._files import check_cells

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from anndata import AnnData

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.model._module import RaptorGraphModule

KIND = Kind("raptorgraph model", 1)
_CELLS = "adata.h5ad"
_PICKLED = "model.pt"  # of scvi-tools' own format


@dataclass(frozen=True)
class Saved:
    """A model as it was saved.

    Attributes
    ----------
    attributes
        Of the model, by their names, which end with an underscore.
    weights
        State of its module.
    frozen
        Names of the weights that are not trained.
    cells
        File with its data, and what is known of it (None for a model of an earlier release); None without data.
    """

    attributes: dict[str, Any]
    weights: dict[str, Any]
    frozen: Collection[str] = ()
    cells: tuple[Path, Mapping[str, Any] | None] | None = field(default=None)

    @property
    def registry(self) -> dict[str, Any]:
        """Registry of the data."""
        registry: dict[str, Any] = self.attributes["registry_"]
        return registry

    def read_cells(self) -> AnnData | None:
        """The data that were saved with the model; ValueError where they are damaged, None without."""
        if self.cells is None:
            return None
        path, seal = self.cells
        if seal is not None:
            check_seal(path, seal)
        check_cells(path)
        return ad.read_h5ad(path)


def write_model(model: RaptorGraphModel, folder: Path, prefix: str, *, with_cells: bool, **arguments: Any) -> None:
    """Save a model in a folder, in place of an earlier one of this prefix; the `arguments` are of ``write_h5ad``."""
    attributes = {name: value for name, value in sorted(vars(model).items()) if _is_kept(name)}
    registry = dict(attributes["registry_"])
    registry.pop(_SCVI_UUID_KEY, None)  # of the data in memory: a random number
    attributes["registry_"] = registry
    if not attributes["run_id_"]:  # the time at which the model was made: the name of a run that nobody followed
        attributes.pop("run_name_", None)
    values = {"attributes": attributes, "weights": dict(model.module.state_dict()), "frozen": frozen_of(model.module)}
    adata = model.adata
    files = {}
    if with_cells and adata is not None:
        files[f"{prefix}{_CELLS}"] = lambda path: write_h5ad(path, adata, **arguments)
    write(folder, f"{prefix}model", KIND, values, files)
    remove(folder / f"{prefix}{_PICKLED}")


def read_model(folder: Path, prefix: str) -> Saved:
    """Read a saved model; ValueError that names the file that is missing, damaged, or of a later format."""
    file = folder / f"{prefix}model.json"
    if not file.is_file():
        pickled = folder / f"{prefix}{_PICKLED}"
        if pickled.is_file():
            raise ValueError(
                f"{str(pickled)!r} is a model of an earlier release: a pickle, which runs what code it holds when it "
                "is read. If you trust it, load it once, load(folder, ..., allow_pickle=True), and save it again, "
                "save(folder, overwrite=True)."
            )
        raise ValueError(f"There is no model in {str(folder)!r}: no file {file.name!r}, which model.save writes.")
    record = read(folder, f"{prefix}model", KIND)
    try:
        attributes, weights, frozen = (record.values[name] for name in ("attributes", "weights", "frozen"))
        missing = {"registry_", "init_params_", "var_names_"} - set(attributes)
        odd = [name for name in attributes if not _is_kept(name)]
        if missing or odd:
            raise ValueError(f"{str(file)!r} is no model of raptorgraph: it lacks {sorted(missing)}, and has {odd}.")
    except (LookupError, TypeError) as error:
        raise ValueError(f"{str(file)!r} is no model of raptorgraph: it lacks {error}.") from error
    name = f"{prefix}{_CELLS}"
    cells = (file_of(folder, name, record.files[name]), record.files[name]) if name in record.files else None
    return Saved(attributes, weights, frozen, cells)


def read_pickle(folder: Path, prefix: str, backup_url: str | None) -> Saved:
    """Read a model of an earlier release, in scvi-tools' own format, which runs what code it holds."""
    file, cells = folder / f"{prefix}{_PICKLED}", folder / f"{prefix}{_CELLS}"
    if backup_url is None:
        if not file.is_file():
            raise ValueError(f"There is no model in {str(folder)!r}: no file {file.name!r}.")
        if not is_zipfile(file) or not any(name.endswith("data.pkl") for name in ZipFile(file).namelist()):
            raise ValueError(f"{str(file)!r} is damaged, was not copied as a whole, or is no saved model.")
    warnings.warn(
        f"{str(file)!r} is a pickle, which runs what code it holds: trust it, or do not load it. "
        "save(folder, overwrite=True) writes the model in a format that runs none.",
        UserWarning,
        stacklevel=7,
    )
    # To the CPU, since a model that was saved from a GPU must open where there is none.
    attributes, names, weights, _ = _load_saved_files(
        str(folder), load_adata=False, prefix=prefix or None, map_location="cpu", backup_url=backup_url
    )
    weights.pop("pyro_param_store", None)
    return Saved({"var_names_": list(names), **attributes}, weights, (), (cells, None) if cells.is_file() else None)


def frozen_of(module: RaptorGraphModule) -> list[str]:
    """Names of the weights that are not trained, as those of a graph that was inferred."""
    return [name for name, parameter in module.named_parameters() if not parameter.requires_grad]


def freeze(module: RaptorGraphModule, names: Collection[str]) -> None:
    """Let these weights, and no others, be left as they are in training."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in names)


def _is_kept(name: str) -> bool:
    """Whether an attribute of a model is saved: as in scvi-tools, where its name ends with an underscore."""
    return name.isidentifier() and name.endswith("_") and not name.startswith("_")
