"""Fit a screen, compare with what was measured, and write tables, figures and the report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from raptorgraph import metrics, tl
from raptorgraph._failures import optional
from raptorgraph.model import RaptorGraphModel
from raptorgraph.model._export import long_effects
from raptorgraph.report._content import verdicts
from raptorgraph.report._write import Run, warnings_without_tests, write_report
from raptorgraph.report._write_figures import write_figures
from raptorgraph.screen import Screen, Setup
from raptorgraph.screen._moments import condition_moments, moments_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import anndata as ad

    from raptorgraph.report._notes import Note

RESAMPLES = 20  # screens from which the frequency of an edge comes
_Z = 1.645  # an interval of 90 % is so many standard deviations to either side
_N_DRAWS, _FEWEST_DRAWS, _MOST_PAIRS = 100, 20, 2000  # more pairs get fewer draws, which take most of the time


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
        All pairs, unmeasured ones first, and in each part first those that stand out.
    facts
        Short descriptions and their values.
    report
        The page that was written, if one was.
    notes
        What to know before using the results, what is important first.
    tested
        Sentences on how well effects were predicted on held-out cells; empty without a report.
    """

    title: str
    summary: pd.DataFrame
    interactions: pd.DataFrame
    facts: dict[str, Any]
    report: Path | None = None
    notes: Sequence[Note] = ()
    tested: Sequence[str] = ()


@dataclass(frozen=True)
class Task:
    """A screen and what is asked of it.

    Attributes
    ----------
    train
        Cells to train on; the setup writes into them.
    setup
        Arguments of ``setup_anndata``.
    truth
        Name of each set of conditions to compare, and their effects, conditions x genes.
    measured
        Measured effects of all conditions.
    genes
        Genes of each canonical label.
    title
        What is compared.
    kind
        What the effects of `truth` are: "true" or "measured".
    options
        ``preset``, ``seed``, ``max_epochs`` and ``singles_only``, with whatever else is to be told in a report.
    true_graph
        Adjacency among all genes, where it is known.
    gene_sets
        Gene sets for the latents, or None.
    report
        What a report needs, and whether one is wanted.
    """

    train: ad.AnnData
    setup: Mapping[str, Any]
    truth: Mapping[str, pd.DataFrame]
    measured: pd.DataFrame
    genes: Mapping[str, tuple[str, ...]]
    title: str
    kind: str
    options: Mapping[str, Any]
    report: Source
    true_graph: pd.DataFrame | None = None
    gene_sets: Mapping[str, Sequence[str]] | None = None


@dataclass(frozen=True)
class Source:
    """Of a report: name of the screen, what was read, all cells before the setup, resamplings, the command."""

    title: str
    facts: list[tuple[str, str]]
    cells: ad.AnnData
    resamples: int
    command: str | None
    wanted: bool


