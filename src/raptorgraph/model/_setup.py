"""Check a screen, then register it: every check comes before the first change of the user's AnnData."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scvi.data._constants import _SCVI_UUID_KEY
from scvi.data.fields import LayerField, NumericalObsField

from raptorgraph._arguments import check_texts
from raptorgraph._progress import progress_line
from raptorgraph.model._categories import BatchField, CategoriesField
from raptorgraph.model._covariates import ContinuousField, finite_numbers
from raptorgraph.model._field import KEYS, LIBRARY_KEY, PerturbationField
from raptorgraph.model._manager import ScreenManager
from raptorgraph.model._query import check_categories, known_categories, other_kind
from raptorgraph.model._stored_cells import StoredLayerField
from raptorgraph.screen import Setup
from raptorgraph.screen._cell_labels import parse_obs
from raptorgraph.screen._guides import check_guides
from raptorgraph.screen._inputs import batch_codes, expression_source, obs_column
from raptorgraph.screen._labels import plain_control
from raptorgraph.screen._names import gene_names, strip_gene_names
from raptorgraph.screen._screen import order_genes
from raptorgraph.screen._setup_hints import warn_of_setup
from raptorgraph.screen._stored import StoredMatrix, keeps_order, loaded_table, stored_matrix

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from raptorgraph.model._gene_embedding import GeneEmbedding
    from raptorgraph.screen._labels import ParsedLabels
    from raptorgraph.screen._matrix import Matrix

EMBEDDING_KEY = "gene_embedding"
"""Key of the registry with what is known of genes."""


def plain_names(
    control: Any, categorical_covariate_keys: Any, continuous_covariate_keys: Any
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


def check_screen(
    adata: Any, setup: Setup, embedding: GeneEmbedding | None = None
) -> tuple[np.ndarray | None, ParsedLabels]:
    """Library sizes, which are None for logarithms, and labels; one clear error for what would fail later."""
    return read_screen(adata, setup, embedding)[1:]


def read_screen(
    adata: Any, setup: Setup, embedding: GeneEmbedding | None = None, genes: Sequence[str] | None = None
) -> tuple[Matrix, np.ndarray | None, ParsedLabels]:
    """Matrix, library sizes, which are None for logarithms, and labels; one clear error for what would fail later.

    `genes` are those to be read of a matrix that is not in memory.
    """
    if not isinstance(adata, AnnData):
        hint = "; use setup_mudata" if isinstance(adata, MuData) else ""
        raise TypeError(f"adata must be an AnnData, not {type(adata).__name__}{hint}.")
    if adata.is_view:
        raise ValueError("adata is a view of another AnnData; pass a copy: adata = adata.copy().")
    if 0 in adata.shape:
        raise ValueError(f"adata has {adata.n_obs} cells and {adata.n_vars} genes; there is nothing to learn from.")
    for axis in ("obs", "var"):
        names = getattr(adata, f"{axis}_names")
        if not names.is_unique:
            repeated = list(names[names.duplicated()].unique()[:5])
            raise ValueError(f"{axis}_names are not unique ({', '.join(map(str, repeated))}, ...); use "
                             f"adata.{axis}_names_make_unique().")  # fmt: skip
    gene_names(adata)
    key = setup.perturbation_key
    parsed = parse_obs(adata, key, **setup.spelling, require_control=True)
    n_cells = np.bincount(parsed.codes, minlength=len(parsed.conditions))
    if n_cells[0] < 2:
        raise ValueError(f"obs[{key!r}] has {n_cells[0]} control cell(s); at least two are needed.")
    if len(parsed.conditions) < 2:
        raise ValueError(f"obs[{key!r}] has control cells only; there is no perturbation to learn.")
    if embedding is not None:
        embedding.check(parsed.conditions)
    for axis, table in (("obs", adata.obs), ("var", adata.var)):
        if not table.columns.is_unique:
            repeated = table.columns[table.columns.duplicated()][0]
            raise ValueError(
                f"adata.{axis} has the column {str(repeated)!r} more than once, and anndata takes no parts of such "
                "data: rename one, or drop it."
            )
    X, library = expression_source(adata, setup.layer, setup.library_size_key, genes)
    if library is None and setup.library_size_key is not None:
        obs_column(adata, setup.library_size_key, "library_size_key")
    batch_codes(adata, setup.batch_key)
    check_guides(adata, parsed, setup)
    for key in setup.categorical_covariate_keys:
        _check_categories(obs_column(adata, key, "categorical_covariate_keys"), key)
    for key in setup.continuous_covariate_keys:
        finite_numbers(adata, key)
    return X, library, parsed


def _check_categories(column: pd.Series, key: str) -> None:
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


def perturbed_genes_first(adata: AnnData, genes: list[str], *, in_place: bool = True) -> np.ndarray:
    """Order in which the perturbed genes that are in ``var_names`` come first.

    `in_place` puts them there, with every aligned slot; raw is untouched.
    """
    first = adata.var_names.get_indexer([g for g in genes if g in set(adata.var_names)])
    rest = np.setdiff1d(np.arange(adata.n_vars), first)
    order = np.concatenate([first, rest])
    if in_place and not np.array_equal(first, np.arange(len(first))):
        adata._inplace_subset_var(order)
    return order


def load_labels(adata: AnnData) -> None:
    """Load the tables of cells and genes of a lazy AnnData, whose values stay where they are."""
    for axis in ("obs", "var"):
        if not isinstance(getattr(adata, axis), pd.DataFrame):
            setattr(adata, axis, loaded_table(getattr(adata, axis)))


def check_transfer(adata: AnnData, registry: dict[str, Any]) -> None:
    """Raise the errors of a registration by a saved setup, before `adata` is changed; it warns of nothing."""
    setup = Setup.of(registry["setup_args"])
    layer = setup.layer
    layers = {layer: adata.layers[layer]} if layer in adata.layers else {}
    var = pd.DataFrame(index=adata.var_names)
    cells = AnnData(adata.X if layer is None else None, obs=loaded_table(adata.obs).copy(), var=var, layers=layers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = registry["field_registries"][KEYS.X]["state_registry"]["column_names"]
        _, library, _ = read_screen(cells, setup, genes=names)
        counts = KEYS.LIBRARY in registry["field_registries"]
        if (library is not None) != counts:
            raise ValueError(other_kind(counts=counts))
        known = known_categories(registry)
        check_categories(cells, {**known[KEYS.BATCH], **known[KEYS.CATEGORICAL]}, setup.batch_key)
        used = {KEYS.PERTURBATION, KEYS.BATCH, KEYS.CATEGORICAL, KEYS.CONTINUOUS}
        screen_manager(setup, counts=False, only=used).register_fields(cells, registry)


@progress_line("Registering cells")
def register(
    cls: Any,
    adata: AnnData,
    setup_method_args: dict[str, Any],
    embedding: GeneEmbedding | None = None,
    **kwargs: Any,
) -> ScreenManager:
    """Check the screen, put its perturbed genes first, and register it with what is known of genes."""
    setup, saved = Setup.of(setup_method_args["setup_args"]), kwargs.get("source_registry") is not None
    if kwargs and not saved:
        raise TypeError(f"setup_anndata() got unexpected keyword arguments {sorted(kwargs)}.")
    names: list[str] = []
    if saved:
        names = list(kwargs["source_registry"]["field_registries"][KEYS.X]["state_registry"]["column_names"])
    X, library, parsed = read_screen(adata, setup, embedding, names or None)
    load_labels(adata)
    in_place, stored = not keeps_order(adata, setup.layer), None
    if not saved:
        warn_of_setup(adata, parsed, setup)
        strip_gene_names(adata)
        order = perturbed_genes_first(adata, order_genes(parsed.genes, adata.var_names), in_place=in_place)
        if not in_place:
            names, X = list(adata.var_names[order]), stored_matrix(X).of_genes(order)
    if not in_place:
        stored = stored_matrix(X), names
    if library is not None:
        adata.obs[LIBRARY_KEY] = library
    manager = screen_manager(setup, setup_method_args, counts=library is not None, parsed=parsed, stored=stored)
    twin = cls._setup_adata_manager_store.get(adata.uns.get(_SCVI_UUID_KEY))
    if twin is not None and twin.adata is not adata:  # a copy, which must not take the place of the original
        del adata.uns[_SCVI_UUID_KEY]
    manager.register_fields(adata, **kwargs)
    if saved:
        if EMBEDDING_KEY in kwargs["source_registry"]:
            manager.registry[EMBEDDING_KEY] = kwargs["source_registry"][EMBEDDING_KEY]
    elif embedding is not None:
        manager.registry[EMBEDDING_KEY] = embedding.to_dict()
    return manager


def screen_manager(
    setup: Setup,
    setup_method_args: dict[str, Any] | None = None,
    *,
    counts: bool,
    only: Collection[str] | None = None,
    parsed: ParsedLabels | None = None,
    stored: tuple[StoredMatrix, list[str]] | None = None,
) -> ScreenManager:
    """Manager to register cells with, of all fields or of those with the registry keys `only`.

    `stored` is the matrix with the names of its genes, where it is not in memory.
    """
    # The manager reads it in canonical form; scvi-tools would change the user's storage, or advise on it.
    values = LayerField(KEYS.X, setup.layer, is_count_data=False, correct_data_format=False)
    fields = [
        values if stored is None else StoredLayerField(KEYS.X, setup.layer, stored[1]),
        PerturbationField(setup, parsed),
        BatchField(KEYS.BATCH, setup.batch_key),
        CategoriesField(KEYS.CATEGORICAL, list(setup.categorical_covariate_keys)),
        ContinuousField(KEYS.CONTINUOUS, list(setup.continuous_covariate_keys)),
    ]
    if counts:
        fields.append(NumericalObsField(KEYS.LIBRARY, LIBRARY_KEY))
    fields = [field for field in fields if only is None or field.registry_key in only]
    X = None if stored is None else stored[0]
    return ScreenManager(fields=fields, setup_method_args=setup_method_args, stored=X)
