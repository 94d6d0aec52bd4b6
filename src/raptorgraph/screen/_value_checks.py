"""Checks of the values and batches of a screen: library sizes, doublets, batches without controls."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.mixture import GaussianMixture

from raptorgraph._text import counted
from raptorgraph.screen._checks import NOTE, WARNING, Finding, NotChecked, note, warning
from raptorgraph.screen._depth_check import shifted_by_depth
from raptorgraph.screen._guide_features import guide_features, without_guides

if TYPE_CHECKING:
    from collections.abc import Iterator

    from raptorgraph.screen._screen import Screen

_TOTALS = re.compile(
    r"(total|n)_?(counts?|umis?)(_rna)?|ncount_?rna|library_?size|umi_?counts?|ncounts?", re.IGNORECASE
)
_BATCHES = re.compile(
    r"(gem_?group|gemgroup|batch|lane|library|replicate|rep|bio_?rep|donor|sample|run|day|plate|well)s?(_?id)?",
    re.IGNORECASE,
)
_MOST_BATCHES = 50
_FEW_IN_BATCH = 10  # control cells
_TWICE = 1.8  # times the library of controls, the median of a condition, that is about twice
_FEWEST, _FEWEST_FOR_MODES = 10, 50  # cells of a condition whose libraries are looked at
_MOST_FOR_MODES = 400
# Two modes: each with so much of the cells, so far apart (ratio, and in standard deviations about them), and so much
# likelier than one by the information criterion.
_LEAST_MODE, _APART, _CLEAR_OF, _LIKELIER = 0.1, np.log(1.5), 2.5, 10.0


def values(screen: Screen) -> Iterator[Finding]:
    """Values that are no counts or not of genes, and libraries that are sums of a part of the genes."""
    _, library = screen.source
    of_guides = guide_features(screen.adata, screen.parsed.genes)
    if of_guides.any():
        yield warning(
            f"{of_guides.sum():,} of {len(of_guides):,} variables read guides and no genes",
            "They show which guide a cell carries and nothing of what it does, so that latents, responders and scores "
            "look better than they are, and the effects of a guide on its own read-out count as effects on genes.",
            f"Leave them out before the setup: {without_guides(screen.setup)}",
            tuple(screen.adata.var_names[of_guides].astype(str)),
        )
    if library is None:
        yield note(
            "The values are log-normalized, not counts",
            "The noise of counting and the size of each cell can no longer be told from the data, and predicted cells "
            "are on this scale, without counts.",
            "If the data have a layer of counts, name it: setup_anndata(layer=...), or --layer.",
        )
        return
    if screen.setup.get("library_size_key") is not None:
        return
    for column, totals in _totals(screen):
        factor = float(np.median(totals / np.maximum(library, 1.0)))
        if factor > 1.05:
            yield warning(
                f"The file seems to hold a part of the genes only: use --library-size-key {column}",
                f"obs[{column!r}] is {factor:.2g} times the sum of the counts in the file (median). Without it, a "
                "perturbation that changes many of these genes makes all others seem to change the other way.",
                f"Set the data up with library_size_key={column!r}.",
                (column,),
                named=(),
            )
            return
    if screen.adata.n_vars < 5000:
        yield note(
            f"Library sizes are sums over the {screen.adata.n_vars:,} genes in the file",
            "If these are a part of the genes that were measured, a perturbation that changes many of them makes the "
            "others seem to change the other way.",
            "Name the column with the total counts of each cell: setup_anndata(library_size_key=...), or "
            "--library-size-key.",
        )


def _totals(screen: Screen) -> Iterator[tuple[str, np.ndarray]]:
    """Columns of ``obs`` that are named like the total counts of cells."""
    for column in screen.adata.obs.columns:
        found = screen.adata.obs[column]
        if _TOTALS.fullmatch(str(column)) and pd.api.types.is_numeric_dtype(found):
            yield str(column), found.to_numpy(dtype=float)


# -- doublets ----------------------------------------------------------------------------------------------------------
def library_sizes(screen: Screen) -> Iterator[Finding]:
    """Libraries as droplets with two cells have them, twice those of controls or of two sizes; and what they shift."""
    sizes = screen.source[1]
    if sizes is None:
        sizes = next((totals for _, totals in _totals(screen)), None)
    if sizes is None:
        raise NotChecked("log-normalized values have no library sizes, and no column of obs has the total counts")
    logs = np.log(np.maximum(sizes, 1e-9))
    if screen.batch is not None:
        logs = _within_batches(logs, screen.codes, screen.batch)
    groups = {label: logs[screen.rows(label)] for label in screen.labels}
    control = float(np.median(groups[screen.control]))
    ratio = {label: np.exp(np.median(x) - control) for label, x in groups.items() if len(x) >= _FEWEST}
    twice = {label: value for label, value in ratio.items() if value >= _TWICE}
    if twice:
        yield warning(
            f"{counted(len(twice), 'perturbation')} with about twice the counts of a control cell, or more",
            "That is what droplets with two cells look like: the cells of two perturbations taken for one, or for a "
            "combination. A perturbation that makes cells grow does it, too.",
            "Remove doublets (scanpy.pp.scrublet) before the setup, or compare the numbers of genes that cells "
            "express.",
            tuple(twice),
            tuple(f"{label} ({value:.1f} times)" for label, value in twice.items()),
        )
    mixed = {label: found for label, x in groups.items() if (found := _second_mode(x)) is not None}
    if mixed:
        yield Finding(
            WARNING if len(mixed) > len(groups) / 4 or screen.control in mixed else NOTE,
            f"{counted(len(mixed), 'group')} of cells with libraries of two sizes",
            "Cells of two kinds are under one label: droplets with two cells beside such with one, lanes that were "
            "sequenced to different depths, or damaged cells.",
            "Remove doublets and damaged cells, or name the lanes: setup_anndata(batch_key=...).",
            tuple(mixed),
            tuple(f"{label} ({share:.0%} are {times:.1f} times larger)" for label, (share, times) in mixed.items()),
        )
    named = {screen.control, *twice, *mixed}
    yield from shifted_by_depth(screen, {label: value for label, value in ratio.items() if label not in named})


def _within_batches(logs: np.ndarray, codes: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Log sizes less the median of the batch's control cells, or of all of its cells where it has none."""
    found = logs.copy()
    for value in np.unique(batch):
        here = batch == value
        controls = here & (codes == 0)
        found[here] -= np.median(logs[controls if controls.any() else here])
    return found