def fit_and_write(task: Task, out: Path, facts: Mapping[str, Any], say: Callable[[str], None]) -> Result:
    """Train, score the conditions of ``task.truth``, write everything to `out`.

    What took longest and cannot be had otherwise is written first; of what comes after the tables, each part may fail
    by itself.
    """
    train, setup, options = task.train, task.setup, task.options
    RaptorGraphModel.setup_anndata(train, **setup)
    preset = options["preset"]
    model = RaptorGraphModel(train) if preset == "default" else RaptorGraphModel.from_preset(train, preset)
    out.mkdir(parents=True, exist_ok=True)  # only now that the input is known to be good

    say(f"Training on {train.n_obs:,} cells, {train.n_vars:,} genes and {len(model.perturbed_genes)} perturbed genes.")
    start = time.perf_counter()
    model.train(max_epochs=options["max_epochs"])
    seconds = {"training": time.perf_counter() - start}
    model.save(str(out / "model"), overwrite=True)

    say("Predicting effects and interactions.")
    labels = list(dict.fromkeys([*model.conditions, *(x for part in task.truth.values() for x in part.index)]))
    predicted, table = _effects(model, labels, list(task.measured.columns))
    table.to_csv(out / "effects.csv", index=False, float_format="%.6g")
    singles = {task.genes[x][0]: effect for x, effect in task.measured.iterrows() if len(task.genes[x]) == 1}
    summary = pd.concat(
        [_compare(name, effects, predicted, singles, task.genes) for name, effects in task.truth.items()],
        ignore_index=True,
    )
    summary.to_csv(out / "summary.csv", index=False, float_format="%.6g")
    model.get_edges().to_csv(out / "dag.csv", index=False, float_format="%.6g")
    variance_ratio = _variance_ratio(model, train, setup)
    activity = model.latent_activity()
    facts = {
        **facts,
        "active latents": f"{activity['active'].mean():.0%} of {len(activity)}",
        "variance of control cells, predicted / measured (median gene)": f"{variance_ratio:.2f}",
        "edges of the graph": _edge_count(model.get_edges(), task.true_graph, model.perturbed_genes),
        "training": f"{seconds['training']:.0f} s",
    }
    pd.Series(facts, name="value").rename_axis("fact").to_csv(out / "facts.csv")
    interactions = _interactions(model, set(task.measured.index), options["seed"], say)
    if interactions is not None:
        interactions.to_csv(out / "interactions.csv", float_format="%.6g")

    stability, enrichment, latents = {}, None, None
    with optional("frequency of edges", say):
        if task.report.resamples and model.edges.is_inferred and len(model.perturbed_genes) > 1:
            say(f"Inferring the graph again from {task.report.resamples} resampled screens.")
            start = time.perf_counter()
            stability = _resample(model, task.report.resamples, options["seed"])
            seconds["resampled graphs"] = time.perf_counter() - start
            model.get_edges().to_csv(out / "dag.csv", index=False, float_format="%.6g")
            model.save(str(out / "model"), overwrite=True)
    with optional("comparison with gene sets", say):
        if task.gene_sets is not None:
            say(f"Comparing the latents with {len(task.gene_sets):,} gene sets.")
            start = time.perf_counter()
            enrichment = tl.enrich(model, task.gene_sets, seed=options["seed"])
            latents = tl.annotate_latents(model, enrichment)
            seconds["gene sets"] = time.perf_counter() - start
            enrichment.to_csv(out / "enrichment.csv", index=False, float_format="%.6g")
            latents.to_csv(out / "latents.csv", float_format="%.6g")

    say(f"Writing results to {out}.")
    with optional("annotated.h5ad", say):
        model.annotate()
        train.write_h5ad(out / "annotated.h5ad")
    cells = Screen(train, setup)
    conditions = np.array(["", *cells.conditions], dtype=object)[cells.codes]
    drawn = list(task.truth.values())[-1]
    threads = torch.get_num_threads()
    write_figures(out, model, conditions, predicted, drawn, kind=task.kind, say=say)
    torch.set_num_threads(threads)  # numba, which draws the UMAP, changes it for all

    run = Run(
        title=task.report.title,
        source=task.report.facts,
        screen=Screen(task.report.cells, dict(setup)),
        model=model,
        options=options,
        interactions=interactions,
        stability=stability,
        variance_ratio=variance_ratio,
        enrichment=enrichment,
        latents=latents,
        truth=summary if task.kind == "true" else None,
        command=task.report.command,
        seconds=seconds,
    )
    found = None
    if task.report.wanted:
        with optional("report.html", say):
            found = write_report(run, out, say=say)
    warned, tested = [], []
    with optional("list of warnings", say):
        warned = warnings_without_tests(run) if found is None else found.notes
    if found is not None:
        tested = verdicts(found)
    pairs = pd.DataFrame() if interactions is None else interactions
    page = None if found is None else out / "report.html"
    return Result(task.title, summary, pairs, facts, page, tuple(warned), tuple(tested))


