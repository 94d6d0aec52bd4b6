"""What a model writes for others: into the user's AnnData, and for cell-eval."""

from __future__ import annotations

import logging
import re
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from raptorgraph._docs import docs
from raptorgraph._files import replaced, write_h5ad
from raptorgraph.model._batches import transform_codes
from raptorgraph.model._cells import draw_seed, genes_of
from raptorgraph.model._expected import counterfactual_parts
from raptorgraph.model._query import check_genes
from raptorgraph.model._status import check_trained
from raptorgraph.nn._posterior_draws import N_DRAWS
from raptorgraph.screen._asked import listed
from raptorgraph.screen._cell_labels import parse_obs
from raptorgraph.screen._cells_file import CellsFile
from raptorgraph.screen._expression import to_expression
from raptorgraph.screen._inputs import expression_source
from raptorgraph.screen._names import gene_names
from raptorgraph.screen._stored import copy_of_cells, loaded_table, with_columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anndata import AnnData

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.model._batches import TransformBatch
    from raptorgraph.model._types import Data, Perturbations

logger = logging.getLogger(__name__)

RESPONDED = "raptorgraph_responded"
_PREFIX = "counterfactual_"
_BATCH = 512  # cells
_SAFE = re.compile(r"[A-Za-z0-9+\-_.]{1,100}")  # labels that every store takes as a part of a key


@docs.dedent
def annotate(
    model: RaptorGraphModel,
    adata: Data | None = None,
    counterfactuals: Perturbations = (),
    *,
    transform_batch: TransformBatch = None,
    out: str | Path | None = None,
) -> None:
    """Write latents, graph, effects, counterfactuals and who responded into an AnnData, in place, or into a file.

    Parameters
    ----------
    adata
        Where to write; by default the model's data. In a MuData it is the modality with the expression.
    counterfactuals
        Perturbations for which to write the counterfactual of every cell, as in :meth:`predict`.
    transform_batch
        Batch of these, as in :meth:`get_counterfactual`.
    %(out)s
        The file has the tables of the cells and genes and all that is written, and no ``X``; `adata` stays as it is.

    Notes
    -----
    Writes ``obsm["X_raptorgraph"]`` (u) and ``obsm["X_raptorgraph_exogenous"]`` (z), cells x d, and
    ``obsm["counterfactual_<label>"]``, cells x the model's genes, for each asked label. A label that does not suit
    as a key (longer than 100 characters, with others than ASCII letters, digits and ``+-_.``, or the same as
    another one but for capitals) is replaced there by a number. ``obs["raptorgraph_responded"]`` is the probability
    that the cell responded to its perturbation (:meth:`get_response_probability`); it is left out where that cannot be
    said, as of cells without labels, of genes that the model does not know as perturbed or of an unknown batch.

    ``uns["raptorgraph"]`` holds

    - ``dag``: the table of :meth:`get_edges`;
    - ``perturbed_genes``: their names;
    - ``effects``: one row for each condition of the training data and each gene, with ``perturbation`` and ``gene``
      (categorical), ``effect`` and, where the posterior gives one, its standard deviation ``sd`` (float32);
      ``effects.pivot(index="perturbation", columns="gene", values="effect")`` is the matrix;
    - ``counterfactuals``: ``key`` in ``obsm`` and ``perturbation`` of all counterfactuals;
    - ``settings``, in which ``effects`` is their ``attrs["kind"]`` (:meth:`predict_effects`).

    Graph and effects are those of the training data, whichever cells are written to; effects on other control
    cells are what ``predict_effects(..., adata)`` gives.

    Names are values in all of them, never keys, so that a name may hold any character. A further call replaces
    all that an earlier one wrote, its counterfactuals included.

    Raises
    ------
    ValueError
        For an unknown gene, and where a model was loaded without data and none are given.

    Examples
    --------
    >>> model.annotate(counterfactuals=["P01+P02"])
    >>> {"X_raptorgraph", "X_raptorgraph_exogenous", "counterfactual_P01+P02"} <= set(adata.obsm)
    True
    >>> adata.uns["raptorgraph"]["effects"].columns.tolist()
    ['perturbation', 'gene', 'effect', 'sd']
    >>> bool(adata.obs["raptorgraph_responded"].dropna().between(0, 1).all())
    True

    The latents serve scanpy as any embedding does.

    >>> import scanpy as sc
    >>> sc.pp.neighbors(adata, use_rep="X_raptorgraph")
    """
    check_trained(model)
    target = model.cells.data(adata)
    path = model.cells.destination(out, target)
    names = listed(counterfactuals)
    note = target.uns.get("raptorgraph", {})
    before = list(note["counterfactuals"]["key"]) if "counterfactuals" in note else []
    keys = counterfactual_keys(model.predictor.masks(names)[0] if names else (), set(target.obsm).difference(before))
    if path is not None:
        _annotate_file(model, target, path, keys, transform_batch)
        return
    written = {
        "X_raptorgraph": model.get_latent_representation(target),
        "X_raptorgraph_exogenous": model.get_latent_representation(target, kind="exogenous"),
    }
    for label, key in keys.items():
        written[key] = model.get_counterfactual(label, target, transform_batch=transform_batch)
    responded = _responded(model, target)
    noted = _note(model, target, keys)
    for key in before:
        target.obsm.pop(key, None)
    for key, value in written.items():
        target.obsm[key] = value
    if RESPONDED in target.obs:
        del target.obs[RESPONDED]
    if responded is not None:
        target.obs[RESPONDED] = responded.to_numpy()
    target.uns["raptorgraph"] = noted