def _second_mode(logs: np.ndarray) -> tuple[float, float] | None:
    """Share of the cells in the upper of two modes, and ratio of both; None where one is enough."""
    if len(logs) < _FEWEST_FOR_MODES:
        return None
    x = np.sort(logs)[:: -(-len(logs) // _MOST_FOR_MODES)]
    sd = x.std()
    if sd < _APART * np.sqrt(_LEAST_MODE * (1 - _LEAST_MODE)):  # too narrow to have two
        return None
    ends = np.quantile(x, [0.25, 0.75])[:, None]
    two = GaussianMixture(2, covariance_type="tied", means_init=ends, random_state=0, max_iter=300).fit(x[:, None])
    low, high = np.argsort(two.means_.ravel())
    apart, share = float(two.means_[high, 0] - two.means_[low, 0]), float(two.weights_[high])
    one = len(x) * (np.log(2 * np.pi * sd**2) + 1) + 2 * np.log(len(x))  # its information criterion
    clear = apart > max(_APART, _CLEAR_OF * float(np.sqrt(two.covariances_[0, 0])))
    if clear and _LEAST_MODE <= share <= 1 - _LEAST_MODE and one - two.bic(x[:, None]) > _LIKELIER:
        return share, float(np.exp(apart))
    return None


# -- batches -----------------------------------------------------------------------------------------------------------
def batches(screen: Screen) -> Iterator[Finding]:
    """Batches that were not named, without control cells, or that hold whole perturbations."""
    key, obs = screen.setup.get("batch_key"), screen.adata.obs
    if key is None:
        likely = [str(x) for x in obs.columns if _BATCHES.fullmatch(str(x)) and 1 < obs[x].nunique() <= _MOST_BATCHES]
        if likely:
            apart = sorted({label for column in likely for label in _apart(screen, obs[column].astype(str).to_numpy())})
            yield Finding(
                WARNING if apart else NOTE,
                "Batches were not taken into account",
                "If cells were prepared or sequenced in several batches, the difference between these is part of every "
                "effect"
                + (f", and of {counted(len(apart), 'perturbation')} it cannot be told from it." if apart else "."),
                f"Columns that may name batches: {', '.join(likely)}. Set the data up with batch_key=... (--batch-key),"
                " so that cells are compared with the control cells of their own batch.",
                tuple(apart or likely),
                named=tuple(apart),
            )
        return
    names = obs[key].astype(str).to_numpy()
    n_control = pd.Series(names[screen.codes == 0]).value_counts().reindex(np.unique(names), fill_value=0)
    without = list(n_control.index[n_control == 0])
    if without:
        yield warning(
            f"{counted(len(without), 'batch', 'batches')} without control cells",
            "Their cells are compared with all control cells, so that the difference between batches is part of the "
            "effect.",
            "Leave these batches out, or merge them with others that were handled alike.",
            tuple(without),
        )
    apart = _apart(screen, names)
    if apart:
        yield warning(
            f"{counted(len(apart), 'perturbation')} that cannot be told from the batch",
            "Most of their cells are in batches without control cells: what the perturbation does and what the batch "
            "does are one.",
            "Do not read these effects; measure controls in the same batch.",
            tuple(apart),
        )
    few = n_control[(n_control > 0) & (n_control < _FEW_IN_BATCH)]
    if len(few):
        yield note(
            f"{counted(len(few), 'batch', 'batches')} with fewer than {_FEW_IN_BATCH} control cells",
            "Cells are compared with the control cells of their own batch, and these are few: effects of perturbations "
            "in it are uncertain.",
            "Merge small batches that were handled alike.",
            tuple(few.index),
            tuple(f"{name} ({n})" for name, n in few.items()),
        )


def _apart(screen: Screen, names: np.ndarray) -> list[str]:
    """Perturbations of which most cells are in batches without control cells."""
    alone = ~np.isin(names, np.unique(names[screen.codes == 0]))
    share = np.bincount(screen.codes, alone, len(screen.labels)) / np.maximum(screen.n_cells.to_numpy(), 1)
    return [label for label, value in zip(screen.labels, share, strict=True) if value > 0.5]
