"""What a reader must know before using the results: everything that is weak, missing or assumed."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from raptorgraph.evaluation._held_out_scores import MODEL, SINGLES, UNSEEN, HeldOut
from raptorgraph.report._blocks import IMPORTANT, NOTE, Note
from raptorgraph.report._tables import counted, listed, percent
from raptorgraph.report._words import method
from raptorgraph.screen._label_hints import likely_controls
from raptorgraph.screen._label_tables import tabulate_labels
from raptorgraph.tl._strength import FEWEST_CONTROLS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from raptorgraph.report._findings import Run
    from raptorgraph.screen import Screen

FEW_CELLS, FEW_CONTROLS = 30, 100
_DRIFT = 0.05  # of the squared size of an effect
_LITTLE_SPREAD, _MUCH_SPREAD = 0.8, 1.25  # predicted over measured variance
_SURE, _RARE = 0.9, 0.5  # probability and frequency of an edge
_TOTALS = re.compile(
    r"(total|n)_?(counts?|umis?)(_rna)?|ncount_?rna|library_?size|umi_?counts?|ncounts?", re.IGNORECASE
)
_BATCHES = re.compile(
    r"(gem_?group|gemgroup|batch|lane|library|replicate|rep|bio_?rep|donor|sample|run|day|plate|well)s?(_?id)?",
    re.IGNORECASE,
)
_MOST_BATCHES = 50

_warning, _note = partial(Note, IMPORTANT), partial(Note, NOTE)


def notes(run: Run, strength: pd.DataFrame, held: HeldOut | None) -> list[Note]:
    """All that applies, what is important first.

    Parameters
    ----------
    run
        A finished run.
    strength
        Table of :func:`raptorgraph.tl._strength.strengths`.
    held
        Scores on held-out cells; None where none were held out.
    """
    screen, options = run.screen, run.options
    found = [
        *_cells(screen, strength, held),
        *_labels(screen),
        *_values(screen),
        *_batches(screen),
        *_targets(screen, strength),
        *_effects(strength),
        *_combinations(screen, options),
        *(() if held is None else _quality(held)),
        *_network(run.control, options, run.model.has_posterior),
        *_graph(run.edges),
    ]
    return sorted(found, key=lambda note: note.level != IMPORTANT)


def _cells(screen: Screen, strength: pd.DataFrame, held: HeldOut | None) -> Iterator[Note]:
    n_control, sizes = len(screen.rows(screen.control)), strength["n_cells"]
    if n_control < FEW_CONTROLS:
        yield _warning(
            f"Only {counted(n_control, 'control cell')}",
            "Every effect is a difference to these cells, so their noise is part of all effects and makes "
            "perturbations look more alike than they are.",
        )
    elif n_control < sizes.median():
        yield _note(
            "Fewer control cells than cells of a typical perturbation",
            f"{n_control:,} control cells against {sizes.median():,.0f} cells. Every effect is a difference to the "
            "control cells; more of them would make all effects more certain.",
        )
    few = sizes[sizes < FEW_CELLS].sort_values(kind="stable")
    if len(few):
        names = listed(f"{label} ({n})" for label, n in few.items())
        yield Note(
            IMPORTANT if len(few) > len(sizes) / 4 else NOTE,
            f"{counted(len(few), 'perturbation')} with fewer than {FEW_CELLS} cells",
            f"{names}. Their effects are uncertain, and predictions lean on the other perturbations instead.",
        )
    if held is not None and held.left_out and not held.reason:
        yield _note(
            f"{counted(len(held.left_out), 'perturbation')} not tested on held-out cells",
            f"{listed(held.left_out)}: too few cells to be divided in two.",
        )


def _labels(screen: Screen) -> Iterator[Note]:
    genes = sorted({gene for parts in screen.genes_of.values() for gene in parts})
    controls = likely_controls(genes)
    if controls:
        yield _warning(
            "Labels that look like controls were read as perturbed genes",
            f"{listed(controls)}. If these are control guides, run again and name them with --control (it can be given "
            "several times).",
        )
    larger = [label for label in screen.conditions if len(screen.genes_of[label]) > 2]
    if larger:
        yield _note(
            f"{counted(len(larger), 'combination')} of more than two genes",
            f"{listed(larger)}. They are part of the fit; the tables of interactions are about pairs.",
        )


def _values(screen: Screen) -> Iterator[Note]:
    _, library = screen.source
    if library is None:
        yield _note(
            "The values are log-normalized, not counts",
            "The noise of counting and the size of each cell can no longer be told from the data, and predicted cells "
            "are on this scale, without counts. If the file has a layer of counts, name it with --layer.",
        )
        return
    if screen.setup.get("library_size_key") is not None:
        return
    for column in screen.adata.obs.columns:
        values = screen.adata.obs[column]
        if _TOTALS.fullmatch(str(column)) and pd.api.types.is_numeric_dtype(values):
            factor = float(np.median(values.to_numpy(dtype=float) / np.maximum(library, 1.0)))
            if factor > 1.05:
                yield _warning(
                    f"The file seems to hold a part of the genes only: use --library-size-key {column}",
                    f"obs[{str(column)!r}] is {factor:.2g} times the sum of the counts in the file (median). Without "
                    "it, a perturbation that changes many of these genes makes all others seem to change the other "
                    "way.",
                )
                return
    if screen.adata.n_vars < 5000:
        yield _note(
            f"Library sizes are sums over the {screen.adata.n_vars:,} genes in the file",
            "If these are a part of the genes that were measured, name the column with the total counts of each cell "
            "with --library-size-key; otherwise a perturbation that changes many of them makes the others seem to "
            "change the other way.",
        )


def _batches(screen: Screen) -> Iterator[Note]:
    key = screen.setup.get("batch_key")
    if key is None:
        obs = screen.adata.obs
        likely = [
            str(column)
            for column in obs.columns
            if _BATCHES.fullmatch(str(column)) and 1 < obs[column].nunique() <= _MOST_BATCHES
        ]
        if likely:
            yield _note(
                "Batches were not taken into account",
                f"Columns that may name batches: {listed(likely)}. If cells were prepared or sequenced in several "
                "batches, run again with --batch-key, so that cells are compared with the control cells of their own "
                "batch.",
            )
        return
    names = screen.adata.obs[key].astype(str)
    without = sorted(set(names) - set(names[screen.codes == 0]))
    if without:
        yield _warning(
            f"{counted(len(without), 'batch', 'batches')} without control cells",
            f"{listed(without)}. Their cells are compared with all control cells, so that the difference between "
            "batches is part of the effect.",
        )


def _targets(screen: Screen, strength: pd.DataFrame) -> Iterator[Note]:
    report = tabulate_labels(screen.adata, screen.setup)
    genes = sorted({gene for parts in screen.genes_of.values() for gene in parts})
    measured = set(screen.adata.var_names)
    missing = [gene for gene in genes if gene not in measured]
    if missing:
        hints = [hint for hint in dict.fromkeys(", ".join(report["suggestions"]).split(", ")) if hint]
        yield Note(
            IMPORTANT if len(missing) > len(genes) / 2 else NOTE,
            f"{counted(len(missing), 'perturbed gene')} of {len(genes):,} not among the genes of the file",
            f"{listed(missing)}. Whether the perturbation worked cannot be read from the gene itself, and its place in "
            "the graph rests on the rest of its effect alone."
            + (f" The file may have it under another name: {listed(hints)}." if hints else ""),
        )
    own = strength.dropna(subset="own_gene")
    silent = own[own["own_gene"].abs() < 2 * own["own_gene_se"]]
    if len(silent):
        yield _note(
            f"{counted(len(silent), 'perturbation')} whose own gene does not visibly change",
            f"{listed(silent.index)}. A knock-out can leave the transcript as it was, and a transcript that is hardly "
            "detected cannot be seen to fall; but it can also mean that the perturbation did not work.",
        )
    up, down = own[own["own_gene"] > 2 * own["own_gene_se"]], own[own["own_gene"] < -2 * own["own_gene_se"]]
    for few, most, way, usual in ((up, down, "up", "down"), (down, up, "down", "up")):
        if 0 < len(few) < len(most):
            yield _note(
                f"{counted(len(few), 'perturbation')} whose own gene goes {way}",
                f"{listed(few.index)}. With most perturbations of this screen the own gene goes {usual}. Check the "
                "guides.",
            )


def _effects(strength: pd.DataFrame) -> Iterator[Note]:
    if strength["p"].isna().all():
        yield _warning(
            "Too few control cells to say which perturbations stand out",
            f"Effects are judged against random groups of control cells, for which at least {FEWEST_CONTROLS} are "
            "needed. No perturbation is taken to stand out.",
        )
        return
    weak = strength.index[~strength["stands_out"]]
    if len(weak):
        yield Note(
            IMPORTANT if len(weak) > len(strength) / 2 else NOTE,
            f"{counted(len(weak), 'perturbation')} of {len(strength):,} not told from noise",
            f"{listed(weak)}. Their measured change, but for the perturbed gene itself, is no larger than that of "
            "random groups of control cells. What is predicted for them, and for pairs with them, is mostly what "
            "perturbations do on average.",
        )


def _combinations(screen: Screen, options: Mapping[str, Any]) -> Iterator[Note]:
    singles = {screen.genes_of[label][0] for label in screen.singles}
    without = [label for label in screen.combinations if not singles.issuperset(screen.genes_of[label])]
    if without:
        yield _note(
            f"{counted(len(without), 'combination')} with a gene that was not perturbed alone",
            f"{listed(without)}. Their interaction cannot be measured, since the effect of one gene is unknown, and "
            "they are not among the combinations that are left out to test predictions.",
        )
    pairs = [genes for genes in map(screen.genes_of.get, screen.combinations) if genes and len(genes) == 2]
    if options.get("singles_only") or not any(singles.issuperset(pair) for pair in pairs):
        if not screen.combinations:
            why = "This screen has no combinations."
        elif options.get("singles_only"):
            why = "The combinations of this screen were left out of the training."
        else:
            why = "No pair of this screen has two genes that were also perturbed alone."
        yield _warning(
            "How pairs depart from sums was not learned from this screen",
            f"{why} Scores and intervals of pairs are a prior: what pairs did in other screens, somewhat less than the "
            "sum of the two effects. No interaction is determined.",
        )


def _quality(held: HeldOut) -> Iterator[Note]:
    if held.reason:
        yield _warning("The predictions were not tested", f"To measure them, {held.reason}.")
        return
    for name, what in {UNSEEN: "combinations that the fit had not seen", SINGLES: "single perturbations"}.items():
        scores = held.scores.get(name)
        if scores is None:
            continue
        if scores.value(MODEL, "relative_mse") >= 1:
            yield _warning(
                f"Predictions of {what} are no better than predicting no change",
                "On cells that were held out, their squared error is as large as the effects themselves. Do not use "
                "them.",
            )
        elif scores.verdict == "worse":
            advice = {
                UNSEEN: "Prefer it for effects of combinations in this screen.",
                SINGLES: "For a perturbation that was measured, the measured effect is the better estimate.",
            }
            yield Note(
                IMPORTANT if name == UNSEEN else NOTE,
                f"A simpler method predicts {what} better",
                f"The relative squared error of “{method(scores.best, name)[0]}” is "
                f"{scores.value(scores.best, 'relative_mse'):.2f}, that of raptorgraph "
                f"{scores.value(MODEL, 'relative_mse'):.2f}. {advice[name]}",
            )
    if UNSEEN not in held.scores:
        yield _note(
            "No combination could be left out to test predictions of combinations",
            "That needs combinations of genes that were also perturbed alone. How well pairs are predicted is unknown "
            "for this screen.",
        )
    if held.ranks is not None:
        poor = held.ranks[~(held.ranks["raptorgraph"] > held.chance)]
        if len(poor):
            untold = poor.loc[~(poor["half"] > held.chance), "type"]
            again = f" For {listed(untold)}, two measurements do not agree either, so these cells cannot tell."
            yield _warning(
                f"The order of pairs by {listed(poor['type'])} could not be told from chance",
                f"Among the {held.ranks['n_pairs'].iloc[0]:,} pairs that were left out, the predicted order does not "
                "agree with the measured one beyond chance. Take these lists as no more than candidates."
                + (again if len(untold) else ""),
            )
    for name, why in held.failed.items():
        yield _note(f"The baseline “{name}” could not be fitted", why)


def _network(control: Mapping[str, float], options: Mapping[str, Any], has_posterior: bool) -> Iterator[Note]:
    if control["drift"] > _DRIFT:
        yield _note(
            "Predicted control cells differ from the measured ones",
            f"The squared difference of their means is {percent(control['drift'])} of the squared size of a typical "
            "effect. Compare predicted cells with predicted control cells, not with measured ones.",
        )
    ratio = control["variance_ratio"]
    if not _LITTLE_SPREAD <= ratio <= _MUCH_SPREAD:
        yield _note(
            f"Predicted control cells vary {'less' if ratio < _LITTLE_SPREAD else 'more'} than measured ones",
            f"The variance of the median gene is {ratio:.2f} times the measured one.",
        )
    if options.get("max_epochs"):
        yield _note(
            f"The network was trained for {counted(options['max_epochs'], 'epoch')}, as asked",
            "Effects of the default preset do not depend on it; predicted cells and latents do.",
        )
    if not has_posterior:
        yield _note(
            f"The preset “{options.get('preset')}” has no intervals",
            "Its effects come from the network alone, which does not say how sure they are.",
        )


def _graph(edges: pd.DataFrame) -> Iterator[Note]:
    if edges.empty:
        yield _note(
            "The graph has no edge",
            "The data do not show that one perturbed gene acts through another. That is no proof that none does.",
        )
        return
    for name, inside in edges.groupby("module", observed=True) if "module" in edges else ():
        genes = list(dict.fromkeys([*inside["source"], *inside["target"]]))
        yield _warning(
            f"{counted(len(genes), 'gene')} that the data cannot order",
            f"{listed(genes)} ({name}). Their effects are nearly proportional, or one direction is found as often as "
            "the other. Do not read the edges among them as one gene acting through another.",
        )
    if "frequency" in edges and "probability" in edges:
        unstable = edges[(edges["probability"] >= _SURE) & (edges["frequency"] < _RARE)]
        if len(unstable):
            yield _warning(
                f"{counted(len(unstable), 'edge')} of the graph with support from a few cells only",
                f"{listed(f'{edge.source} → {edge.target}' for edge in unstable.itertuples())}. The probability is "
                f"{_SURE:g} or more, and yet fewer than half of the resampled screens have the edge. Go by the "
                "frequency.",
            )
