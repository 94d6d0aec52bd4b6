"""What a run is to do, and a run in work: what its stages have in common."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from raptorgraph import tl
from raptorgraph.model import RaptorGraphModel
from raptorgraph.report._answers import Answers, next_pairs, sizes, top_genes
from raptorgraph.report._findings import Run
from raptorgraph.report._results import compare, effects_of, ranked_pairs
from raptorgraph.report._states import ranked
from raptorgraph.report._write import control_facts
from raptorgraph.screen._setup import Setup
from raptorgraph.screen._strength import strengths
from raptorgraph.tl._reverse import query_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import anndata as ad

    from raptorgraph.report._folder import RunFolder
    from raptorgraph.screen import Screen

STRENGTHS, TOP, NEXT, STATES = "perturbations.csv", "top_genes.csv", "next_pairs.csv", "reverse.csv"


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
    query, query_name
        Cells in a state that perturbations are searched for, or None; and the name of the state, where no labels of
        these cells name several.
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
    query: ad.AnnData | None = None
    query_name: str = "query"

    def new_model(self) -> RaptorGraphModel:
        """A model that is not trained yet."""
        preset = self.options["preset"]
        return RaptorGraphModel(self.train) if preset == "default" else RaptorGraphModel.from_preset(self.train, preset)

    def wanted(self, model: RaptorGraphModel) -> pd.DataFrame | None:
        """Effects that lead to the states of the query, states x genes of the screen; None without a query.

        The model need not be trained. The errors are those of :func:`raptorgraph.tl.reverse` about its query.
        """
        if self.query is None:
            return None
        genes = pd.Index(self.screen.var_names)
        setup = Setup.of(model.setup_args)
        table = query_table(model, setup, self.query, genes, "effect")
        return table if setup.perturbation_key in self.query.obs else table.set_axis([self.query_name], axis=0)


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
    def strength(self) -> pd.DataFrame:
        """How strong each perturbation is: measured, beside noise, and by the model."""
        screen = self.order.screen
        return strengths(screen, self.seed).join(sizes(self.model, screen, self.seed))

    @cached_property
    def top_genes(self) -> pd.DataFrame:
        """The genes that each perturbation changes most."""
        return top_genes(self.model, self.order.screen)

    @cached_property
    def next_pairs(self) -> tuple[pd.DataFrame, str]:
        """Pairs to measure next; or none, and why."""
        return next_pairs(self.model, self.order.screen, self.seed)

    @cached_property
    def states(self) -> pd.DataFrame | None:
        """Perturbations that come near to the states of the query."""
        wanted = self.order.wanted(self.model)
        return None if wanted is None else ranked(self.model, wanted, self.order.screen, self.seed)

    @property
    def answers(self) -> Answers:
        """What one asks first; without what could not be made."""
        failed = self.folder.failed("answers")
        table, reason = (pd.DataFrame(), "the choice failed") if NEXT in failed else self.next_pairs
        genes = None if TOP in failed else self.top_genes
        return Answers(self.strength, genes, table, reason, None if STATES in failed else self.states)

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
        enrichment, latents = (None, None) if folder.failed("gene sets") else self.gene_sets
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
            answers=self.answers,
            interactions=self.interactions,
            stability=stability,
            control=self.control,
            enrichment=enrichment,
            latents=latents,
            truth=self.summary if order.kind == "true" else None,
            command=folder.manifest["command"],
            seconds={name: folder.seconds(stage) for stage, name in timed.items()},
        )
