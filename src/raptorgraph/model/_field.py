"""AnnData field of perturbations: labels in obs, a sparse cells x perturbed genes mask in obsm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import rich.table
from scvi.data.fields import BaseAnnDataField

from raptorgraph.screen._cell_labels import parse_obs
from raptorgraph.screen._screen import order_genes, sparse_design

if TYPE_CHECKING:
    from anndata import AnnData

    from raptorgraph.screen import Setup
    from raptorgraph.screen._labels import ParsedLabels


class Keys(NamedTuple):
    """Names of the tensors in a batch."""

    X: str = "X"
    LIBRARY: str = "library_size"
    PERTURBATION: str = "perturbation"
    BATCH: str = "batch"
    CATEGORICAL: str = "extra_categorical_covs"
    CONTINUOUS: str = "extra_continuous_covs"


KEYS = Keys()
MASK_KEY = "_scvi_perturbation"
LIBRARY_KEY = "_scvi_library_size"


class PerturbationField(BaseAnnDataField):  # type: ignore[misc]  # scvi-tools has no types
    """Write the genes that each cell's label names to ``obsm["_scvi_perturbation"]`` (CSR, cells x genes).

    `parsed` are the labels of the cells to be registered, where they are known already.
    """

    registry_key = KEYS.PERTURBATION
    attr_name = "obsm"
    attr_key = MASK_KEY
    is_empty = False

    def __init__(self, setup: Setup, parsed: ParsedLabels | None = None) -> None:
        self.setup, self.parsed = setup, parsed

    def validate_field(self, adata: AnnData) -> None:
        """Do nothing: labels are checked where they are parsed."""

    def _parse(self, adata: AnnData, *, require_control: bool = False) -> ParsedLabels:
        key = self.setup.perturbation_key
        return parse_obs(adata, key, **self.setup.spelling, require_control=require_control)

    def _write_mask(self, adata: AnnData, parsed: ParsedLabels, genes: list[str]) -> None:
        unknown = sorted(set(parsed.genes) - set(genes))
        if unknown:
            raise ValueError(
                f"obs[{self.setup.perturbation_key!r}] perturbs genes that the model was not trained on: "
                f"{', '.join(unknown[:10])}. It knows the perturbed genes of its training screen only: drop these "
                "cells or relabel them."
            )
        adata.obsm[MASK_KEY] = sparse_design(parsed.conditions, genes).astype(np.float32)[parsed.codes]

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Write the genes; return the state that a model keeps."""
        parsed = self._parse(adata, require_control=True) if self.parsed is None else self.parsed
        genes = order_genes(parsed.genes, adata.var_names)
        self._write_mask(adata, parsed, genes)
        return {
            "perturbed_genes": genes,
            "n_targets": len(set(genes) & set(adata.var_names)),
            "conditions": [list(condition) for condition in parsed.conditions],
            "control": self.setup["control"],
            "delimiter": self.setup.delimiter,
            "perturbation_key": self.setup.perturbation_key,
        }

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """Write the genes of other cells, all of which the model must know."""
        self._write_mask(adata_target, self._parse(adata_target), state_registry["perturbed_genes"])
        return dict(state_registry)

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        return {"n_perturbed": len(state_registry["perturbed_genes"])}

    def view_state_registry(self, state_registry: dict[str, Any]) -> rich.table.Table:
        table = rich.table.Table(title="perturbation State Registry")
        for name in ("Latent", "Perturbed gene", "In var_names"):
            table.add_column(name)
        for i, gene in enumerate(state_registry["perturbed_genes"]):
            table.add_row(str(i), gene, "yes" if i < state_registry["n_targets"] else "no")
        return table
