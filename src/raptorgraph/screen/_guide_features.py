"""Variables that read a guide rather than a gene: 10x guide capture, and names such as ``sgKLF1`` or ``NT_g1:KLF1_g2``.

They tell which guide a cell carries, not what it does.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph.screen._names import gene_names
from raptorgraph.screen._setup import Setup
from raptorgraph.screen._variants import genes_of_guide

if TYPE_CHECKING:
    from collections.abc import Collection

    from anndata import AnnData

_CAPTURED = "CRISPR Guide Capture"
"""What Cell Ranger writes into ``var["feature_types"]``."""


def guide_features(adata: AnnData, genes: Collection[str]) -> np.ndarray:
    """Which variables read a guide, shape (n_vars,), bool, by their type or by the perturbed `genes` in their name."""
    names = gene_names(adata)
    found = np.array([_reads_guide(name, genes) for name in names], dtype=bool)
    if "feature_types" in adata.var:
        found |= pd.Series(adata.var["feature_types"]).astype(str).to_numpy() == _CAPTURED
    return found


def feature_hint(adata: AnnData, genes: Collection[str], setup: Setup) -> list[str]:
    """A sentence about variables that read guides, where there are any."""
    found = guide_features(adata, genes)
    if not found.any():
        return []
    return [
        f"{found.sum():,} of {adata.n_vars:,} variables read guides and no genes ({examples(adata, found)}): they show "
        "which guide a cell carries and nothing of what it does, so that latents, responders and scores look better "
        f"than they are. Leave them out: {without_guides(setup)}"
    ]


def without_guides(setup: Setup) -> str:
    """The line that leaves them out."""
    given = {"perturbation_key": setup.perturbation_key, "control": setup["control"], "delimiter": setup.delimiter}
    own = [f"{name}={value!r}" for name, value in given.items() if value != Setup()[name]]
    return f"adata = adata[:, ~raptorgraph.pp.guide_features({', '.join(['adata', *own])})].copy()"


def examples(adata: AnnData, found: np.ndarray) -> str:
    """Names of the first of these variables."""
    names = [repr(str(name)) for name in gene_names(adata)[found]]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _reads_guide(name: str, genes: Collection[str]) -> bool:
    """Whether it is a guide, or several, and one of a perturbed gene; no gene is called like a guide."""
    parts = [genes_of_guide(part.strip()) for part in re.split(r"[:;|,&/]", name)]
    of_genes = set.union(*parts) if all(parts) else genes_of_guide(name)  # KLF1|g2 is one
    return bool(of_genes) and (name in genes or not of_genes.isdisjoint(genes))