def _annotate_file(
    model: RaptorGraphModel, target: AnnData, path: Path, keys: dict[str, str], transform_batch: TransformBatch
) -> None:
    """Write to a file what would be written into an AnnData, batch by batch."""
    cells, obs = model.cells, loaded_table(target.obs).copy()
    codes = transform_codes(cells.registry, transform_batch)
    with CellsFile(path) as file:
        query = cells.query(target, "latents")
        for key, kind in (("X_raptorgraph", "causal"), ("X_raptorgraph_exogenous", "exogenous")):
            for part in model.latents.parts(query, kind):
                file.append(f"obsm/{key}", part)
        query = cells.query(target, "cells", batch=codes is None) if keys else query
        for label, key in keys.items():
            _, mask = model.predictor.masks([label])
            for part in counterfactual_parts(model.predictor, query, mask, _BATCH, N_DRAWS, draw_seed(None), codes):
                file.append(f"obsm/{key}", part)
        responded = _responded(model, target)
        obs = obs.drop(columns=RESPONDED, errors="ignore")
        if responded is not None:
            obs[RESPONDED] = responded.to_numpy()
        file.finish(obs, genes_of(target, cells.var_names), {"raptorgraph": _note(model, target, keys)})


def _note(model: RaptorGraphModel, target: AnnData, keys: dict[str, str]) -> dict[str, Any]:
    """What is written into ``uns``; `keys` are those of the counterfactuals."""
    effects = _effects_table(model, target)
    table = model.get_edges()
    table.index = table.index.astype(str)
    return {
        "dag": table,
        "perturbed_genes": np.asarray(model.perturbed_genes, dtype=object),
        "effects": effects,
        "counterfactuals": pd.DataFrame(
            {"key": list(keys.values()), "perturbation": list(keys)},
            index=np.arange(len(keys)).astype(str),
            dtype=object,
        ),
        "settings": {
            "preset": model.preset_,
            "likelihood": model.module.config.likelihood,
            "pairing": model.pairing_,
            "n_latent": len(model.latent_names),
            "delimiter": model.setup_args["delimiter"],
            "effects": effects.attrs["kind"],
        },
    }


def _responded(model: RaptorGraphModel, adata: AnnData) -> pd.Series | None:
    """Probability that each cell responded, None where it cannot be said."""
    if model.setup_args["perturbation_key"] not in adata.obs:
        return None
    try:
        return model.get_response_probability(adata)
    except (KeyError, ValueError) as error:
        logger.info("obs[%r] is not written: %s", RESPONDED, error)
        return None


def _effects_table(model: RaptorGraphModel, adata: AnnData) -> pd.DataFrame:
    """Effects of the training conditions as a long table, with standard deviations where they are known."""
    if model.has_posterior:
        values = dict(zip(("effect", "sd"), model.predict_effects(model.conditions, return_sd=True), strict=True))
    else:  # those of the screen, where the model has its cells, whichever cells are written to
        values = {"effect": model.predict_effects(model.conditions, adata if model.adata is None else None)}
    table = long_effects(values)
    table.attrs["kind"] = values["effect"].attrs["kind"]
    return table


