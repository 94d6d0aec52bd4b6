"""AnnData field of perturbations: labels in obs, a sparse cells x perturbed genes mask in obsm."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import rich.table
from scipy import sparse
from scvi.data.fields import BaseAnnDataField

from raptorgraph.screen._cell_labels import parse_obs


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


def order_genes(genes: tuple[str, ...], var_names) -> list[str]:
    """Perturbed genes with a column in the data first, both parts in alphabetical order."""
    present = set(var_names)
    return [g for g in genes if g in present] + [g for g in genes if g not in present]


class PerturbationField(BaseAnnDataField):
    """Parse ``obs[key]`` into sets of genes and write ``obsm["_scvi_perturbation"]`` (CSR, cells x genes)."""

    def __init__(self, key: str, control: str | list[str], delimiter: str) -> None:
        self.key = key
        self.control = control
        self.delimiter = delimiter

    registry_key = KEYS.PERTURBATION
    attr_name = "obsm"
    attr_key = MASK_KEY
    is_empty = False

    def validate_field(self, adata) -> None:
        parse_obs(adata, self.key, control=self.control, delimiter=self.delimiter)

    def _write_mask(self, adata, genes: list[str]) -> None:
        parsed = parse_obs(adata, self.key, control=self.control, delimiter=self.delimiter)
        unknown = sorted(set(parsed.genes) - set(genes))
        if unknown:
            raise ValueError(
                f"obs[{self.key!r}] perturbs genes that the model was not trained on: {', '.join(unknown[:10])}. "
                "It knows the perturbed genes of its training screen only: drop these cells or relabel them."
            )
        column = {gene: j for j, gene in enumerate(genes)}
        table = sparse.lil_matrix((len(parsed.conditions), len(genes)), dtype=np.float32)
        for i, condition in enumerate(parsed.conditions):
            for gene in condition:
                table[i, column[gene]] = 1.0
        adata.obsm[MASK_KEY] = table.tocsr()[parsed.codes]

    def register_field(self, adata) -> dict:
        parsed = parse_obs(adata, self.key, control=self.control, delimiter=self.delimiter, require_control=True)
        genes = order_genes(parsed.genes, adata.var_names)
        self._write_mask(adata, genes)
        return {
            "perturbed_genes": genes,
            "n_targets": len(set(genes) & set(adata.var_names)),
            "conditions": [list(condition) for condition in parsed.conditions],
            "control": self.control if isinstance(self.control, str) else list(self.control),
            "delimiter": self.delimiter,
            "perturbation_key": self.key,
        }

    def transfer_field(self, state_registry: dict, adata_target, **kwargs) -> dict:
        self._write_mask(adata_target, state_registry["perturbed_genes"])
        return dict(state_registry)

    def get_summary_stats(self, state_registry: dict) -> dict:
        return {"n_perturbed": len(state_registry["perturbed_genes"])}

    def view_state_registry(self, state_registry: dict):
        table = rich.table.Table(title="perturbation State Registry")
        for name in ("Latent", "Perturbed gene", "In var_names"):
            table.add_column(name)
        for i, gene in enumerate(state_registry["perturbed_genes"]):
            table.add_row(str(i), gene, "yes" if i < state_registry["n_targets"] else "no")
        return table
