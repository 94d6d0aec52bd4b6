"""Build a saved model, and prepare cells for it: on this or another machine, with genes matched by name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anndata import AnnData
from mudata import MuData
from scvi.model._utils import parse_device_args

from raptorgraph._failures import one_line
from raptorgraph._logging import quietly
from raptorgraph._progress import progress_line
from raptorgraph.model._mudata import EXPRESSION_KEY, label_cells, query_expression
from raptorgraph.model._query import align_genes, check_genes
from raptorgraph.model._saved import freeze, read_model, read_pickle
from raptorgraph.model._setup import check_transfer
from raptorgraph.model._status import warn_of_state
from raptorgraph.screen import Setup
from raptorgraph.screen._modalities import refresh, strip_modality_names

if TYPE_CHECKING:
    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.model._saved import Saved
    from raptorgraph.model._types import Data


@progress_line("Loading")
@quietly
def load(
    cls: type[RaptorGraphModel],
    folder: str | Path,
    adata: Data | bool | None,
    *,
    accelerator: str,
    device: int | str,
    prefix: str | None,
    backup_url: str | None,
    allow_pickle: bool,
) -> RaptorGraphModel:
    """Load a saved model; cells that are given get the genes of the model in its order, and are registered."""
    place = parse_device_args(accelerator, device, return_device="torch", validate_single_device=True)[2]
    saved = read_saved(folder, prefix, backup_url=backup_url, allow_pickle=allow_pickle)
    found = saved.registry.get("model_name")
    if found != cls.__name__:
        raise ValueError(f"{str(folder)!r} holds a model of the class {found}, not {cls.__name__}: load it by its own.")
    cells = None
    if adata is None:
        cells = saved.read_cells()
        if cells is None:
            warnings.warn(
                f"No data were saved with the model in {str(folder)!r} and none are given: it is loaded without "
                "anndata. load(folder, adata) gives it data; adata=False says that it needs none.",
                UserWarning,
                stacklevel=5,
            )
    elif isinstance(adata, AnnData | MuData):
        cells = _prepared(saved, adata)
    elif adata is not False:
        raise TypeError(f"adata must be an AnnData, a MuData, None or False, not {type(adata).__name__}.")
    model = _build(cls, saved, cells, str(folder))
    model.to_device(place)
    model.module.eval()
    if cells is not None:
        model._validate_anndata(cells)
    if isinstance(adata, MuData):
        adata.uns[EXPRESSION_KEY] = saved.attributes["mudata_args_"]["modalities"]["expression"]
        refresh(adata)
    warn_of_state(model, stacklevel=6)
    return model


def read_saved(
    folder: str | Path, prefix: str | None = None, *, backup_url: str | None = None, allow_pickle: bool = False
) -> Saved:
    """Read a saved model: the safe format where it is there, and a pickle only where that is asked for."""
    folder, prefix = Path(folder), prefix or ""
    if backup_url is not None and not allow_pickle:
        raise ValueError(
            f"backup_url={backup_url!r} fetches a model in scvi-tools' own format, which runs code when it is read: "
            "give allow_pickle=True if you trust it, or fetch a folder with model.json by other means and load that."
        )
    if allow_pickle and not (folder / f"{prefix}model.json").is_file():
        return read_pickle(folder, prefix, backup_url)
    return read_model(folder, prefix)


def _prepared(saved: Saved, adata: Data) -> AnnData:
    """Cells that are given, checked, and with the genes of the model in its order."""
    cells, registry, names = adata, saved.registry, list(saved.attributes["var_names_"])
    if isinstance(adata, MuData):
        mudata_args: Any = saved.attributes.get("mudata_args_")
        setup = Setup.of(registry["setup_args"])
        cells = query_expression(adata, mudata_args, setup, labels=False)
        if setup.perturbation_key not in cells.obs:
            cells = label_cells(adata, mudata_args, setup)
        strip_modality_names(adata, mudata_args["modalities"]["expression"])
    check_genes(cells, names)
    check_transfer(cells, registry)
    return align_genes(cells, names, Setup.of(registry["setup_args"]).layer)


def _build(cls: type[RaptorGraphModel], saved: Saved, cells: AnnData | None, folder: str) -> RaptorGraphModel:
    """Build the model without warnings of old names of its settings, which are in the file and not in the call."""
    attributes = dict(saved.attributes)
    registry, given = attributes.pop("registry_"), attributes.pop("init_params_")
    arguments = {**given["non_kwargs"], **{k: v for part in given["kwargs"].values() for k, v in part.items()}}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "effect_posterior: .* is now", FutureWarning)
        if cells is not None:
            cls.setup_anndata(cells, source_registry=registry, **registry["setup_args"])
        model = cls(cells, registry=registry, **arguments)
    for name, value in attributes.items():
        setattr(model, name, value)
    try:
        model.module.load_state_dict(saved.weights)
    except (AttributeError, LookupError, RuntimeError, TypeError) as error:
        raise ValueError(f"The weights in {folder!r} do not fit its settings. {one_line(error)[:300]}") from error
    if saved.frozen:
        freeze(model.module, saved.frozen)
    return model