def export_to_cell_eval(
    model: RaptorGraphModel,
    directory: str | Path | None = None,
    perturbations: Perturbations | None = None,
    adata: Data | None = None,
    *,
    n_cells: int | None = None,
    seed: int | None = None,
    overwrite: bool = False,
    transform_batch: TransformBatch = None,
) -> tuple[AnnData, AnnData]:
    """Predict cells and put them beside the real ones, as cell-eval takes them.

    Parameters
    ----------
    directory
        Where to write ``pred.h5ad`` and ``real.h5ad``; created if it is not there. None writes nothing.
    perturbations
        Perturbations to compare, as in :meth:`predict`; by default all of `adata`.
    adata
        Real cells with labels, best of a screen that was held out; by default the model's data. Predictions start
        from its control cells, or from those of the model's data where it has none.
    n_cells
        Predicted cells of each perturbation; by default as many as there are real ones.
    seed
        Seed of the draws; by default ``scvi.settings.seed``.
    overwrite
        Whether to replace files that are there.
    transform_batch
        As in :meth:`predict`.

    Returns
    -------
    Predicted and real cells: the model's genes, the expression scale in ``X`` (CSR, float32; predictions below 0
    are set to 0), canonical labels in ``obs`` under the model's `perturbation_key`; both have the same controls.
    ``cell-eval run -ap pred.h5ad -ar real.h5ad --pert-col perturbation --control-pert control`` compares them.

    Raises
    ------
    FileExistsError
        If one of the files is there, unless `overwrite`.
    ValueError
        For a gene that was not perturbed in the training screen, a perturbation without real cells, where there
        are no control cells, and where a file is asked for and `perturbation_key` holds a slash.

    Examples
    --------
    >>> predicted, real = model.export_to_cell_eval("comparison", ["P01", "P02"])
    >>> predicted.shape == real.shape
    True
    >>> sorted(real.obs["perturbation"].unique())
    ['P01', 'P02', 'control']
    """
    files = [] if directory is None else [Path(directory) / f"{name}.h5ad" for name in ("pred", "real")]
    there = [str(file) for file in files if file.exists()]
    if there and not overwrite:
        raise FileExistsError(f"{', '.join(there)} is there already: choose another directory, or overwrite=True.")
    setup = model.cells.setup
    key = setup.perturbation_key
    if files and "/" in key:
        raise ValueError(f"No h5ad file holds a column named {key!r}: rename perturbation_key, without '/'.")
    source = model.cells.data(adata, labels=True)
    check_genes(source, model.var_names_)
    parsed = parse_obs(source, key, **setup.spelling)
    names = [setup.label(genes) for genes in parsed.conditions]
    rows = {name: np.flatnonzero(parsed.codes == i) for i, name in enumerate(names)}
    control = names[0]
    asked = model.predictor.masks(names[1:] if perturbations is None else perturbations)[0]
    asked = [label for label in dict.fromkeys(asked) if label != control]
    absent = [label for label in asked if label not in rows]
    if absent:
        raise ValueError(f"There are no real cells of {', '.join(absent[:10])} to compare predictions with.")
    measured = _measured(model, source)
    real = {name: measured[rows[name]] for name in (control, *asked)}
    controls = copy_of_cells(source, rows[control])
    if not len(rows[control]):
        if model.adata is None:
            raise ValueError(f"adata has no control cells (obs[{key!r}] == {control!r}) to start from.")
        controls = copy_of_cells(model.adata, model.cells.control_rows(model.adata))
        real[control] = _measured(model, controls)
    predicted = {control: real[control]}
    for label in asked:
        n = len(rows[label]) if n_cells is None else n_cells
        cells = model.predict(label, controls, n_cells=n, seed=seed, transform_batch=transform_batch)
        predicted[label] = sparse.csr_matrix(cells.X).maximum(0)
    pair = tuple(_stacked(model, cells, key) for cells in (predicted, real))
    if files:
        files[0].parent.mkdir(parents=True, exist_ok=True)
        for cells, file in zip(pair, files, strict=True):
            with replaced(file) as part:
                write_h5ad(part, cells)
        logger.info("cell-eval run -ap %s -ar %s --pert-col %s --control-pert %s", files[0], files[1], key, control)
    return pair


def _measured(model: RaptorGraphModel, cells: AnnData) -> sparse.csr_matrix:
    """Measured expression of the model's genes."""
    setup = model.cells.setup
    cells = with_columns(cells, gene_names(cells).get_indexer(model.var_names_))
    return sparse.csr_matrix(to_expression(*expression_source(cells, setup.layer, setup.library_size_key)))


def _stacked(model: RaptorGraphModel, cells: dict[str, sparse.csr_matrix], key: str) -> AnnData:
    labels = np.repeat(list(cells), [X.shape[0] for X in cells.values()])
    obs = pd.DataFrame({key: pd.Categorical(labels)}, index=np.arange(len(labels)).astype(str))
    X = sparse.csr_matrix(sparse.vstack(list(cells.values())), dtype=np.float32)
    return ad.AnnData(X, obs=obs, var=pd.DataFrame(index=pd.Index(model.var_names_)))


def long_effects(values: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row for each perturbation and gene, from tables perturbations x genes, which give a column each (float32)."""
    first = next(iter(values.values()))
    rows, columns = np.indices(first.shape).reshape(2, -1)
    names = {
        "perturbation": pd.Categorical.from_codes(rows, categories=list(first.index)),
        "gene": pd.Categorical.from_codes(columns, categories=list(first.columns)),
    }
    return pd.DataFrame({**names, **{k: table.to_numpy(dtype=np.float32).ravel() for k, table in values.items()}})


def counterfactual_keys(labels: Iterable[str], others: Iterable[str] = ()) -> dict[str, str]:
    """Key of ``obsm`` for each canonical label: with the label where that suits, otherwise with a free number.

    Of the keys that are there already (`others`) a label may replace its own, a number none.
    """
    # zarr is a folder, and some file systems do not tell capitals from small letters
    keys, used = {}, set()
    for label in dict.fromkeys(labels):
        key = f"{_PREFIX}{label}"
        if _SAFE.fullmatch(label) and key.casefold() not in used:
            used.add(key.casefold())
            keys[label] = key
        else:
            keys[label] = ""
    used |= {key.casefold() for key in others}
    free = (f"{_PREFIX}{number}" for number in count(1))
    free = (key for key in free if key not in used)
    return {label: key or next(free) for label, key in keys.items()}
