"""The column with the guide of each cell: read, and checked against the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph._text import counted, listed
from raptorgraph.screen._inputs import obs_column

if TYPE_CHECKING:
    from anndata import AnnData

    from raptorgraph.screen._labels import ParsedLabels
    from raptorgraph.screen._setup import Setup

_MOST_NAMED = 3  # cells and labels that an error names


def guide_names(adata: AnnData, guide_key: str) -> np.ndarray:
    """Guide of each cell as text, shape (n_cells,); None where it is missing or blank.

    Raises the errors of :func:`~raptorgraph.screen._inputs.obs_column` where there is no such column.
    """
    column = obs_column(adata, guide_key, "guide_key")
    missing = column.isna().to_numpy()
    names = column.astype(object).map(lambda name: str(name).strip()).to_numpy(dtype=object)
    names[missing | (names == "")] = None
    return np.asarray(names, dtype=object)


def check_guides(adata: AnnData, parsed: ParsedLabels, setup: Setup) -> None:
    """Raise where a perturbed cell has no guide, or a guide is in cells of perturbations without a common gene.

    Without a `guide_key` there is nothing to check; control cells need no guide.
    """
    key = setup.guide_key
    if key is None:
        return
    names = guide_names(adata, key)
    perturbed = parsed.codes > 0
    missing = np.flatnonzero(perturbed & pd.isna(names))
    if missing.size:
        first = ", ".join(str(name) for name in adata.obs_names[missing[:_MOST_NAMED]])
        raise ValueError(
            f"guide_key={key!r} is missing for {counted(missing.size, 'perturbed cell')} (first: {first}): name their "
            "guides, or drop the cells."
        )
    found = pd.DataFrame({"guide": names[perturbed], "code": parsed.codes[perturbed]}).drop_duplicates()
    several = found[found.duplicated("guide", keep=False)].groupby("guide")["code"]
    wrong = {
        guide: sorted(setup.label(parsed.conditions[code]) for code in codes)
        for guide, codes in several
        if not set.intersection(*(set(parsed.conditions[code]) for code in codes))
    }
    if wrong:
        guide, labels = next(iter(wrong.items()))
        more = "" if len(wrong) == 1 else f" {counted(len(wrong) - 1, 'other guide')} alike."
        column, label = f"adata.obs[{key!r}]", f"adata.obs[{setup.perturbation_key!r}]"
        raise ValueError(
            f"guide_key={key!r}: {guide!r} is in cells of {listed(map(repr, labels), _MOST_NAMED)}, which have no gene "
            f"in common, and a guide is made against one gene.{more} Correct these cells; or where the column has "
            f"numbers and no names, put the gene before: {column} = {label}.astype(str) + '_' + {column}.astype(str)."
        )
