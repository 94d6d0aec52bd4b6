"""MuData: expression in one modality, guides or labels in another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd

import raptorgraph as rg
from input_table._row import LABELS, N_CELLS, Case, Row, equal, plain

if TYPE_CHECKING:
    from collections.abc import Callable

G = "MuData"
BOTH = {"expression": "rna", "guides": "crispr"}
ALONE = {"expression": "rna"}
TARGETS = ["KLF1", "KLF1", "BAK1", "non-targeting"]


def guides() -> ad.AnnData:
    """Counts of guides, from which the labels of the plain screen are called."""
    found = np.zeros((N_CELLS, len(TARGETS)), dtype=np.float32)
    for i, label in enumerate(LABELS):
        for gene in label.replace("control", "non-targeting").split("+"):
            found[i, TARGETS.index(gene) + (gene == "KLF1" and i % 2)] = 40
    var = pd.DataFrame({"target": TARGETS}, index=[f"guide{i}" for i in range(len(TARGETS))])
    return ad.AnnData(found, obs=pd.DataFrame(index=plain().obs_names), var=var)


def whole(*, labels: bool = False, change: Callable[[ad.AnnData, ad.AnnData], Any] | None = None) -> md.MuData:
    """MuData of the plain screen and its guides, with or without the labels."""
    cells, calls = plain(), guides()
    if not labels:
        del cells.obs["perturbation"]
    if change is not None:
        cells, calls = change(cells, calls) or (cells, calls)
    return md.MuData({"rna": cells, "crispr": calls})


def read(have: str, make: Callable[[], md.MuData], *, happens: str = "the same effects", **setup: Any) -> Row:
    """Row of a MuData that is read."""

    def act(case: Case) -> None:
        mdata = make()
        rg.RaptorGraphModel.setup_mudata(mdata, **{"modalities": BOTH, **setup})
        equal(rg.RaptorGraphModel(mdata, n_hidden=4).screen.effects)

    return Row(G, have, happens, act)


def refused(have: str, make: Callable[[], Any], error: type[BaseException], *says: str, **setup: Any) -> Row:
    """Row of a MuData that is not."""

    def act(case: Case) -> None:
        rg.RaptorGraphModel.setup_mudata(make(), **{"modalities": BOTH, **setup})

    return Row(G, have, "", act, error, says)


def no_guide(cells: ad.AnnData, calls: ad.AnnData) -> None:
    calls.X[:3] = 0


def three_genes(cells: ad.AnnData, calls: ad.AnnData) -> None:
    calls.var["target"] = ["KLF1", "MYC", "BAK1", "non-targeting"]
    calls.X[20:22] = 40


def fewer_guides(cells: ad.AnnData, calls: ad.AnnData) -> tuple[ad.AnnData, ad.AnnData]:
    return cells, calls[3:].copy()


def other_order(cells: ad.AnnData, calls: ad.AnnData) -> tuple[ad.AnnData, ad.AnnData]:
    return cells, calls[::-1].copy()


def labels_of_the_whole() -> md.MuData:
    mdata = whole()
    mdata.obs["perturbation"] = pd.Series(LABELS.astype(object), index=plain().obs_names)
    return mdata


def to_anndata(case: Case) -> None:
    rg.RaptorGraphModel.setup_anndata(whole(labels=True))


def to_other_model(case: Case) -> None:
    case.model.get_latent_representation(whole(labels=True))


ROWS: list[Row] = [
    read("guides in a modality", whole, happens="called; the same effects"),
    read("guides of the cells in another order", lambda: whole(change=other_order), happens="matched by name"),
    read("labels in the modality with the expression", lambda: whole(labels=True), modalities=ALONE),
    read("labels in the `obs` of the whole", labels_of_the_whole, modalities=ALONE),
    read(
        "the gene of each guide as a dict", whole, guide_targets={f"guide{i}": gene for i, gene in enumerate(TARGETS)}
    ),
    read(
        "cells without a guide, with `no_guide='control'`",
        lambda: whole(change=no_guide),
        no_guide="control",
        happens="counted as controls",
    ),
    read(
        "cells that the guides lack, with `no_guide='control'`",
        lambda: whole(change=fewer_guides),
        no_guide="control",
        happens="counted as controls",
    ),
    refused(
        "cells without a guide",
        lambda: whole(change=no_guide),
        ValueError,
        "Of 36 cells, 3 have no guide",
        "no_guide='drop'",
    ),
    refused(
        "cells with guides of three genes",
        lambda: whole(change=three_genes),
        ValueError,
        "2 have guides of more than 2 genes",
        "too_many='drop'",
    ),
    refused("labels and guides", lambda: whole(labels=True), ValueError, "is there already"),
    refused("no modalities named", whole, ValueError, "Name the modality with the expression", modalities={}),
    refused(
        "a modality that is not there",
        whole,
        KeyError,
        "'gdo' is not a modality of the MuData",
        modalities={"expression": "rna", "guides": "gdo"},
    ),
    refused(
        "a modality of another kind",
        whole,
        ValueError,
        "modalities has ['protein']",
        modalities={**BOTH, "protein": "adt"},
    ),
    refused("a column of targets that is not there", whole, KeyError, "gene", guide_targets="gene"),
    refused(
        "targets as a list",
        whole,
        TypeError,
        "must be a column of the guides' var, or a mapping",
        guide_targets=TARGETS,
    ),
    refused("unknown arguments for the guides", whole, TypeError, "min_umis", guide_kwargs={"min_umis": 3}),
    refused("a view", lambda: whole()[:30], ValueError, "mdata is a view of another MuData"),
    refused("an AnnData", plain, TypeError, "mdata must be a MuData, not AnnData; use setup_anndata"),
    Row(
        G,
        "a MuData for `setup_anndata`",
        "",
        to_anndata,
        TypeError,
        ("adata must be an AnnData, not MuData; use setup_mudata",),
    ),
    Row(
        G,
        "a MuData for a model of an AnnData",
        "",
        to_other_model,
        ValueError,
        ("The model was set up with an AnnData: pass the modality with the expression",),
    ),
]
