"""The work behind the command line: fit a screen, report on it, write tables and figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scvi

from raptorgraph import metrics, pp, tl
from raptorgraph._figures import write_figures
from raptorgraph.datasets import simulate
from raptorgraph.model import RaptorGraphModel
from raptorgraph.pp._inputs import expression_source
from raptorgraph.pp._statistics import condition_moments

PRESETS = ("default", "paper")


@dataclass(frozen=True)
class Result:
    """What a run leaves behind for the terminal.

    Attributes
    ----------
    title
        What the summary compares.
    summary
        One row for each set of conditions and method: set, conditions, method, pearson, relative_mse.
    interactions
        All pairs, unmeasured ones first, each part sorted by synergy.
    facts
        Short descriptions and their values.
    """

    title: str
    summary: pd.DataFrame
    interactions: pd.DataFrame
    facts: dict[str, Any]


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
    say: Callable[[str], None] = print,
) -> Result:
    """Simulate a screen, train on control and singles, and compare predictions of unseen doubles with the truth.

    Parameters
    ----------
    out
        Directory for the results, made if it is not there.
    seed
        Seed of the simulation and of the training.
    max_epochs
        Number of epochs; default that of the model.
    n_genes, n_perturbed, n_doubles, n_control_cells, n_cells_per_perturbation
        Size of the screen, see :func:`raptorgraph.datasets.simulate`; the doubles are held out.
    say
        Called with a line at each stage.

    Returns
    -------
    Result
        The comparison; files are written to `out`.

    Raises
    ------
    ValueError
        If a size is impossible.
    """
    _check_out(out)
    scvi.settings.seed = seed
    say(f"Simulating {n_genes} genes, {n_perturbed} perturbed genes and {n_doubles} doubles that are held out.")
    adata = simulate(
        n_genes,
        n_perturbed,
        n_doubles=n_doubles,
        n_control_cells=n_control_cells,
        n_cells_per_perturbation=n_cells_per_perturbation,
        seed=seed,
    )
    setup = {"perturbation_key": "perturbation", "library_size_key": "total_counts"}
    measured, truth = pp.measured_effects(adata, **setup), adata.uns["simulation"]["effects"]
    genes, unseen = _split(adata, setup)
    return _fit_and_write(
        adata[~unseen].copy(),
        setup,
        out,
        truth={"unseen doubles": truth.loc[[label for label in measured.index if len(genes[label]) > 1]]},
        measured=measured,
        genes=genes,
        max_epochs=max_epochs,
        title="Predicted against true effects of doubles unseen in training",
        kind="true",
        facts={},
        say=say,
        true_graph=adata.uns["simulation"]["adjacency"],
    )


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
    say: Callable[[str], None] = print,
) -> Result:
    """Fit a screen from a file and report on it.

    Parameters
    ----------
    path
        An h5ad file: cells x genes, with a perturbation label for each cell.
    out
        Directory for the results, made once the input was checked.
    perturbation_key, control, delimiter, layer, library_size_key, batch_key
        As in ``RaptorGraphModel.setup_anndata``.
    preset
        ``"default"`` or ``"paper"``.
    max_epochs
        Number of epochs; default that of the model.
    seed
        Seed of the training.
    singles_only
        Whether to leave combinations out of the training and report on them.
    n_top_genes
        Number of highly variable genes to keep, beside the perturbed ones; default all genes.
    say
        Called with a line at each stage.

    Returns
    -------
    Result
        The comparison; files are written to `out`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError
        If a column or the layer is not there.
    ValueError
        If the file is not h5ad, the data do not suit the model, or with `singles_only` there is no combination of
        genes that were perturbed alone.
    """
    _check_out(out)
    adata = _read(path)
    spelling = {"perturbation_key": perturbation_key, "control": control, "delimiter": delimiter}
    report = pp.perturbation_report(adata, **spelling)
    setup = {**spelling, "layer": layer, "library_size_key": library_size_key, "batch_key": batch_key}
    if n_top_genes is not None:
        library_key = library_size_key or "raptorgraph_library_size"
        pp.select_genes(adata, n_top_genes, **setup)
        # the row sums of the genes that are left are not library sizes
        setup["library_size_key"] = library_key if library_key in adata.obs else None

    measured = pp.measured_effects(adata, **setup)
    genes, combined = _split(adata, setup)
    singles = {genes[label][0] for label in measured.index if len(genes[label]) == 1}
    is_combination = pd.Series({label: len(genes[label]) > 1 for label in measured.index}, dtype=bool)
    predictable = [label for label in measured.index[is_combination] if singles.issuperset(genes[label])]
    if singles_only:
        if not predictable:
            raise ValueError(
                "The screen has no combination of genes that were perturbed alone too: run without --singles-only."
            )
        truth = {"singles": measured[~is_combination], "unseen combinations": measured.loc[predictable]}
        train, title = (
            adata[~combined].copy(),
            "Predicted against measured effects; the combinations were left out of training",
        )
    else:
        parts = {"singles": measured[~is_combination], "combinations": measured[is_combination]}
        truth = {name: effects for name, effects in parts.items() if len(effects)}
        train, title = adata, "Fit to the measured effects of the training data"

    targets = report.loc[report["n_genes"] == 1]
    facts = {
        "cells, genes": f"{adata.n_obs:,}, {adata.n_vars:,}",
        "control cells": f"{report['n_cells'].iloc[0]:,}",
        "singles, combinations": f"{len(targets)}, {(report['n_genes'] > 1).sum()}",
        "single targets without a gene": f"{(targets['targets_missing'] != '').sum()}",
    }
    if singles_only:
        facts["combinations of genes without singles, not scored"] = int(is_combination.sum()) - len(predictable)
    scvi.settings.seed = seed
    return _fit_and_write(
        train,
        setup,
        out,
        truth=truth,
        measured=measured,
        genes=genes,
        preset=preset,
        max_epochs=max_epochs,
        title=title,
        kind="measured",
        facts=facts,
        say=say,
    )


def _fit_and_write(
    train: ad.AnnData,
    setup: Mapping[str, Any],
    out: Path,
    *,
    truth: Mapping[str, pd.DataFrame],
    measured: pd.DataFrame,
    genes: Mapping[str, tuple[str, ...]],
    max_epochs: int | None,
    title: str,
    kind: str,
    facts: dict[str, Any],
    say: Callable[[str], None],
    preset: str = "default",
    true_graph: pd.DataFrame | None = None,
) -> Result:
    """Train on `train`, score the conditions of `truth`, write everything to `out`."""
    RaptorGraphModel.setup_anndata(train, **setup)
    model = RaptorGraphModel(train) if preset == "default" else RaptorGraphModel.from_preset(train, preset)
    out.mkdir(parents=True, exist_ok=True)  # only now that the input is known to be good

    say(f"Training on {train.n_obs:,} cells, {train.n_vars:,} genes and {len(model.perturbed_genes)} perturbed genes.")
    start = time.perf_counter()
    model.train(max_epochs=max_epochs)
    seconds = time.perf_counter() - start

    say("Predicting effects and interactions.")
    labels = list(dict.fromkeys([*model.conditions, *(label for part in truth.values() for label in part.index)]))
    predicted = model.predict_effects(labels)[list(measured.columns)]
    predicted.index = pd.Index(labels, name="perturbation")
    singles = {genes[label][0]: effect for label, effect in measured.iterrows() if len(genes[label]) == 1}
    summary = pd.concat(
        [_compare(name, effects, predicted, singles, genes) for name, effects in truth.items()], ignore_index=True
    )
    interactions = _interactions(model, set(measured.index))
    edges = model.get_edges()
    facts = {
        **facts,
        "active latents": f"{model.latent_activity()['active'].mean():.0%} of {len(model.latent_activity())}",
        "variance of control cells, predicted / measured (median gene)": f"{_variance_ratio(model, train, setup):.2f}",
        "edges of the graph": _edge_count(edges, true_graph, model.perturbed_genes),
        "training": f"{seconds:.0f} s",
    }

    say(f"Writing results to {out}.")
    predicted.to_csv(out / "effects.csv", float_format="%.6g")
    summary.to_csv(out / "summary.csv", index=False, float_format="%.6g")
    edges.to_csv(out / "dag.csv", index=False, float_format="%.6g")
    pd.Series(facts, name="value").rename_axis("fact").to_csv(out / "facts.csv")
    if interactions is not None:
        interactions.to_csv(out / "interactions.csv", float_format="%.6g")
    model.save(str(out / "model"), overwrite=True)
    model.annotate()
    train.write_h5ad(out / "annotated.h5ad")
    conditions = train.obs[setup["perturbation_key"]].map(lambda label: _canonical(label, setup)).astype(str)
    latents, drawn = train.obsm["X_raptorgraph"], list(truth.values())[-1]
    write_figures(out, model, latents, conditions.to_numpy(), predicted, drawn, kind=kind)
    return Result(title, summary, pd.DataFrame() if interactions is None else interactions, facts)


def _variance_ratio(model: RaptorGraphModel, train: ad.AnnData, setup: Mapping[str, Any]) -> float:
    """Median over genes of the variance of control cells, drawn from the likelihood, over that of measured ones."""
    control = (train.obs[setup["perturbation_key"]].map(lambda label: _canonical(label, setup)) == "").to_numpy()
    X, library = expression_source(train, setup.get("layer"), setup.get("library_size_key"))
    codes = np.zeros(train.n_obs, dtype=int)
    real = condition_moments(X, codes, 1, library=library, rows=np.flatnonzero(control)).var[0]
    cells = model.predict("control", train, noise="new")
    drawn = condition_moments(cells.X, np.zeros(cells.n_obs, dtype=int), 1).var[0]
    return float(np.median(drawn[real > 0] / real[real > 0]))


def _compare(
    name: str,
    truth: pd.DataFrame,
    predicted: pd.DataFrame,
    singles: Mapping[str, pd.Series],
    genes: Mapping[str, tuple[str, ...]],
) -> pd.DataFrame:
    """Scores of the model and of two predictions that need no model, on the same conditions."""
    columns = predicted.columns
    target = truth[columns].to_numpy(dtype=float)
    methods = {"raptorgraph": predicted.loc[truth.index].to_numpy(dtype=float)}
    members = [genes[label] for label in truth.index]
    # of a single the sum is the measured effect itself, which is no prediction
    if all(len(parts) > 1 and all(gene in singles for gene in parts) for parts in members):
        methods["sum of measured singles"] = np.array([sum(singles[g][columns] for g in parts) for parts in members])
    methods["no change"] = np.zeros_like(target)
    return pd.DataFrame(
        {
            "set": name,
            "conditions": len(truth),
            "method": method,
            "pearson": metrics.pearson_delta(values, target),
            "relative_mse": metrics.relative_mse(values, target),
        }
        for method, values in methods.items()
    )


def _interactions(model: RaptorGraphModel, measured: set[str]) -> pd.DataFrame | None:
    """All pairs, unmeasured ones first and by synergy; ``measured`` says whether the whole screen has the pair."""
    if len(model.perturbed_genes) < 2:
        return None
    table = tl.interactions(model)
    table["measured"] = table.index.isin(measured)
    return table.sort_values(["measured", "synergy"], ascending=[True, False], kind="stable")


def _edge_count(edges: pd.DataFrame, truth: pd.DataFrame | None, genes: Sequence[str]) -> int | str:
    """How many edges there are and, where the truth is known (row = cause), how many of them are true ones."""
    if truth is None:
        return len(edges)
    right = sum(truth.loc[edge.source, edge.target] != 0 for edge in edges.itertuples())
    return f"{len(edges)}, of which {right} are among the {np.count_nonzero(truth.loc[genes, genes])} true ones"


def _split(adata: ad.AnnData, setup: Mapping[str, Any]) -> tuple[dict[str, tuple[str, ...]], np.ndarray]:
    """Genes of each canonical label, and which cells carry a combination, shape (n_cells,)."""
    spelling = _spelling(setup)
    parsed = {
        label: pp.parse_perturbation(label, **spelling) for label in adata.obs[setup["perturbation_key"]].unique()
    }
    combined = adata.obs[setup["perturbation_key"]].map({label: len(parts) > 1 for label, parts in parsed.items()})
    genes = {pp.format_perturbation(parts, **spelling): parts for parts in parsed.values()}
    return genes, combined.to_numpy(dtype=bool)


def _canonical(label: str, setup: Mapping[str, Any]) -> str:
    spelling = _spelling(setup)
    genes = pp.parse_perturbation(label, **spelling)
    return pp.format_perturbation(genes, **spelling) if genes else ""


def _spelling(setup: Mapping[str, Any]) -> dict[str, Any]:
    return {"control": setup.get("control", "control"), "delimiter": setup.get("delimiter", "+")}


def _read(path: Path) -> ad.AnnData:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    if not h5py.is_hdf5(path):
        raise ValueError(f"{str(path)!r} is not an h5ad file: write one with adata.write_h5ad(...).")
    return ad.read_h5ad(path)


def _check_out(out: Path) -> None:
    """The first part of the path that exists must be a directory."""
    parent = next((part for part in (out, *out.parents) if part.exists()), out)
    if parent.exists() and not parent.is_dir():
        raise NotADirectoryError(f"{str(parent)!r} is a file: choose another directory for the results.")
