"""A run in stages, each of which writes its products; a stage whose products are there is not done again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scvi
import torch

from raptorgraph import tl
from raptorgraph._files import remove, write_h5ad
from raptorgraph.model import RaptorGraphModel
from raptorgraph.report._content import verdicts
from raptorgraph.report._findings import Run
from raptorgraph.report._folder import TRAINING, RunFolder, check_room, run_folder
from raptorgraph.report._results import Result, compare, edge_count, effects_of, ranked_pairs
from raptorgraph.report._write import control_facts, findings_of, page_of, tables_of, warnings_without_tests
from raptorgraph.report._write_figures import write_figures
from raptorgraph.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import anndata as ad

RESAMPLES = 20  # screens from which the frequency of an edge comes
_ROW_BYTES = 80  # of a row of effects.csv, and of the same in annotated.h5ad
_SPARSE = ("data", "indices", "indptr")


@dataclass(frozen=True)
class Order:
    """What a run is to do.

    Attributes
    ----------
    train
        Cells to train on; the setup writes into them.
    screen
        All cells, which the setup leaves as they are.
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
    true_graph
        Adjacency among all genes, where it is known.
    gene_sets
        Gene sets for the latents, or None.
    """

    train: ad.AnnData
    screen: Screen
    truth: Mapping[str, pd.DataFrame]
    title: str
    kind: str
    options: Mapping[str, Any]
    facts: Mapping[str, Any]
    name: str
    source: list[tuple[str, str]]
    command: str | None
    report: bool
    resamples: int
    true_graph: pd.DataFrame | None = None
    gene_sets: Mapping[str, Sequence[str]] | None = None

    def new_model(self) -> RaptorGraphModel:
        """A model that is not trained yet."""
        preset = self.options["preset"]
        return RaptorGraphModel(self.train) if preset == "default" else RaptorGraphModel.from_preset(self.train, preset)


class Work:
    """A run in work: what stages have in common, each made when it is first asked for, from what is in the folder."""

    def __init__(self, order: Order, folder: RunFolder, say: Callable[[str], None]) -> None:
        self.order, self.folder, self.say = order, folder, say
        self.seed: int = order.options["seed"]

    @cached_property
    def model(self) -> RaptorGraphModel:
        """The trained model, as it was saved: a run that is gone on with has no other."""
        return RaptorGraphModel.load(str(self.folder.path / "model"), self.order.train)

    @cached_property
    def effects(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Predicted effects of all conditions, as a matrix and as a table with intervals."""
        truth = self.order.truth.values()
        labels = list(dict.fromkeys([*self.model.conditions, *(label for part in truth for label in part.index)]))
        return effects_of(self.model, labels, list(self.order.screen.adata.var_names))

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Scores of all sets of conditions."""
        predicted, screen = self.effects[0], self.order.screen
        parts = [compare(name, effects, predicted, screen) for name, effects in self.order.truth.items()]
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def interactions(self) -> pd.DataFrame | None:
        """Pairs in the order of what one would do next; None for one perturbed gene."""
        return ranked_pairs(self.model, set(self.order.screen.conditions), self.seed, self.say)

    @cached_property
    def control(self) -> dict[str, float]:
        """How predicted control cells differ from measured ones."""
        return control_facts(self.model, self.order.screen)

    @cached_property
    def gene_sets(self) -> tuple[pd.DataFrame, pd.DataFrame] | tuple[None, None]:
        """Gene sets of the latents, and the label of each latent; None where no sets are given."""
        if self.order.gene_sets is None:
            return None, None
        enrichment = tl.enrich(self.model, self.order.gene_sets, activation="learned", seed=self.seed)
        return enrichment, tl.annotate_latents(self.model, enrichment)

    def run(self) -> Run:
        """The run for its report, with the times of its stages."""
        order, folder = self.order, self.folder
        enrichment, latents = (None, None) if folder.has_failed("gene sets") else self.gene_sets
        stability = folder.found("graph")
        timed = {"network": "training"}
        timed |= {"graph": "resampled graphs"} if stability else {}
        timed |= {"gene sets": "gene sets"} if enrichment is not None else {}
        return Run(
            title=order.name,
            source=order.source,
            screen=order.screen,
            model=self.model,
            options=order.options,
            interactions=self.interactions,
            stability=stability,
            control=self.control,
            enrichment=enrichment,
            latents=latents,
            truth=self.summary if order.kind == "true" else None,
            command=folder.manifest["command"],
            seconds={name: folder.seconds(stage) for stage, name in timed.items()},
        )


def _network(work: Work) -> None:
    """Infer graph and effects, and train the network."""
    train = work.order.train
    model = work.order.new_model()
    genes = len(model.perturbed_genes)
    work.say(f"Training on {train.n_obs:,} cells, {train.n_vars:,} genes and {genes} perturbed genes.")
    train_network(model, work)
    with work.folder.product("model") as part:
        model.save(str(part))


def train_network(model: RaptorGraphModel, work: Work) -> None:
    """Train, or go on with a training that was broken off: after each epoch all that it needs is kept."""
    work.folder.inside.mkdir(exist_ok=True)
    checkpoints = work.folder.inside / TRAINING
    model.train(max_epochs=work.order.options["max_epochs"], checkpoint_dir=checkpoints, resume=True)


def _tables(work: Work) -> None:
    """Predict effects and interactions."""
    work.say("Predicting effects and interactions.")
    model, folder = work.model, work.folder
    folder.table("effects.csv", work.effects[1])
    folder.table("summary.csv", work.summary)
    folder.table("dag.csv", model.get_edges())
    activity = model.latent_activity()
    facts = {
        **work.order.facts,
        "active latents": f"{activity['active'].mean():.0%} of {len(activity)}",
        "variance of control cells, predicted / measured (median gene)": f"{work.control['variance_ratio']:.2f}",
        "edges of the graph": edge_count(model.get_edges(), work.order.true_graph, model.perturbed_genes),
    }
    folder.table("facts.csv", pd.DataFrame(facts.items(), columns=["fact", "value"]))
    pairs = work.interactions
    if pairs is not None:
        folder.table("interactions.csv", pairs, index=True)
    folder.keep(n_pairs=0 if pairs is None else pairs.attrs.get("n_pairs", len(pairs)))


def _graph(work: Work) -> None:
    """Say how often an edge is found again."""
    model, folder, n = work.model, work.folder, work.order.resamples
    if not (n and model.edges.is_inferred and len(model.perturbed_genes) > 1):
        return
    with folder.optional("frequency of edges"):
        work.say(f"Inferring the graph again from {n} resampled screens.")
        again = tl.dag_stability(model, n=n, n_null=max(1, n // 4), seed=work.seed)
        folder.table("dag.csv", model.get_edges())
        with folder.product("model") as part:
            model.save(str(part))
        folder.keep(**again.attrs, n=n)


def _gene_sets(work: Work) -> None:
    """Compare the latents with gene sets."""
    if work.order.gene_sets is None:
        return
    with work.folder.optional("comparison with gene sets"):
        work.say(f"Comparing the latents with {len(work.order.gene_sets):,} gene sets.")
        enrichment, latents = work.gene_sets
        assert enrichment is not None
        assert latents is not None
        work.folder.table("enrichment.csv", enrichment)
        work.folder.table("latents.csv", latents, index=True)


def _cells(work: Work) -> None:
    """Write the cells with what the model says of them."""
    with work.folder.optional("annotated.h5ad"), work.folder.product("annotated.h5ad") as part:
        if work.model.adata_manager.stored is not None:
            work.model.annotate(out=part)
            return
        work.model.annotate()
        cells = work.model.adata
        assert cells is not None
        # what scvi-tools knows its data by differs from run to run, and means nothing to others
        marks = {name: cells.uns.pop(name) for name in list(cells.uns) if name.startswith("_scvi")}
        try:
            write_h5ad(part, cells)
        finally:
            cells.uns.update(marks)


def _figures(work: Work) -> None:
    """Draw the graph, the training, the effects and a map of the cells."""
    order, threads = work.order, torch.get_num_threads()
    trained = Screen(order.train, order.screen.setup)
    conditions = np.array(["", *trained.conditions])[trained.codes]
    write_figures(work.folder, work.model, conditions, work.effects[0], list(order.truth.values())[-1], kind=order.kind)
    torch.set_num_threads(threads)  # numba, which draws the UMAP, changes it for all


def _report(work: Work) -> None:
    """Test the predictions and write the page, or only say what to know."""
    folder, run = work.folder, work.run()
    found = None
    if work.order.report:
        with folder.optional("report.html"):
            date = datetime.fromisoformat(folder.manifest["started"])
            found = findings_of(run, folder.path, date, say=work.say)
            work.say("Writing the report.")
            for name, table in tables_of(found).items():
                folder.table(name, table)
            with folder.product("report.html") as part:
                part.write_text(page_of(found), encoding="utf-8")
            folder.keep(tested=verdicts(found))
    with folder.optional("list of warnings"):
        known = warnings_without_tests(run) if found is None else found.notes
        folder.keep(notes=[[note.level, note.title, note.text] for note in known])


@dataclass(frozen=True)
class Stage:
    """A part of a run: what it does, and the names of what it may write."""

    do: Callable[[Work], None]
    products: tuple[str, ...]


STAGES = {
    "network": Stage(_network, ("model",)),
    "tables": Stage(_tables, ("effects.csv", "summary.csv", "dag.csv", "facts.csv", "interactions.csv")),
    "graph": Stage(_graph, ("dag.csv", "model")),
    "gene sets": Stage(_gene_sets, ("enrichment.csv", "latents.csv")),
    "cells": Stage(_cells, ("annotated.h5ad",)),
    "figures": Stage(_figures, ("dag.png", "training.png", "effects.png", "umap.png")),
    "report": Stage(_report, ("perturbations.csv", "responders.csv", "heldout.csv", "report.html")),
}
"""What took longest and cannot be had otherwise is written first; what comes after the tables may fail by itself."""

PRODUCTS = tuple(dict.fromkeys(name for stage in STAGES.values() for name in stage.products))


def carry_out(
    order: Order, out: Path, *, made: Mapping[str, Any], overwrite: bool, say: Callable[[str], None]
) -> Result:
    """Train, score the conditions, and write everything to a folder; what is there of the same run is kept.

    Parameters
    ----------
    order
        What to do.
    out
        Directory for the results, made if it is not there.
    made
        What the results depend on: only a run of which all this is the same is gone on with.
    overwrite
        Whether to replace the results of another run, once the new ones are complete.
    say
        Called with a line at each stage.

    Raises
    ------
    FileExistsError
        If there are results of another run, unless `overwrite`.
    OSError
        If the room on the disk does not suffice; at once where that can be told.
    RuntimeError
        If another process writes to the folder.
    """
    scvi.settings.seed = order.options["seed"]
    RaptorGraphModel.setup_anndata(order.train, **order.screen.setup)
    n_bytes = _size(order, order.new_model())  # raises for data that do not suit, before there is a folder
    with run_folder(out, made, PRODUCTS, command=order.command, overwrite=overwrite, say=say) as folder:
        todo = folder.begin(STAGES)
        kept = [name for name in STAGES if name not in todo]
        if kept:
            say(f"{', '.join(kept).capitalize()}: there already, and kept." if todo else f"All is in {out} already.")
        check_room(out, n_bytes - folder.n_bytes if todo else 0)
        work = Work(order, folder, say)
        for name in todo:
            if name == "cells":
                say(f"Writing results to {out}.")
            scvi.settings.seed = work.seed  # what a stage draws does not depend on those before it
            with folder.stage(name):
                STAGES[name].do(work)
        remove(folder.inside / TRAINING)
    found = {name: folder.found(name) for name in STAGES}
    return Result.read(out, order.title, found, folder.seconds("network"))


def _size(order: Order, model: RaptorGraphModel) -> float:
    """Bytes that the results are expected to take: of model, cells, latents and effects."""
    cells, module = order.train, model.module
    values = [cells.X, *cells.layers.values()] if model.adata_manager.stored is None else []
    tensors = [*module.parameters(), *module.buffers()]
    n_effects = (len(order.screen.conditions) + len(order.truth)) * cells.n_vars
    return float(
        sum(map(_nbytes, values))
        + sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        + cells.n_obs * len(model.latent_names) * 2 * 4
        + n_effects * 2 * _ROW_BYTES
    )


def _nbytes(values: Any) -> int:
    """Bytes of a matrix in memory; 0 of one that is not."""
    parts = [values] if isinstance(values, np.ndarray) else [getattr(values, name, None) for name in _SPARSE]
    return sum(int(part.nbytes) for part in parts if isinstance(part, np.ndarray))
