"""Check a screen, then register it: every check comes before the first change of the user's AnnData."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from mudata import MuData
from scvi.data import AnnDataManager
from scvi.data.fields import (
    CategoricalJointObsField,
    CategoricalObsField,
    LayerField,
    NumericalJointObsField,
    NumericalObsField,
)

from raptorgraph.model._field import KEYS, LIBRARY_KEY, PerturbationField, order_genes
from raptorgraph.pp._expression import check_library, data_kind, library_sizes
from raptorgraph.pp._inputs import batch_codes, matrix, obs_column, observed_library
from raptorgraph.pp._label_hints import warn_of_controls
from raptorgraph.pp._labels import parse_obs


def check_screen(adata, perturbation_key, *, control, delimiter, layer, library_size_key, batch_key, covariates):
    """Raise one clear error for anything that would fail later; return kind of data, library sizes and labels."""
    if not isinstance(adata, AnnData):
        hint = "; use setup_mudata" if isinstance(adata, MuData) else ""
        raise TypeError(f"adata must be an AnnData, not {type(adata).__name__}{hint}.")
    if adata.is_view:
        raise ValueError("adata is a view of another AnnData; pass a copy: adata = adata.copy().")
    if adata.isbacked:
        raise ValueError("adata is backed by a file, whose rows cannot be paired; use adata = adata.to_memory().")
    for axis in ("obs", "var"):
        names = getattr(adata, f"{axis}_names")
        if not names.is_unique:
            repeated = list(names[names.duplicated()].unique()[:5])
            raise ValueError(f"{axis}_names are not unique ({', '.join(map(str, repeated))}, ...); use "
                             f"adata.{axis}_names_make_unique().")  # fmt: skip
    parsed = parse_obs(adata, perturbation_key, control=control, delimiter=delimiter, require_control=True)
    n_cells = np.bincount(parsed.codes, minlength=len(parsed.conditions))
    if n_cells[0] < 2:
        raise ValueError(f"obs[{perturbation_key!r}] has {n_cells[0]} control cell(s); at least two are needed.")
    if len(parsed.conditions) < 2:
        raise ValueError(f"obs[{perturbation_key!r}] has control cells only; there is no perturbation to learn.")
    X = matrix(adata, layer)
    kind = data_kind(X)
    library = None
    if kind == "counts":
        if library_size_key is None:
            library = check_library(library_sizes(X), names=adata.obs_names)
        else:
            library = observed_library(adata, library_size_key)
    elif library_size_key is not None:
        obs_column(adata, library_size_key, "library_size_key")
    batch_codes(adata, batch_key)
    for key in covariates["categorical"] + covariates["continuous"]:
        column = obs_column(adata, key, "covariate keys")
        if column.isna().any():
            raise ValueError(
                f"obs[{key!r}] has {int(column.isna().sum())} missing values; fill them or drop the cells."
            )
    return kind, library, parsed


def perturbed_genes_first(adata, genes: list[str]) -> None:
    """Put the perturbed genes that are in ``var_names`` first, in place, with every aligned slot; raw is untouched."""
    first = adata.var_names.get_indexer([g for g in genes if g in set(adata.var_names)])
    if np.array_equal(first, np.arange(len(first))):
        return
    rest = np.setdiff1d(np.arange(adata.n_vars), first)
    adata._inplace_subset_var(np.concatenate([first, rest]))


def register(
    cls, adata, setup_method_args, *, perturbation_key, control, delimiter, layer, library_size_key, batch_key,
    categorical, continuous, **kwargs,
) -> AnnDataManager:  # fmt: skip
    """Check, reorder, and build the manager."""
    categorical, continuous = list(categorical or []), list(continuous or [])
    kind, library, parsed = check_screen(
        adata,
        perturbation_key,
        control=control,
        delimiter=delimiter,
        layer=layer,
        library_size_key=library_size_key,
        batch_key=batch_key,
        covariates={"categorical": categorical, "continuous": continuous},
    )
    source = kwargs.get("source_registry")
    if source is None:
        warn_of_controls(parsed.genes, "control")
        perturbed_genes_first(adata, order_genes(parsed.genes, adata.var_names))
    if kind == "counts":
        adata.obs[LIBRARY_KEY] = library
    manager = screen_manager(
        setup_method_args,
        perturbation_key=perturbation_key,
        control=control,
        delimiter=delimiter,
        layer=layer,
        batch_key=batch_key,
        covariates={"categorical": categorical, "continuous": continuous},
        counts=kind == "counts",
    )
    manager.register_fields(adata, **kwargs)
    return manager


def screen_manager(
    setup_method_args, *, perturbation_key, control, delimiter, layer, batch_key, covariates, counts, only=None,
) -> AnnDataManager:  # fmt: skip
    """Manager that is to register cells: with all fields, or with those of the registry keys `only`."""
    fields = [
        LayerField(KEYS.X, layer, is_count_data=False),
        PerturbationField(perturbation_key, control, delimiter),
        CategoricalObsField(KEYS.BATCH, batch_key),
        CategoricalJointObsField(KEYS.CATEGORICAL, covariates["categorical"]),
        NumericalJointObsField(KEYS.CONTINUOUS, covariates["continuous"]),
    ]
    if counts:
        fields.append(NumericalObsField(KEYS.LIBRARY, LIBRARY_KEY))
    fields = [field for field in fields if only is None or field.registry_key in only]
    return AnnDataManager(fields=fields, setup_method_args=setup_method_args)
