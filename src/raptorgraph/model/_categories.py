"""AnnData fields of batches and categorical covariates, of which other cells have those that the model knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scvi.data.fields import CategoricalJointObsField, CategoricalObsField

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


class BatchField(CategoricalObsField):  # type: ignore[misc]  # scvi-tools has no types
    """Number the batches.

    scvi-tools warns of few cells in a batch, which is advice on training. Of cells that nothing is trained on it is not
    given: to take it back would be a change of the warnings of all threads.
    """

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """Number the batches of other cells, all of which the model must know."""
        if self.is_default:
            self._setup_default_attr(adata_target)
        self.validate_field(adata_target)
        key, known = self._original_attr_key, state_registry[self.CATEGORICAL_MAPPING_KEY]
        adata_target.obs[self.attr_key] = _known_codes(adata_target.obs[key], known, key)
        return dict(state_registry)


class CategoriesField(CategoricalJointObsField):  # type: ignore[misc]  # scvi-tools has no types
    """Number the categories of covariates, with the same advice on training."""

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> Any:
        """Number the categories of other cells, all of which the model must know."""
        if self.is_empty:
            return super().transfer_field(state_registry, adata_target, **kwargs)
        self.validate_field(adata_target)
        known = state_registry[self.MAPPINGS_KEY]
        codes = {key: _known_codes(adata_target.obs[key], known[key], key) for key in self.attr_keys}
        adata_target.obsm[self.attr_key] = pd.DataFrame(codes, index=adata_target.obs_names)
        return dict(state_registry)


def _known_codes(column: pd.Series, known: Sequence[Any], key: str) -> np.ndarray:
    """Position of each value among the known ones; ValueError for others."""
    codes = pd.Index(known).get_indexer(np.asarray(column))
    unknown = pd.unique(np.asarray(column)[codes < 0])
    if len(unknown):
        raise ValueError(
            f"obs[{key!r}] has {', '.join(map(repr, unknown[:10]))}, which the model was not trained on: it knows "
            f"{', '.join(map(repr, known))}."
        )
    of_known = pd.Categorical.from_codes(codes, categories=pd.RangeIndex(len(known)))
    return np.asarray(of_known.codes)  # in the narrow type of scvi-tools' own codes
