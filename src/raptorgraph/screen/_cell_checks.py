"""Checks of the cells and labels of a screen: too few, read otherwise than meant, or without a visible effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raptorgraph._text import counted
from raptorgraph.screen._checks import NOTE, WARNING, Finding, note, warning
from raptorgraph.screen._label_hints import likely_controls
from raptorgraph.screen._label_tables import tabulate_labels
from raptorgraph.screen._strength import FEWEST_CONTROLS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from raptorgraph.screen._screen import Screen

FEW_CELLS, FEW_CONTROLS = 30, 100


def few_cells(screen: Screen) -> Iterator[Finding]:
    """Too few control cells, or cells of a perturbation."""
    n_control, sizes = int(screen.n_cells.iloc[0]), screen.n_cells.iloc[1:]
    if n_control < FEW_CONTROLS:
        yield warning(
            f"Only {counted(n_control, 'control cell')}",
            "Every effect is a difference to these cells, so their noise is part of all effects and makes "
            "perturbations look more alike than they are.",
            "Add control cells, if there are any that were left out.",
            (screen.control,),
            named=(),
        )
    elif n_control < sizes.median():
        yield note(
            "Fewer control cells than cells of a typical perturbation",
            f"{n_control:,} control cells against {sizes.median():,.0f} cells. Every effect is a difference to the "
            "control cells; more of them would make all effects more certain.",
        )
    few = sizes[sizes < FEW_CELLS].sort_values(kind="stable")
    if len(few):
        yield Finding(
            WARNING if len(few) > len(sizes) / 4 else NOTE,
            f"{counted(len(few), 'perturbation')} with fewer than {FEW_CELLS} cells",
            "Their effects are uncertain, and predictions lean on the other perturbations instead.",
            "Go by the standard deviations: predict_effects(..., return_sd=True).",
            tuple(few.index),
            tuple(f"{label} ({n})" for label, n in few.items()),
        )


def labels(screen: Screen) -> Iterator[Finding]:
    """Labels that were perhaps read otherwise than meant."""
    genes = sorted({gene for parts in screen.genes_of.values() for gene in parts})
    controls = likely_controls(genes)
    if controls:
        yield warning(
            "Labels that look like controls were read as perturbed genes",
            "Cells that were left alone are then taken to be perturbed.",
            "If these are control guides, set the data up again and name them: setup_anndata(control=[...]), or "
            "--control on the command line (it can be given several times).",
            tuple(controls),
        )
    larger = [label for label in screen.conditions if len(screen.genes_of[label]) > 2]
    if larger:
        yield note(
            f"{counted(len(larger), 'combination')} of more than two genes",
            "They are part of the fit; the tables of interactions are about pairs.",
            "",
            tuple(larger),
        )


def targets(screen: Screen, strength: pd.DataFrame) -> Iterator[Finding]:
    """Perturbed genes that are not measured, or do not change as the others do."""
    genes = sorted({gene for parts in screen.genes_of.values() for gene in parts})
    measured = set(screen.var_names)
    missing = [gene for gene in genes if gene not in measured]
    if missing:
        suggested = tabulate_labels(screen.adata, screen.setup)["suggestions"]
        hints = [hint for hint in dict.fromkeys(", ".join(suggested).split(", ")) if hint]
        yield Finding(
            WARNING if len(missing) > len(genes) / 2 else NOTE,
            f"{counted(len(missing), 'perturbed gene')} of {len(genes):,} not among the genes of the file",
            "Whether the perturbation worked cannot be read from the gene itself, and its place in the graph rests on "
            "the rest of its effect alone.",
            f"The file may have it under another name: {', '.join(hints)}." if hints else "",
            tuple(missing),
        )
    own = strength.dropna(subset="own_gene")
    silent = own[own["own_gene"].abs() < 2 * own["own_gene_se"]]
    if len(silent):
        yield note(
            f"{counted(len(silent), 'perturbation')} whose own gene does not visibly change",
            "A knock-out can leave the transcript as it was, and a transcript that is hardly detected cannot be seen "
            "to fall; but it can also mean that the perturbation did not work.",
            "",
            tuple(silent.index),
        )
    up, down = own[own["own_gene"] > 2 * own["own_gene_se"]], own[own["own_gene"] < -2 * own["own_gene_se"]]
    for few, most, way, usual in ((up, down, "up", "down"), (down, up, "down", "up")):
        if 0 < len(few) < len(most):
            yield note(
                f"{counted(len(few), 'perturbation')} whose own gene goes {way}",
                f"With most perturbations of this screen the own gene goes {usual}.",
                "Check the guides.",
                tuple(few.index),
            )


def effects(strength: pd.DataFrame) -> Iterator[Finding]:
    """Effects that are no larger than the noise of sampling cells."""
    if strength["p"].isna().all():
        yield warning(
            "Too few control cells to say which perturbations stand out",
            f"Effects are judged against random groups of control cells, for which at least {FEWEST_CONTROLS} are "
            "needed. No perturbation is taken to stand out.",
        )
        return
    weak = strength.index[~strength["stands_out"]]
    if len(weak):
        yield Finding(
            WARNING if len(weak) > len(strength) / 2 else NOTE,
            f"{counted(len(weak), 'perturbation')} of {len(strength):,} not told from noise",
            "Their measured change, but for the perturbed gene itself, is no larger than that of random groups of "
            "control cells. What is predicted for them, and for pairs with them, is mostly what perturbations do on "
            "average.",
            "",
            tuple(weak),
        )


def combinations(screen: Screen, *, singles_only: bool = False) -> Iterator[Finding]:
    """What cannot be learned of combinations; `singles_only` says that none were trained on."""
    singles = {screen.genes_of[label][0] for label in screen.singles}
    without = [label for label in screen.combinations if not singles.issuperset(screen.genes_of[label])]
    if without:
        yield note(
            f"{counted(len(without), 'combination')} with a gene that was not perturbed alone",
            "Their interaction cannot be measured, since the effect of one gene is unknown, and they are not among the "
            "combinations that are left out to test predictions.",
            "",
            tuple(without),
        )
    pairs = [genes for genes in map(screen.genes_of.get, screen.combinations) if genes and len(genes) == 2]
    if singles_only or not any(singles.issuperset(pair) for pair in pairs):
        if not screen.combinations:
            why = "This screen has no combinations."
        elif singles_only:
            why = "The combinations of this screen were left out of the training."
        else:
            why = "No pair of this screen has two genes that were also perturbed alone."
        yield warning(
            "How pairs depart from sums was not learned from this screen",
            f"{why} Scores and intervals of pairs are a prior: what pairs did in other screens, somewhat less than the "
            "sum of the two effects. No interaction is determined.",
        )
