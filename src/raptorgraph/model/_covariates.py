"""AnnData field of continuous covariates, which enter the network in units of their spread in the training data."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scvi.data.fields import NumericalJointObsField

from raptorgraph.screen._inputs import numbers, obs_column

if TYPE_CHECKING:
    from anndata import AnnData

_ARGUMENT = "continuous_covariate_keys"
_LIMIT = 10.0  # standard deviations to which values beyond are brought


def finite_numbers(adata: AnnData, key: str) -> np.ndarray:
    """Covariate `key` of all cells, float64; ValueError if it holds no numbers, or not a finite one for every cell."""
    values = numbers(adata, key, _ARGUMENT)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        kind = "missing" if np.isnan(values[bad]).all() else "infinite or missing"
        first = ", ".join(str(name) for name in adata.obs_names[bad[:5]])
        raise ValueError(
            f"{_ARGUMENT}: {key!r} is {kind} in {bad.size} cells (first: {first}); fill the values or drop the cells."
        )
    return values


@dataclass(frozen=True)
class Scale:
    """Mean, standard deviation and range of a covariate in the training data; one that is constant has `sd` 0."""

    mean: float
    sd: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: np.ndarray) -> Scale:
        """Scale of the training data."""
        lowest, highest = values.min(), values.max()
        largest = max(abs(lowest), abs(highest))
        unit = np.ldexp(1.0, int(np.frexp(largest)[1]) - 1) if largest else 1.0  # so that no square leaves float64
        mean = (values / unit).mean()
        mean += (values / unit - mean).mean()  # the first is off by the rounding of a large sum
        sd = np.sqrt(((values / unit - mean) ** 2).mean())
        sd = sd if sd > 4 * np.finfo(np.float64).eps * largest / unit else 0.0  # but for rounding it is constant
        return cls(*(float(value) for value in (mean * unit, sd * unit, lowest, highest)))

    def units(self, values: np.ndarray) -> np.ndarray:
        """Standard deviations from the mean, infinite where float64 ends."""
        with np.errstate(over="ignore"):
            return np.asarray((values - self.mean) / self.sd) if self.sd else np.zeros(len(values))

    def standardize(self, values: np.ndarray) -> np.ndarray:
        """Values as they enter the network: :meth:`units`, within the range of the training data and the limit."""
        return np.asarray(np.clip(self.units(np.clip(values, self.lowest, self.highest)), -_LIMIT, _LIMIT))

    def outside(self, values: np.ndarray) -> np.ndarray:
        """Which values are more than a standard deviation outside of the range."""
        margin = self.sd or 1e-6 * abs(self.mean)
        return np.asarray((values < self.lowest - margin) | (values > self.highest + margin))


class ContinuousField(NumericalJointObsField):  # type: ignore[misc]  # scvi-tools has no types
    r"""Standardize columns of ``obs`` and write them to ``obsm["_scvi_extra_continuous_covs"]``; ``obs`` stays.

    The value :math:`x` of a cell becomes :math:`(x - m) / s`, with mean and standard deviation over the cells of the
    setup. They are saved with the model and hold for every query, whose values are taken within the range of the
    training data: a network knows nothing of what lies beyond. The calculation is in float64, before scvi-tools casts
    to float32, in which depths of 1e8 that differ by 1 are the same.
    """

    SCALES_KEY = "scales"

    def validate_field(self, adata: AnnData) -> None:
        """Raise where a column is not there."""
        for key in self.attr_keys:
            obs_column(adata, key, _ARGUMENT)

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Learn the scales and write the covariates."""
        scales = {key: Scale.of(finite_numbers(adata, key)) for key in self.attr_keys}
        for key, scale in scales.items():
            _warn_of_scale(adata, key, scale)
        return self._write(adata, scales)

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """Write the covariates of other cells, by the scales of the training data."""
        if self.SCALES_KEY not in state_registry:  # a model that was saved before there were scales
            return dict(super().register_field(adata_target))
        scales = {key: Scale(**scale) for key, scale in state_registry[self.SCALES_KEY].items()}
        for key, scale in scales.items():
            _warn_of_range(adata_target, key, scale)
        return self._write(adata_target, scales)

    def _write(self, adata: AnnData, scales: dict[str, Scale]) -> dict[str, Any]:
        table = {key: scale.standardize(finite_numbers(adata, key)) for key, scale in scales.items()}
        adata.obsm[self.attr_key] = pd.DataFrame(table, index=adata.obs_names)
        return {
            self.COLUMNS_KEY: np.array(self.attr_keys, dtype=object),
            self.SCALES_KEY: {key: asdict(scale) for key, scale in scales.items()},
        }


def _warn_of_scale(adata: AnnData, key: str, scale: Scale) -> None:
    """Warn of a covariate that is constant, or whose spread comes from a few cells."""
    values = finite_numbers(adata, key)
    far = np.abs(scale.units(values)) > _LIMIT
    if not scale.sd:
        _warn(f"{key!r} is the same in all cells and has no effect.")
    elif far.any():
        _warn(
            f"{key!r} lies beyond {_LIMIT:g} standard deviations in {far.sum()} cells (first: "
            f"{adata.obs_names[far][0]}, {values[far][0]:g}), beside which the others hardly differ: correct them, or "
            "take the logarithm of the column."
        )


def _warn_of_range(adata: AnnData, key: str, scale: Scale) -> None:
    """Warn of cells whose covariate lies outside of the range of the training data."""
    values = finite_numbers(adata, key)
    outside = scale.outside(values)
    if outside.any():
        _warn(
            f"{key!r} was between {scale.lowest:g} and {scale.highest:g} in the training data, and {outside.sum()} of "
            f"these {len(values)} cells lie far outside (first: {adata.obs_names[outside][0]}, "
            f"{values[outside][0]:g}): they are taken to be at the border."
        )


def _warn(text: str) -> None:
    warnings.warn(f"{_ARGUMENT}: {text}", UserWarning, stacklevel=3)
