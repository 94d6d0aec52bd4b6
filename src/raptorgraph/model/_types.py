"""Types of what users give to a model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeAlias

from anndata import AnnData
from mudata import MuData

Perturbations: TypeAlias = str | Collection[str] | Sequence[str | Collection[str]]
"""A label, the genes of one perturbation as a tuple or set, or a list of these."""

Data: TypeAlias = AnnData | MuData
"""Cells, or a MuData with them as one modality."""
