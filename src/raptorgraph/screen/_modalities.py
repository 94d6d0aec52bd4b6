"""Work on the modalities of a MuData."""

from __future__ import annotations

import warnings
from collections.abc import MutableMapping
from typing import TYPE_CHECKING

import numpy as np

from raptorgraph.screen._names import strip_gene_names

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData


def modality(mdata: MuData, name: str, argument: str) -> AnnData:
    """Modality `name`; KeyError naming the argument that asked for it, ValueError for a view."""
    if name not in mdata.mod:
        raise KeyError(f"{argument}={name!r} is not a modality of the MuData, which has {list(mdata.mod)}.")
    if mdata.is_view or mdata.mod[name].is_view:
        raise ValueError("mdata is a view of another MuData; pass a copy: mdata = mdata.copy().")
    return mdata.mod[name]


def drop_cells(data: AnnData | MuData, names: pd.Index) -> None:
    """Take the named cells out, in place and out of every modality."""
    for part in data.mod.values() if hasattr(data, "mod") else [data]:
        keep = ~part.obs_names.isin(names)
        if not keep.all():
            part._inplace_subset_obs(np.flatnonzero(keep))


def strip_modality_names(mdata: MuData, name: str) -> None:
    """Take the blanks around a modality's ``var_names`` away, and in the whole, so that its annotation stays theirs."""
    of_modality = np.asarray(mdata.varmap[name]).ravel() > 0
    whole = mdata.var_names.where(~of_modality, mdata.var_names.str.strip())
    strip_gene_names(mdata.mod[name])
    mdata.var.index = whole


def refresh(mdata: MuData) -> None:
    """Bring names and order of the whole up to those of its modalities."""
    with warnings.catch_warnings():
        # Announced at each update until the user sets mudata's option, which is not for us to set.
        warnings.filterwarnings("ignore", message=r"From 0\.4 \.update\(\)", category=FutureWarning)
        mdata.update()
    _order_genes(mdata)


def _order_genes(mdata: MuData) -> None:
    """Put the whole's genes in the order of the modalities, which an update that pulls no columns does not do."""
    places, offset = np.full(mdata.n_vars, np.inf), 0
    for name, part in mdata.mod.items():
        place = np.asarray(mdata.varmap[name]).ravel()  # 1 is the first gene, 0 is none
        places = np.where(place > 0, np.minimum(places, offset + place), places)
        offset += part.n_vars
    order = np.argsort(places, kind="stable")
    if (np.diff(order) == 1).all():
        return
    arrays = {name: dict(getattr(mdata, name)) for name in ("varm", "varp")}
    for name, place in dict(mdata.varmap).items():
        if isinstance(mdata.varmap, MutableMapping):
            mdata.varmap[name] = place[order]
        else:  # some mudata before 0.4 hand out a mapping that is read-only, of arrays that are not
            place[:] = place[order]
    mdata.var = mdata.var.iloc[order]
    for name, found in arrays.items():
        for key, values in found.items():
            values = values.iloc[order] if hasattr(values, "iloc") else values[order]
            getattr(mdata, name)[key] = values[:, order] if name == "varp" else values
