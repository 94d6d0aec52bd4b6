"""The work behind the command line: read or simulate a screen, decide what is trained on and compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import pandas as pd
import scvi

from raptorgraph import pp
from raptorgraph._files import file_hash
from raptorgraph.datasets import simulate
from raptorgraph.pp._gene_sets import match_gene_sets, read_gene_sets
from raptorgraph.report._folder import check_used
from raptorgraph.report._record import source_of_file, versions
from raptorgraph.report._stages import PRODUCTS, RESAMPLES, Order, carry_out
from raptorgraph.screen import Screen
from raptorgraph.screen._files import check_cells, check_folder, open_cells, read_cells, values_bytes
from raptorgraph.screen._inputs import matrix
from raptorgraph.screen._memory import is_large
from raptorgraph.screen._names import strip_gene_names
from raptorgraph.screen._stored import keeps_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        If a column or the layer is not there.
    RuntimeError
        If another process writes to `out`.
    ValueError
        If a file holds no AnnData or no gene sets, or is damaged, `out` lies in the screen, the data do not suit the
        model, no gene set has genes of the screen, `resamples` is 1, or is given without `report`, or with
        `singles_only` there is no combination of genes that were perturbed alone.
    """
    check_folder(out, path)
    if resamples is not None and not report:
        raise ValueError(f"resamples={resamples} is for the report: add --report, or leave --resamples out.")
    if resamples == 1:
        raise ValueError("resamples=1 gives no frequency: use 2 or more, or 0 for none.")
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
    }
    n_resamples = (RESAMPLES if resamples is None else resamples) if report else 0
    check_cells(path)
    source = source_of_file(path)
    made = {
        "command": "run",
        "name": path.stem,
        "screen": source[-1][1],
        **setup,
        "guide_key": guide_key,
        **options,
        "gene_sets": None if gene_sets is None else file_hash(Path(gene_sets)),
        "report": report,
        "resamples": n_resamples,
        "version": versions(),
    }
    check_used(out, made, PRODUCTS, overwrite=overwrite)
    whole = [
        name
        for name, asked in (("--report", report), ("--singles-only", singles_only), ("--n-top-genes", n_top_genes))
        if asked
    ]
    adata = _read(path, layer, whole, say)
    strip_gene_names(adata)
    n_genes_read = adata.n_vars
    if n_top_genes is not None:
        library_key = library_size_key or "raptorgraph_library_size"
        pp.select_genes(adata, n_top_genes, **setup)
        # the row sums of the genes that are left are not library sizes
        setup["library_size_key"] = library_key if library_key in adata.obs else None
    if sets is not None:
        match_gene_sets(sets, [str(name) for name in adata.var_names])  # raises where no set fits

    screen = Screen(_bare(adata, layer), {**setup, "guide_key": guide_key})
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
    if singles_only:
        truth = {"singles": singles, "unseen combinations": screen.effects.loc[predictable]}
        train = adata[screen.n_perturbed[screen.codes] < 2].copy()
        title = "Predicted against measured effects; the combinations were left out of training"
        n_left_out = len(screen.combinations) - len(predictable)
        facts["combinations of genes without singles, not scored"] = n_left_out
    else:
        parts = {"singles": singles, "combinations": screen.effects.loc[screen.combinations]}
        truth = {name: effects for name, effects in parts.items() if len(effects)}
        train, title = adata, "Fit to the measured effects of the training data: no test of predictions"
    if n_top_genes is not None:
        source.append(("genes in the file", f"{n_genes_read:,}, of which variable and perturbed ones were kept"))
    order = Order(
        train=train,
        screen=screen,
        truth=truth,
        title=title,
        kind="measured",
        options=options,
        facts=facts,
        name=path.stem,
        source=source,
        command=command,
        report=report,
        resamples=n_resamples,
        gene_sets=sets,
    )
    return carry_out(order, out, made=made, overwrite=overwrite, say=say)


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
