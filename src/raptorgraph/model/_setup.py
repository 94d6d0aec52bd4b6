"""Check a screen, then register it: every check comes before the first change of the user's AnnData."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scvi.data._constants import _SCVI_UUID_KEY
from scvi.data.fields import (
    CategoricalJointObsField,
    CategoricalObsField,
    LayerField,
    NumericalObsField,
)

from raptorgraph._arguments import check_text, check_texts
from raptorgraph._progress import progress_line
from raptorgraph.model._covariates import ContinuousField, finite_numbers
from raptorgraph.model._field import KEYS, LIBRARY_KEY, PerturbationField, order_genes
from raptorgraph.model._manager import ScreenManager
from raptorgraph.model._query import check_categories, known_categories, other_kind
from raptorgraph.screen._cell_labels import parse_obs
from raptorgraph.screen._expression import data_kind
from raptorgraph.screen._inputs import batch_codes, library_of, matrix, obs_column
from raptorgraph.screen._labels import format_perturbation, plain_control
from raptorgraph.screen._names import gene_names, strip_gene_names
from raptorgraph.screen._setup_hints import warn_of_setup


def plain_names(
    control, categorical_covariate_keys, continuous_covariate_keys
) -> tuple[str | list[str], list[str] | None, list[str] | None]:
    """Control labels and keys of covariates in plain lists, as they are saved with the model; TypeError for others."""
    keys = {
        "categorical_covariate_keys": categorical_covariate_keys,
        "continuous_covariate_keys": continuous_covariate_keys,
    }
    categorical, continuous = (
        None if value is None else check_texts(name, value, "columns of obs") for name, value in keys.items()
    )
    return plain_control(control), categorical, continuous


def check_keys(
    perturbation_key, *, control, delimiter, layer, library_size_key, batch_key, categorical_covariate_keys,
    continuous_covariate_keys,
) -> dict[str, list[str]]:  # fmt: skip
    """Check the arguments of the setup among themselves, and return the categorical and continuous covariates."""
    check_text("perturbation_key", perturbation_key, "the name of a column of obs")
    format_perturbation((), control=control, delimiter=delimiter)  # which raises where they are no such things
    optional = {"layer": layer, "library_size_key": library_size_key, "batch_key": batch_key}
    for name, value in optional.items():
        if value is not None:
            check_text(name, value, "the name of a layer" if name == "layer" else "the name of a column of obs")
    if batch_key == perturbation_key:
        raise ValueError(
            f"batch_key={batch_key!r} is the perturbation_key: within a perturbation there is nothing to compare it "
            "with; name the column of lanes, days or donors."
        )
    used = {perturbation_key: "the perturbation_key", batch_key: "the batch_key"}
    covariates = {}
    for kind, keys in {"categorical": categorical_covariate_keys, "continuous": continuous_covariate_keys}.items():
        argument = f"{kind}_covariate_keys"
        covariates[kind] = check_texts(argument, keys, "columns of obs")
        for key in covariates[kind]:
            if key in used:
                raise ValueError(f"{argument}: {key!r} is {used[key]} already; leave it out here.")
        used |= dict.fromkeys(covariates[kind], f"among {argument}")
    return covariates


def check_screen(adata, perturbation_key, *, control, delimiter, layer, library_size_key, batch_key, covariates):
    """Raise one clear error for anything that would fail later; return kind of data, library sizes and labels."""
    if not isinstance(adata, AnnData):
        hint = "; use setup_mudata" if isinstance(adata, MuData) else ""
        raise TypeError(f"adata must be an AnnData, not {type(adata).__name__}{hint}.")
    if adata.is_view:
        raise ValueError("adata is a view of another AnnData; pass a copy: adata = adata.copy().")
    if adata.isbacked:
        raise ValueError("adata is backed by a file, whose rows cannot be paired; use adata = adata.to_memory().")
    if 0 in adata.shape:
        raise ValueError(f"adata has {adata.n_obs} cells and {adata.n_vars} genes; there is nothing to learn from.")
    for axis in ("obs", "var"):
        names = getattr(adata, f"{axis}_names")
        if not names.is_unique:
            repeated = list(names[names.duplicated()].unique()[:5])
            raise ValueError(f"{axis}_names are not unique ({', '.join(map(str, repeated))}, ...); use "
                             f"adata.{axis}_names_make_unique().")  # fmt: skip
    gene_names(adata)
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
        library = library_of(adata, X, library_size_key)
    elif library_size_key is not None:
        obs_column(adata, library_size_key, "library_size_key")
    batch_codes(adata, batch_key)
    for key in covariates["categorical"]:
        _check_categories(obs_column(adata, key, "categorical_covariate_keys"), key)
    for key in covariates["continuous"]:
        finite_numbers(adata, key)
    return kind, library, parsed


def _check_categories(column, key: str) -> None:
    """Raise where cells have no category, or about as many as there are cells."""
    if column.isna().any():
        raise ValueError(
            f"categorical_covariate_keys: {key!r} is missing in {int(column.isna().sum())} cells; fill the values or "
            "drop the cells."
        )
    try:
        n_categories = column.nunique()
    except TypeError as error:
        raise ValueError(f"categorical_covariate_keys: {key!r} holds what is no category ({error}).") from None
    if n_categories > max(20, len(column) / 2):
        raise ValueError(
            f"categorical_covariate_keys: {key!r} has {n_categories} values in {len(column)} cells; a column of "
            "numbers belongs in continuous_covariate_keys, and names of cells are no covariate."
        )


def perturbed_genes_first(adata, genes: list[str]) -> None:
    """Put the perturbed genes that are in ``var_names`` first, in place, with every aligned slot; raw is untouched."""
    first = adata.var_names.get_indexer([g for g in genes if g in set(adata.var_names)])
    if np.array_equal(first, np.arange(len(first))):
        return
    rest = np.setdiff1d(np.arange(adata.n_vars), first)
    adata._inplace_subset_var(np.concatenate([first, rest]))


def check_transfer(adata, registry: dict) -> None:
    """Raise what the registration by a saved setup would, on an AnnData that shares the values; `adata` is unchanged.

    Its warnings come with the registration.
    """
    args, layer = registry["setup_args"], registry["setup_args"]["layer"]
    layers = {layer: adata.layers[layer]} if layer in adata.layers else {}
    var = pd.DataFrame(index=adata.var_names)
    cells = AnnData(adata.X if layer is None else None, obs=adata.obs.copy(), var=var, layers=layers)
    covariates = {kind: args[f"{kind}_covariate_keys"] or [] for kind in ("categorical", "continuous")}
    setup = {name: args[name] for name in ("perturbation_key", "control", "delimiter", "layer", "batch_key")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind, *_ = check_screen(cells, **setup, library_size_key=args["library_size_key"], covariates=covariates)
        counts = KEYS.LIBRARY in registry["field_registries"]
        if (kind == "counts") != counts:
            raise ValueError(other_kind(counts=counts))
        known = known_categories(registry)
        check_categories(cells, {**known[KEYS.BATCH], **known[KEYS.CATEGORICAL]}, args["batch_key"])
        used = {KEYS.PERTURBATION, KEYS.BATCH, KEYS.CATEGORICAL, KEYS.CONTINUOUS}
        manager = screen_manager(None, **setup, covariates=covariates, counts=False, only=used)
        manager.register_fields(cells, registry)


@progress_line("Registering cells")
def register(
    cls, adata, setup_method_args, *, perturbation_key, control, delimiter, layer, library_size_key, batch_key,
    categorical, continuous, **kwargs,
) -> ScreenManager:  # fmt: skip
    """Check, reorder, and build the manager."""
    source = kwargs.get("source_registry")
    if source is None:
        if kwargs:
            raise TypeError(f"setup_anndata() got unexpected keyword arguments {sorted(kwargs)}.")
        covariates = check_keys(
            perturbation_key,
            control=control,
            delimiter=delimiter,
            layer=layer,
            library_size_key=library_size_key,
            batch_key=batch_key,
            categorical_covariate_keys=categorical,
            continuous_covariate_keys=continuous,
        )
    else:  # of a saved model, which is as it is
        covariates = {"categorical": list(categorical or []), "continuous": list(continuous or [])}
    kind, library, parsed = check_screen(
        adata,
        perturbation_key,
        control=control,
        delimiter=delimiter,
        layer=layer,
        library_size_key=library_size_key,
        batch_key=batch_key,
        covariates=covariates,
    )
    if source is None:
        warn_of_setup(
            adata,
            parsed,
            perturbation_key=perturbation_key,
            control=control,
            delimiter=delimiter,
            batch_key=batch_key,
            categorical=covariates["categorical"],
        )
        strip_gene_names(adata)
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
        covariates=covariates,
        counts=kind == "counts",
    )
    twin = cls._setup_adata_manager_store.get(adata.uns.get(_SCVI_UUID_KEY))
    if twin is not None and twin.adata is not adata:  # a copy, which must not take the place of the original
        del adata.uns[_SCVI_UUID_KEY]
    manager.register_fields(adata, **kwargs)
    return manager


def screen_manager(
    setup_method_args, *, perturbation_key, control, delimiter, layer, batch_key, covariates, counts, only=None,
) -> ScreenManager:  # fmt: skip
    """Manager that is to register cells: with all fields, or with those of the registry keys `only`."""
    fields = [
        # The manager reads it in canonical form; scvi-tools would change the user's storage, or advise on it.
        LayerField(KEYS.X, layer, is_count_data=False, correct_data_format=False),
        PerturbationField(perturbation_key, control, delimiter),
        CategoricalObsField(KEYS.BATCH, batch_key),
        CategoricalJointObsField(KEYS.CATEGORICAL, covariates["categorical"]),
        ContinuousField(KEYS.CONTINUOUS, covariates["continuous"]),
    ]
    if counts:
        fields.append(NumericalObsField(KEYS.LIBRARY, LIBRARY_KEY))
    fields = [field for field in fields if only is None or field.registry_key in only]
    return ScreenManager(fields=fields, setup_method_args=setup_method_args)