def _effects(model: RaptorGraphModel, labels: list[str], genes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predicted effects, conditions x genes, and the table of them with 90 % intervals where there is a posterior."""
    if not model.has_posterior:
        effects = model.predict_effects(labels)[genes].set_axis(labels, axis=0) + 0.0  # a negative zero is a zero
        return effects, long_effects({"effect": effects})
    effects, sd = (x[genes].set_axis(labels, axis=0) for x in model.predict_effects(labels, return_sd=True))
    effects += 0.0
    ends = {"effect_low": effects - _Z * sd, "effect_high": effects + _Z * sd}
    return effects, long_effects({"effect": effects, "sd": sd, **ends})


def _resample(model: RaptorGraphModel, n: int, seed: int) -> dict[str, float]:
    n_null = max(1, n // 4)
    table = tl.dag_stability(model, n=n, n_null=n_null, seed=seed)
    return {**table.attrs, "n": n}


def _variance_ratio(model: RaptorGraphModel, train: ad.AnnData, setup: Mapping[str, Any]) -> float:
    """Median over genes of the variance of control cells, drawn from the likelihood, over that of measured ones."""
    screen = Screen(train, setup)
    real = moments_of(screen.sums(screen.rows(screen.control))).var[0]
    cells = model.predict(screen.control, train, noise="new")
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


def _interactions(
    model: RaptorGraphModel, measured: set[str], seed: int, say: Callable[[str], None]
) -> pd.DataFrame | None:
    """All pairs with 90 % intervals, unmeasured ones first, and first those that stand out.

    ``measured`` says whether the whole screen has the pair; ``against_sum`` whether its effect is ``"stronger"`` or
    ``"weaker"`` than the sum of both genes' effects (:func:`against`), ``against_median`` the same for the median pair:
    in many screens all pairs fall short of the sum alike. Sizes are compared last, so that tiny effects do not come
    first.
    """
    n = len(model.perturbed_genes)
    if n < 2:
        return None
    n_draws = _N_DRAWS if model.has_posterior else 0
    n_pairs = n * (n - 1) // 2
    if n_draws and n_pairs > _MOST_PAIRS:
        n_draws = max(_FEWEST_DRAWS, _N_DRAWS * _MOST_PAIRS // n_pairs)
        say(f"Intervals of {n_pairs:,} pairs take a while: {n_draws} draws each.")
    table = tl.interactions(model, n_draws=n_draws, seed=seed)
    table["measured"] = table.index.isin(measured)
    table["against_sum"] = against(table, 1.0)
    table["against_median"] = against(table, table["synergy"].median())
    size = (table["magnitude"] - table["magnitude"] / table["synergy"]).abs()
    alike = {name: table[name] == "" for name in ("against_median", "against_sum")}
    order = pd.DataFrame({"measured": table["measured"], **alike, "size": -size})
    return table.loc[order.sort_values(list(order), kind="stable").index]


def against(table: pd.DataFrame, value: float) -> np.ndarray:
    """Whether each pair's synergy is ``"stronger"`` or ``"weaker"`` than a value; empty where that cannot be told.

    It is where the score and its whole interval lie on the same side of the value.
    """
    if "synergy_low" not in table:
        return np.full(len(table), "")
    stronger = (table["synergy"] > value) & (table["synergy_low"] > value)
    weaker = (table["synergy"] < value) & (table["synergy_high"] < value)
    return np.select([stronger, weaker], ["stronger", "weaker"], "")


def _edge_count(edges: pd.DataFrame, truth: pd.DataFrame | None, genes: Sequence[str]) -> int | str:
    """How many edges there are and, where the truth is known (row = cause), how many of them are true ones."""
    if truth is None:
        return len(edges)
    right = sum(truth.loc[edge.source, edge.target] != 0 for edge in edges.itertuples())
    return f"{len(edges)}, of which {right} are among the {np.count_nonzero(truth.loc[genes, genes])} true ones"


def split(adata: ad.AnnData, setup: Mapping[str, Any]) -> tuple[dict[str, tuple[str, ...]], np.ndarray]:
    """Genes of each canonical label, and which cells carry a combination, shape (n_cells,)."""
    given = Setup.of(setup)
    labels = adata.obs[given.perturbation_key]
    parsed = {label: given.genes(label) for label in labels.unique()}
    combined = labels.map({label: len(parts) > 1 for label, parts in parsed.items()})
    return {given.label(parts): parts for parts in parsed.values()}, combined.to_numpy(dtype=bool)
