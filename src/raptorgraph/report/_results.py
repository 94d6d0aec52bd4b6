"""Fit a screen, compare with what was measured, and write tables, figures and the report."""

from __future__ import annotations

import time
from contextlib import contextmanager
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
from raptorgraph.report._findings import Run
from raptorgraph.report._write import control_facts, warnings_without_tests, write_report
from raptorgraph.report._write_figures import write_figures
from raptorgraph.screen import Screen
from raptorgraph.tl._interactions import UNDETERMINED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import anndata as ad

    from raptorgraph.report._blocks import Note

RESAMPLES = 20  # screens from which the frequency of an edge comes
_Z = 1.645  # an interval of 90 % is so many standard deviations to either side
_N_DRAWS, _FEWEST_DRAWS, _MOST_PAIRS = 100, 20, 2000  # more pairs get fewer draws, which take most of the time
_MOST_LISTED, _LISTED = 10_000, 2000  # of more pairs only those that come first are listed


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


def fit_and_write(
    train: ad.AnnData,
    screen: Screen,
    out: Path,
    *,
    truth: Mapping[str, pd.DataFrame],
    title: str,
    kind: str,
    options: Mapping[str, Any],
    facts: dict[str, Any],
    name: str,
    source: list[tuple[str, str]],
    command: str | None,
    report: bool,
    resamples: int,
    say: Callable[[str], None],
    true_graph: pd.DataFrame | None = None,
    gene_sets: Mapping[str, Sequence[str]] | None = None,
) -> Result:
    """Train, score the conditions of `truth`, write everything to `out`.

    What took longest and cannot be had otherwise is written first; of what comes after the tables, each part may fail
    by itself.

    Parameters
    ----------
    train
        Cells to train on; the setup writes into them.
    screen
        All cells, which the setup leaves as they are.
    out
        Directory for the results, made if it is not there.
    truth
        Name of each set of conditions to compare, and their effects, conditions x genes.
    title
        What the summary compares.
    kind
        What the effects of `truth` are: "true" or "measured".
    options
        ``preset``, ``seed``, ``max_epochs`` and ``singles_only``, with whatever else is to be told in a report.
    facts
        What is known of the screen, for the terminal.
    name, source, command
        For the report: name of the screen, what was read, and the command as typed.
    report
        Whether to write ``report.html``.
    resamples
        Number of resampled screens from which the graph is inferred again.
    say
        Called with a line at each stage.
    true_graph
        Adjacency among all genes, where it is known.
    gene_sets
        Gene sets for the latents, or None.
    """
    seed, seconds = options["seed"], {}

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[what] = time.perf_counter() - start

    RaptorGraphModel.setup_anndata(train, **screen.setup)
    preset = options["preset"]
    model = RaptorGraphModel(train) if preset == "default" else RaptorGraphModel.from_preset(train, preset)
    out.mkdir(parents=True, exist_ok=True)  # only now that the input is known to be good

    say(f"Training on {train.n_obs:,} cells, {train.n_vars:,} genes and {len(model.perturbed_genes)} perturbed genes.")
    with timed("training"):
        model.train(max_epochs=options["max_epochs"])
    model.save(str(out / "model"), overwrite=True)

    say("Predicting effects and interactions.")
    labels = list(dict.fromkeys([*model.conditions, *(x for part in truth.values() for x in part.index)]))
    predicted, table = _effects(model, labels, list(screen.adata.var_names))
    _write_table(table, out / "effects.csv")
    summary = pd.concat([_compare(key, part, predicted, screen) for key, part in truth.items()], ignore_index=True)
    _write_table(summary, out / "summary.csv")
    _write_table(model.get_edges(), out / "dag.csv")
    control, activity = control_facts(model, screen), model.latent_activity()
    facts = {
        **facts,
        "active latents": f"{activity['active'].mean():.0%} of {len(activity)}",
        "variance of control cells, predicted / measured (median gene)": f"{control['variance_ratio']:.2f}",
        "edges of the graph": _edge_count(model.get_edges(), true_graph, model.perturbed_genes),
        "training": f"{seconds['training']:.0f} s",
    }
    pd.Series(facts, name="value").rename_axis("fact").to_csv(out / "facts.csv")
    interactions = _interactions(model, set(screen.conditions), seed, say)
    if interactions is not None:
        _write_table(interactions, out / "interactions.csv", index=True)

    stability, enrichment, latents = {}, None, None
    with optional("frequency of edges", say):
        if resamples and model.edges.is_inferred and len(model.perturbed_genes) > 1:
            say(f"Inferring the graph again from {resamples} resampled screens.")
            with timed("resampled graphs"):
                again = tl.dag_stability(model, n=resamples, n_null=max(1, resamples // 4), seed=seed)
            stability = {**again.attrs, "n": resamples}
            _write_table(model.get_edges(), out / "dag.csv")
            model.save(str(out / "model"), overwrite=True)
    with optional("comparison with gene sets", say):
        if gene_sets is not None:
            say(f"Comparing the latents with {len(gene_sets):,} gene sets.")
            with timed("gene sets"):
                enrichment = tl.enrich(model, gene_sets, activation="learned", seed=seed)
                latents = tl.annotate_latents(model, enrichment)
            _write_table(enrichment, out / "enrichment.csv")
            _write_table(latents, out / "latents.csv", index=True)

    say(f"Writing results to {out}.")
    with optional("annotated.h5ad", say):
        if model.adata_manager.stored is None:
            model.annotate()
            train.write_h5ad(out / "annotated.h5ad")
        else:
            model.annotate(out=out / "annotated.h5ad")
    trained = Screen(train, screen.setup)
    threads = torch.get_num_threads()
    conditions = np.array(["", *trained.conditions])[trained.codes]
    write_figures(out, model, conditions, predicted, list(truth.values())[-1], kind=kind, say=say)
    torch.set_num_threads(threads)  # numba, which draws the UMAP, changes it for all

    run = Run(
        title=name,
        source=source,
        screen=screen,
        model=model,
        options=options,
        interactions=interactions,
        stability=stability,
        control=control,
        enrichment=enrichment,
        latents=latents,
        truth=summary if kind == "true" else None,
        command=command,
        seconds=seconds,
    )
    found, warned = None, []
    if report:
        with optional("report.html", say):
            found = write_report(run, out, say=say)
    with optional("list of warnings", say):
        warned = warnings_without_tests(run) if found is None else found.notes
    return Result(
        title,
        summary,
        pd.DataFrame() if interactions is None else interactions,
        facts,
        report=None if found is None else out / "report.html",
        notes=warned,
        tested=[] if found is None else verdicts(found),
    )


def _write_table(table: pd.DataFrame, path: Path, *, index: bool = False) -> None:
    table.to_csv(path, index=index, float_format="%.6g")


def _effects(model: RaptorGraphModel, labels: list[str], genes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predicted effects, conditions x genes, and the table of them with 90 % intervals where there is a posterior."""
    if not model.has_posterior:
        effects = model.predict_effects(labels)[genes].set_axis(labels, axis=0) + 0.0  # a negative zero is a zero
        return effects, long_effects({"effect": effects})
    effects, sd = (x[genes].set_axis(labels, axis=0) for x in model.predict_effects(labels, return_sd=True))
    effects += 0.0
    ends = {"effect_low": effects - _Z * sd, "effect_high": effects + _Z * sd}
    return effects, long_effects({"effect": effects, "sd": sd, **ends})


def _compare(name: str, truth: pd.DataFrame, predicted: pd.DataFrame, screen: Screen) -> pd.DataFrame:
    """Scores of the model and of two predictions that need no model, on the same conditions."""
    target = truth[predicted.columns].to_numpy(dtype=float)
    methods = {"raptorgraph": predicted.loc[truth.index].to_numpy(dtype=float)}
    measured = screen.effects[predicted.columns]
    singles = [[screen.single(gene) for gene in screen.genes_of[label]] for label in truth.index]
    # of a single the sum is the measured effect itself, which is no prediction
    if all(len(labels) > 1 and measured.index.isin(labels).sum() == len(labels) for labels in singles):
        methods["sum of measured singles"] = np.array([measured.loc[labels].sum() for labels in singles])
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
    """All pairs with 90 % intervals, unmeasured ones first, and first those whose interaction is determined.

    Of more than 10,000 pairs the 2,000 that depart most from the sum of both effects; ``attrs["n_pairs"]`` is then the
    number of all.

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
    top = None
    if n_pairs > _MOST_LISTED:
        top = _LISTED
        say(f"Of {n_pairs:,} pairs the {top:,} are listed that depart most from the sum of both effects.")
    elif n_draws and n_pairs > _MOST_PAIRS:
        n_draws = max(_FEWEST_DRAWS, _N_DRAWS * _MOST_PAIRS // n_pairs)
        say(f"Intervals of {n_pairs:,} pairs take a while: {n_draws} draws each.")
    table = tl.interactions(model, top=top, n_draws=n_draws, seed=seed)
    table["measured"] = table.index.isin(measured)
    table["against_sum"] = against(table, 1.0)
    # the median of the pairs that depart most is not that of all
    table["against_median"] = against(table, table["synergy"].median()) if top is None else ""
    size = (table["magnitude"] - table["magnitude"] / table["synergy"]).abs()
    alike = {name: table[name] == "" for name in ("against_median", "against_sum")}
    unknown = table["interaction"] == UNDETERMINED
    order = pd.DataFrame({"measured": table["measured"], "unknown": unknown, **alike, "size": -size})
    return table.loc[order.sort_values(list(order), kind="stable").index]


def against(table: pd.DataFrame, value: float) -> np.ndarray:
    """Whether each pair's synergy is ``"stronger"`` or ``"weaker"`` than a value; empty where that cannot be told.

    It is where the interaction is determined and the whole interval lies on the same side of the value.
    """
    if "synergy_low" not in table:
        return np.full(len(table), "")
    known = table["interaction"] != UNDETERMINED
    stronger, weaker = known & (table["synergy_low"] > value), known & (table["synergy_high"] < value)
    return np.select([stronger, weaker], ["stronger", "weaker"], "")


def _edge_count(edges: pd.DataFrame, truth: pd.DataFrame | None, genes: Sequence[str]) -> int | str:
    """How many edges there are and, where the truth is known (row = cause), how many of them are true ones."""
    if truth is None:
        return len(edges)
    right = sum(truth.loc[edge.source, edge.target] != 0 for edge in edges.itertuples())
    return f"{len(edges)}, of which {right} are among the {np.count_nonzero(truth.loc[genes, genes])} true ones"
