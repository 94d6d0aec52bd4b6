"""The report of a run: one HTML page that needs nothing else, and its tables."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph import tl
from raptorgraph._progress import progress_bar
from raptorgraph._version import __version__
from raptorgraph.evaluation import held_out
from raptorgraph.model._responders import guide_column
from raptorgraph.report._content import FILES, sections
from raptorgraph.report._findings import Findings, Run
from raptorgraph.report._notes import diagnosis, notes
from raptorgraph.report._page import render
from raptorgraph.report._pairs import top_pairs
from raptorgraph.report._short import strong_genes
from raptorgraph.screen._moments import condition_moments

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.report._blocks import Note
    from raptorgraph.screen import Screen

_MOST_CELLS = 20_000  # control cells of a screen that is not in memory


def findings_of(run: Run, out: Path, date: datetime, *, say: Callable[[str], None] = lambda line: None) -> Findings:
    """Test the predictions on held-out cells, and collect everything that the page is made of.

    Parameters
    ----------
    run
        The run to report on.
    out
        Directory with the results of the run.
    date
        When the run began.
    say
        Called with a line at each stage.
    """
    screen, options, seed = run.screen, run.options, run.options["seed"]
    start = time.perf_counter()
    checks = diagnosis(run, run.strength)
    held = held_out(
        screen,
        preset=options["preset"],
        seed=seed,
        max_epochs=options["max_epochs"],
        singles_only=options["singles_only"],
        say=say,
    )
    seconds = {**run.seconds, "testing on held-out cells": time.perf_counter() - start}
    pairs = None
    if run.interactions is not None:
        pairs = top_pairs(run.interactions, screen, strong_genes(run.strength, screen))
    guide_key = guide_column(run.model)
    return Findings(
        **{**vars(run), "seconds": seconds},
        out=out,
        date=date,
        held=held,
        checks=checks,
        notes=notes(run, checks, held),
        pairs=pairs,
        responders=tl.responders(run.model, guide_key),
        guides=None if guide_key is None else tl.guides(run.model, guide_key, seed=seed),
        guide_key=guide_key,
    )


def tables_of(found: Findings) -> dict[str, pd.DataFrame]:
    """The tables of the page, by the names of their files, which are beside the page."""
    held = found.held
    tables = {
        "perturbations.csv": found.strength.join(held.conditions).reset_index(),
        "responders.csv": found.responders,
    }
    if found.guides is not None:
        tables["guides.csv"] = found.guides
    scores = [scores.table.assign(set=name, conditions=len(scores.labels)) for name, scores in held.scores.items()]
    return {**tables, "heldout.csv": pd.concat(scores)} if scores else tables


def page_of(found: Findings) -> str:
    """The page as HTML, which names the files beside it that are there."""
    subtitle = f"Perturb-seq screen, fitted with raptorgraph {__version__} on {found.date:%d %B %Y}."
    with progress_bar("Sections"):
        files = [name for name in FILES if (found.out / name).is_file()]
        return render(found.title, subtitle, sections(found), files)


def warnings_without_tests(run: Run) -> list[Note]:
    """What to know before using the results, as far as it can be said without tests on held-out cells."""
    return notes(run, diagnosis(run, run.strength), None)


def control_facts(model: RaptorGraphModel, screen: Screen) -> dict[str, float]:
    """How predicted control cells differ from the measured ones.

    The predicted cells are drawn anew from the likelihood: what the network has learned of controls.

    Returns
    -------
    ``drift``: squared difference of the means, as a part of a typical effect's squared size, the noise of drawing the
    cells taken off; ``variance_ratio``: median over genes of predicted over measured variance.
    """
    n = None if model.adata_manager.stored is None else min(_MOST_CELLS, len(screen.rows(screen.control)))
    cells = model.predict(screen.control, n_cells=n, noise="new")[:, screen.var_names]
    moments = condition_moments(cells.X, np.zeros(cells.n_obs, dtype=int), 1)
    drawn, real = moments.var[0], screen.condition_moments.var[0]
    off = ((moments.mean[0] - screen.control_mean) ** 2).sum() - drawn.sum() / cells.n_obs
    typical = (screen.effects.to_numpy() ** 2).sum(axis=1).mean()
    return {
        "drift": float(max(off, 0.0) / typical) if typical > 0 else 0.0,
        "variance_ratio": float(np.median(drawn[real > 0] / real[real > 0])),
    }
