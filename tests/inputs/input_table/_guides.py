"""The column of ``obs`` with the guide of each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from input_table._row import LABELS, N_CELLS, Row, refused, same

if TYPE_CHECKING:
    from collections.abc import Callable

    import anndata as ad

G = "Guides"
KEY = {"guide_key": "sgrna"}
NAMES = np.array([f"{label}_{i % 2 + 1}" for i, label in enumerate(LABELS)], dtype=object)


def guides(values: Any) -> Callable[[ad.AnnData], None]:
    """Change that adds the column."""

    def change(adata: ad.AnnData) -> None:
        adata.obs["sgrna"] = values

    return change


def with_missing(cell: int, value: Any = None) -> np.ndarray:
    found = NAMES.copy()
    found[cell] = value
    return found


ROWS: list[Row] = [
    same(G, "names", guides(NAMES), **KEY),
    same(G, "categories", guides(pd.Categorical(NAMES)), **KEY),
    same(G, "none of a control cell", guides(with_missing(3)), **KEY),
    same(G, "of a pair both, in one value", guides(np.where(LABELS == "BAK1+KLF1", "BAK1_1|KLF1_2", NAMES)), **KEY),
    same(G, "of a pair the first alone", guides(np.where(LABELS == "BAK1+KLF1", "BAK1_1", NAMES)), **KEY),
    same(G, "a guide for each cell", guides([f"guide{i}" for i in range(N_CELLS)]), **KEY),
    refused(
        G,
        "a column that is not there",
        lambda adata: None,
        KeyError,
        "guide_key='sgrna' is not a column of adata.obs",
        **KEY,
    ),
    refused(
        G,
        "none of a perturbed cell",
        guides(with_missing(15)),
        ValueError,
        "guide_key='sgrna' is missing for 1 perturbed cell (first: cell15)",
        **KEY,
    ),
    refused(
        G,
        "empty text in a perturbed cell",
        guides(with_missing(15, "")),
        ValueError,
        "guide_key='sgrna' is missing for 1 perturbed cell (first: cell15)",
        **KEY,
    ),
    refused(
        G,
        "a guide of two genes",
        guides(np.where(np.isin(LABELS, ["KLF1", "BAK1"]), "g1", NAMES)),
        ValueError,
        "'g1' is in cells of 'BAK1' and 'KLF1', which have no gene in common",
        **KEY,
    ),
    refused(
        G,
        "numbers of the guides of each gene",
        guides(np.arange(N_CELLS) % 2 + 1),
        ValueError,
        "put the gene before: adata.obs['sgrna'] = adata.obs['perturbation'].astype(str) + '_'",
        **KEY,
    ),
    refused(
        G,
        "the column of batches",
        lambda adata: None,
        ValueError,
        "guide_key='lane' is the batch_key already",
        batch_key="lane",
        guide_key="lane",
    ),
    refused(
        G, "the column of labels", lambda adata: None, ValueError, "is the perturbation_key", guide_key="perturbation"
    ),
    refused(
        G,
        "a key that is no text",
        lambda adata: None,
        TypeError,
        "guide_key=['sgrna'] must be the name of a column",
        guide_key=["sgrna"],
    ),
]
