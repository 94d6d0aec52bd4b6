"""Bring other data into the shape of the training data: genes by name, labels and library sizes where missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from raptorgraph.model._field import KEYS, LIBRARY_KEY
from raptorgraph.screen._cell_labels import parse_obs
from raptorgraph.screen._expression import data_kind
from raptorgraph.screen._inputs import library_of, matrix, obs_column
from raptorgraph.screen._matrix import check_matrix
from raptorgraph.screen._names import gene_names, strip_gene_names
from raptorgraph.screen._stored import is_stored, keeps_order, loaded_table, stored_matrix, values_of

if TYPE_CHECKING:
    from raptorgraph.screen import Setup
    from raptorgraph.screen._stored import StoredMatrix


def check_genes(adata: AnnData, var_names: list[str]) -> None:
    """Raise where data lack genes of the model, or have one twice."""
    if not adata.var_names.is_unique:
        raise ValueError("var_names are not unique; use adata.var_names_make_unique().")
    found = set(gene_names(adata))
    missing = [name for name in var_names if name not in found]
    if missing:
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise ValueError(f"{len(missing)} of the model's {len(var_names)} genes are not in var_names: {shown}")


def other_kind(*, counts: bool) -> str:
    """Message for data of another kind than the training data."""
    return f"The model was trained on {'counts' if counts else 'log values'}, and these data are not."


def align_genes(adata: AnnData, var_names: list[str], layer: str | None = None) -> AnnData:
    """Order the genes as in `var_names`, in place where these are all of them, else on a copy.

    Data that are not in memory stay as they are: their genes are put in order as they are read.
    """
    check_genes(adata, var_names)
    if list(adata.var_names) == list(var_names) or (keeps_order(adata, layer) and not adata.is_view):
        return adata
    order = gene_names(adata).get_indexer(var_names)
    if adata.n_vars == len(var_names) and not adata.is_view:
        adata._inplace_subset_var(order)
    else:
        adata = (adata.to_memory() if adata.isbacked else adata)[:, order].copy()
    strip_gene_names(adata)
    return adata


def prepare_query(
    adata: AnnData, var_names: list[str], setup: Setup, *, counts: bool, controls: bool = False
) -> tuple[AnnData, StoredMatrix | None]:
    """Copy the cells with the model's genes in its order, and what a registration needs beside them.

    `controls` takes the control cells alone, or all cells where none is one or there are no labels. The values of data
    that are not in memory are returned beside their cells and read later.
    """
    if not isinstance(adata, AnnData):
        raise TypeError(f"adata must be an AnnData, not {type(adata).__name__}.")
    check_genes(adata, var_names)
    order = gene_names(adata).get_indexer(var_names)
    rows = control_rows(adata, setup) if controls else None
    stored = None
    values = values_of(adata) if setup.layer is None else adata.layers.get(setup.layer)
    if is_stored(values) or (adata.isbacked and not adata.is_view):
        X = stored = stored_matrix(matrix(adata, setup.layer)).of_genes(order)
        obs = loaded_table(adata.obs)
        obs = obs.copy() if rows is None else obs.iloc[rows].copy()
        X = stored = X if rows is None else X.of_cells(rows)
        query = AnnData(obs=obs, var=pd.DataFrame(index=pd.Index(var_names)))
    else:
        if values is not None:
            check_matrix(values)
        cells = adata.to_memory() if adata.isbacked else adata  # of a view in a file there are no views
        query = (cells[:, order] if rows is None else cells[rows][:, order]).copy()
        strip_gene_names(query)
        query.uns = {}
        X = matrix(query, setup.layer)
    if (data_kind(X) == "counts") != counts:
        raise ValueError(other_kind(counts=counts))
    if counts:
        query.obs[LIBRARY_KEY] = library_of(query, X, setup.library_size_key)
    if setup.perturbation_key not in query.obs:  # cells of unknown perturbation have latents all the same
        query.obs[setup.perturbation_key] = setup.label(())
    return query, stored


def control_rows(adata: AnnData, setup: Setup) -> np.ndarray | None:
    """Rows of the control cells; None for all cells, where none is a control or there are no labels."""
    if setup.perturbation_key not in adata.obs:
        return None
    is_control = parse_obs(adata, setup.perturbation_key, **setup.spelling).codes == 0
    return np.flatnonzero(is_control) if is_control.any() else None


def known_categories(registry: dict[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """Values that a model knows of the batch and of each categorical covariate, by registry key and column."""
    fields, batch_key = registry["field_registries"], registry["setup_args"]["batch_key"]
    batches: dict[str, list[Any]] = {}
    if batch_key is not None:
        batches[batch_key] = fields[KEYS.BATCH]["state_registry"]["categorical_mapping"].tolist()
    mappings = fields.get(KEYS.CATEGORICAL, {}).get("state_registry", {}).get("mappings", {})
    return {
        KEYS.BATCH: batches,
        KEYS.CATEGORICAL: {column: values.tolist() for column, values in mappings.items()},
    }


def check_categories(query: AnnData, known: dict[str, list[Any]], batch_key: str | None) -> None:
    """Raise for batches and categories that are missing or that the model was not trained on, with the way out.

    `known` are the values that the model knows of each column that is used, of which `batch_key` is the batch.
    """
    for key, values in known.items():
        argument = "batch_key" if key == batch_key else "categorical_covariate_keys"
        unknown = []
        if key in query.obs:
            found = obs_column(query, key, argument)
            unknown = [value for value in found.unique().tolist() if value not in values]
            if not unknown:
                continue
        shown = ", ".join(map(repr, unknown[:10])) + (", ..." if len(unknown) > 10 else "")
        out = "Set these cells to one of them to predict as if they were of that kind"
        if key == batch_key:
            out = (
                "Predict for batches that it knows: transform_batch='all' averages over these, "
                f"transform_batch={values[0]!r} takes one. Latents need no batch"
            )
        out = f"The model knows {', '.join(map(repr, values))}. {out}."
        if key not in query.obs:
            raise KeyError(f"{argument}={key!r} is not a column of adata.obs. {out}")
        raise ValueError(f"obs[{key!r}] has {shown}, which the model was not trained on. {out}")
