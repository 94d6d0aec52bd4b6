"""The work behind the command line: read or simulate a screen, decide what is trained on and compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import pandas as pd
import scvi

from raptorgraph import pp
from raptorgraph._files import file_hash
from raptorgraph.cli._query import read_query
from raptorgraph.datasets import simulate
from raptorgraph.pp._gene_sets import match_gene_sets, read_gene_sets
from raptorgraph.pp._genes import LIBRARY_SIZE_KEY
from raptorgraph.report._folder import check_used
from raptorgraph.report._record import source_of_file, versions
from raptorgraph.report._stages import PRODUCTS, RESAMPLES, carry_out
from raptorgraph.report._work import Order
from raptorgraph.screen import Screen
from raptorgraph.screen._files import check_cells, check_folder, open_cells, read_cells, values_bytes
from raptorgraph.screen._inputs import kind_of_values, matrix
from raptorgraph.screen._memory import is_large
from raptorgraph.screen._names import strip_gene_names
from raptorgraph.screen._stored import keeps_order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from raptorgraph.report._results import Result

PRESETS = ("default", "paper", "paper-literal")


def demo(
    out: Path,
    *,
    seed: int = 0,
    max_epochs: int | None = None,
    n_genes: int = 400,
    n_perturbed: int = 15,
    n_doubles: int = 12,
    n_control_cells: int = 1000,
    n_cells_per_perturbation: int = 100,
    report: bool = True,
    overwrite: bool = False,
    command: str | None = None,
    say: Callable[[str], None] = print,
) -> Result:
    """Simulate a screen, train on control and singles, and compare predictions of unseen doubles with the truth.

    Parameters
    ----------
    out
        Directory for the results, made if it is not there. What it has of the same run is kept.
    seed
        Seed of the simulation and of the training.
    max_epochs
        Number of epochs; default that of the model.
    n_genes, n_perturbed, n_doubles, n_control_cells, n_cells_per_perturbation
        Size of the screen, see :func:`raptorgraph.datasets.simulate`; the doubles are held out.
    report
        Whether to write ``report.html``.
    overwrite
        Whether to replace the results of another run, once the new ones are complete.
    command
        The command as typed, for the report.
    say
        Called with a line at each stage.

    Returns
    -------
    Result
        The comparison; files are written to `out`.

    Raises
    ------
    FileExistsError
        If there are results of another run in `out`, unless `overwrite`.
    RuntimeError
        If another process writes to `out`.
    ValueError
        If a size is impossible.
    """
    check_folder(out)
    sizes: dict[str, Any] = {
        "n_doubles": n_doubles,
        "n_control_cells": n_control_cells,
        "n_cells_per_perturbation": n_cells_per_perturbation,
        "seed": seed,
    }
    made = {
        "command": "demo",
        "n_genes": n_genes,
        "n_perturbed": n_perturbed,
        **sizes,
        "max_epochs": max_epochs,
        "report": report,
        "version": versions(),
    }
    check_used(out, made, PRODUCTS, overwrite=overwrite)
    scvi.settings.seed = seed
    say(f"Simulating {n_genes} genes, {n_perturbed} perturbed genes and {n_doubles} doubles that are held out.")
    adata = simulate(n_genes, n_perturbed, **sizes)
    screen = Screen(_bare(adata), {"library_size_key": "total_counts"})
    simulation = adata.uns["simulation"]
    order = Order(
        train=adata[screen.n_perturbed[screen.codes] < 2].copy(),
        screen=screen,
        truth={"unseen doubles": simulation["effects"].loc[screen.combinations]},
        title="Predicted against true effects of doubles unseen in training",
        kind="true",
        options={"preset": "default", "seed": seed, "max_epochs": max_epochs, "singles_only": True},
        facts={},
        name="A simulated screen",
        source=[("data", f"simulated: raptorgraph.datasets.simulate({n_genes}, {n_perturbed}, seed={seed}, ...)")],
        command=command,
        report=report,
        resamples=RESAMPLES if report else 0,
        true_graph=simulation["adjacency"],
    )
    return carry_out(order, out, made=made, overwrite=overwrite, say=say)


def run(
    path: Path,
    out: Path,
    *,
    perturbation_key: str = "perturbation",
    control: str | Sequence[str] = "control",
    delimiter: str = "+",
    layer: str | None = None,
    library_size_key: str | None = None,
    batch_key: str | None = None,
    preset: str = "default",
    max_epochs: int | None = None,
    seed: int = 0,
    singles_only: bool = False,
    n_top_genes: int | None = None,
    gene_sets: Path | None = None,
    query: Path | None = None,
    report: bool = False,
    resamples: int | None = None,
    overwrite: bool = False,
    command: str | None = None,
    say: Callable[[str], None] = print,
    guide_key: str | None = None,
) -> Result:
    """Fit a screen from a file and report on it.

    Parameters
    ----------
    path
        An h5ad file or a zarr store: cells x genes, with a perturbation label for each cell. Values that take more than
        a third of the memory are read from the file in parts, unless `report`, `singles_only` or `n_top_genes` need all
        of them.
    out
        Directory for the results, made once the input was checked. What it has of the same run is kept.
    perturbation_key, control, delimiter, layer, library_size_key, batch_key
        As in ``RaptorGraphModel.setup_anndata``.
    preset
        ``"default"``, ``"paper"`` or ``"paper-literal"``.
    max_epochs
        Number of epochs; default that of the model.
    seed
        Seed of the training.
    singles_only
        Whether to leave combinations out of the training and report on them.
    n_top_genes
        Number of highly variable genes to keep, beside the perturbed ones; default all genes.
    gene_sets
        GMT file, whose sets the latents are compared with; default none.
    query
        An h5ad file or a zarr store with cells in a state that perturbations are searched for, with the genes of the
        screen; default none. Where it has the column of labels, each label is a state, and the control cells among them
        are those that they are compared with; else all cells are one state, and control cells are those of the screen.
    report
        Whether to write ``report.html``, for which the predictions are tested on held-out cells and the graph is
        inferred again from resampled screens.
    resamples
        Number of these; 0 for none. Default 20.
    overwrite
        Whether to replace the results of another run, once the new ones are complete.
    command
        The command as typed, for the report.
    say
        Called with a line at each stage.
    guide_key
        As in ``RaptorGraphModel.setup_anndata``.

    Returns
    -------
    Result
        The comparison; files are written to `out`.

    Raises
    ------
    FileExistsError
        If there are results of another run in `out`, unless `overwrite`.
    FileNotFoundError
        If there is no such file.
    KeyError
        If a column or the layer is not there, or the query lacks genes.
    RuntimeError
        If another process writes to `out`.
    ValueError
        If a file holds no AnnData or no gene sets, or is damaged, `out` lies in the screen, the data do not suit the
        model, no gene set has genes of the screen, `resamples` is 1, or is given without `report`, or with
        `singles_only` there is no combination of genes that were perturbed alone.
    """
    check_folder(out, path)
    n_resamples = _checked_resamples(resamples, report=report)
    sets = None if gene_sets is None else read_gene_sets(Path(gene_sets))
    setup: dict[str, Any] = {
        "perturbation_key": perturbation_key,
        "control": control,
        "delimiter": delimiter,
        "layer": layer,
        "library_size_key": library_size_key,
        "batch_key": batch_key,
    }
    options: dict[str, Any] = {
        "preset": preset,
        "seed": seed,
        "max_epochs": max_epochs,
        "singles_only": singles_only,
        "n_top_genes": n_top_genes,
        "gene_sets": gene_sets,
        "query": query,
    }
    for file in (path, query):
        if file is not None:
            check_cells(file)
    source = source_of_file(path)
    made = {
        "command": "run",
        "name": path.stem,
        "screen": source[-1][1],
        **setup,
        "guide_key": guide_key,
        **options,
        "gene_sets": None if gene_sets is None else file_hash(Path(gene_sets)),
        "query": None if query is None else file_hash(query),
        "report": report,
        "resamples": n_resamples,
        "version": versions(),
    }
    check_used(out, made, PRODUCTS, overwrite=overwrite)
    asked = {"--report": report, "--singles-only": singles_only, "--n-top-genes": n_top_genes}
    adata = _read(path, layer, [name for name, value in asked.items() if value], say)
    strip_gene_names(adata)
    if not keeps_order(adata, layer):
        kind_of_values(adata, matrix(adata, layer), layer)  # while the cells have all their layers
    if n_top_genes is not None:
        source.append(("genes in the file", f"{adata.n_vars:,}, of which variable and perturbed ones were kept"))
        setup["library_size_key"] = _select_genes(adata, n_top_genes, setup)
    if sets is not None:
        match_gene_sets(sets, [str(name) for name in adata.var_names])  # raises where no set fits
    wanted = None if query is None else read_query(query, adata, setup)

    screen = Screen(_bare(adata, layer), {**setup, "guide_key": guide_key})
    task = _task(adata, screen, singles_only=singles_only)
    order = Order(
        train=task.train,
        screen=screen,
        truth=task.truth,
        title=task.title,
        kind="measured",
        options=options,
        facts=task.facts,
        name=path.stem,
        source=source,
        command=command,
        report=report,
        resamples=n_resamples,
        gene_sets=sets,
        query=wanted,
        query_name="query" if query is None else query.stem,
    )
    return carry_out(order, out, made=made, overwrite=overwrite, say=say)


def _checked_resamples(resamples: int | None, *, report: bool) -> int:
    """Number of resampled graphs; ValueError for one that makes no sense."""
    if resamples is not None and not report:
        raise ValueError(f"resamples={resamples} is for the report: add --report, or leave --resamples out.")
    if resamples == 1:
        raise ValueError("resamples=1 gives no frequency: use 2 or more, or 0 for none.")
    return (RESAMPLES if resamples is None else resamples) if report else 0


def _select_genes(adata: ad.AnnData, n_top_genes: int, setup: Mapping[str, Any]) -> str | None:
    """Keep variable and perturbed genes, in place; the column with library sizes, None for values without."""
    library_key = setup["library_size_key"] or LIBRARY_SIZE_KEY
    pp.select_genes(adata, n_top_genes, **setup)
    # the row sums of the genes that are left are not library sizes
    return library_key if library_key in adata.obs else None


@dataclass(frozen=True)
class _Task:
    """What to train on, and what to compare predictions with: see `Order`."""

    train: ad.AnnData
    truth: dict[str, pd.DataFrame]
    title: str
    facts: dict[str, Any]


def _task(adata: ad.AnnData, screen: Screen, *, singles_only: bool) -> _Task:
    """Train on all cells, or leave combinations out and compare predictions with them."""
    targets = {screen.genes_of[label][0] for label in screen.singles}
    predictable = [label for label in screen.combinations if targets.issuperset(screen.genes_of[label])]
    if singles_only and not predictable:
        raise ValueError(
            "The screen has no combination of genes that were perturbed alone too: run without --singles-only."
        )
    facts: dict[str, Any] = {
        "cells, genes": f"{adata.n_obs:,}, {adata.n_vars:,}",
        "control cells": f"{screen.n_cells[screen.control]:,}",
        "singles, combinations": f"{len(screen.singles)}, {len(screen.combinations)}",
        "single targets without a gene": f"{len(targets.difference(adata.var_names))}",
    }
    singles = screen.effects.loc[screen.singles]
    if not singles_only:
        parts = {"singles": singles, "combinations": screen.effects.loc[screen.combinations]}
        truth = {name: effects for name, effects in parts.items() if len(effects)}
        title = "Fit to the measured effects of the training data: no test of predictions"
        return _Task(adata, truth, title, facts)
    facts["combinations of genes without singles, not scored"] = len(screen.combinations) - len(predictable)
    return _Task(
        adata[screen.n_perturbed[screen.codes] < 2].copy(),
        {"singles": singles, "unseen combinations": screen.effects.loc[predictable]},
        "Predicted against measured effects; the combinations were left out of training",
        facts,
    )


def _read(path: Path, layer: str | None, whole: Sequence[str], say: Callable[[str], None]) -> ad.AnnData:
    """Cells in memory; those of a large file stay there, unless options need the `whole` of them."""
    n_bytes = values_bytes(path, layer)
    if not is_large(n_bytes):
        return read_cells(path)
    size = f"{path} holds {n_bytes / 2**30:.1f} GiB of values, more than a third of the memory"
    if whole:
        say(f"{size}: they are loaded, since {' and '.join(whole)} need all of them at once.")
        return read_cells(path)
    say(f"{size}: they are read from the file, part by part.")
    return open_cells(path, () if layer is None else (layer,))


def _bare(adata: ad.AnnData, layer: str | None = None) -> ad.AnnData:
    """The cells as they are before the model's setup writes into them; the values are shared, not copied."""
    kept = keeps_order(adata, layer)
    values = (adata.X if layer is None else adata.layers[layer]) if kept else matrix(adata, layer)
    layers = {} if layer is None else {layer: values}
    return ad.AnnData(values, obs=adata.obs.copy(), var=pd.DataFrame(index=adata.var_names.copy()), layers=layers)
