"""How good the predictions are: measured on cells, and on combinations, that a second fit has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raptorgraph._progress import progress_bar
from raptorgraph.baselines import ladder
from raptorgraph.evaluation._held_out_scores import MODEL, Collected, HeldOut, summarize
from raptorgraph.evaluation._methods import RaptorGraphMethod
from raptorgraph.screen._stored import copy_of_cells

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import anndata as ad
    import pandas as pd

    from raptorgraph.screen import Screen

FEWEST_CELLS = 4  # of a condition: two in each half, so that each half has a mean and a variance
_N_FOLDS = 4
# What can answer a single that was measured: not the ladder's ways of adding two effects up.
_FOR_SINGLES = ("no change", "mean single", "additive", "shrunken additive", "low-rank additive")
_FOR_SEEN = ("no change",)


def held_out(
    screen: Screen,
    *,
    preset: str = "default",
    seed: int = 0,
    max_epochs: int | None = None,
    singles_only: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> HeldOut:
    """Fit again on one half of the cells and without some of the combinations, and compare with the other half.

    The cells of every condition, control included, are divided into two halves at random. Fits see the first halves
    alone; what they predict is compared with the effects measured on the second halves, whose control cells are others
    too, so that no error of measurement is shared. Combinations whose genes were all perturbed alone are divided into
    four parts; each is predicted by a fit that has seen none of its cells.

    In the default preset, predicted effects do not depend on the network, which is trained for one epoch in each fit,
    to save time. A preset whose effects come from the network is trained once, without one of the four parts.

    Parameters
    ----------
    screen
        All cells, and how they were set up.
    preset, max_epochs
        Preset of the model and, where its effects come from the network, number of epochs.
    seed
        Seed of the halves, the parts and the fits.
    singles_only
        Whether to train without combinations: all of them are then predicted by one fit.
    say
        Called with a line before each fit.

    Returns
    -------
    HeldOut
        Without scores, and with a reason, where the control or all conditions have too few cells.

    Examples
    --------
    >>> screen = rg.screen.Screen(adata, {"library_size_key": "total_counts"})
    >>> held = rg.evaluation.held_out(screen, singles_only=True)
    >>> scores = held.scores["unseen combinations"]
    >>> scores.labels == screen.combinations, scores.verdict in ("better", "worse", "level")
    (True, True)
    >>> scores.table["method"].tolist()[:3]
    ['raptorgraph', 'no change', 'mean single']
    """
    usable = [label for label in screen.conditions if screen.n_cells[label] >= FEWEST_CELLS]
    left_out = [label for label in screen.conditions if label not in usable]
    if screen.n_cells[screen.control] < FEWEST_CELLS or not usable:
        reason = f"the control and at least one perturbation need {FEWEST_CELLS} cells or more to be divided in two"
        return HeldOut(left_out=left_out, reason=reason)
    first, second = screen.halves(seed)
    by_posterior = preset == "default"
    testable = _testable(screen, usable)
    folds = _folds(testable, seed, singles_only)
    n_fits = len(folds) if by_posterior else 1
    found = Collected()
    for k, fold in enumerate(folds[:n_fits]):
        train = [x for x in usable if x not in fold and not (singles_only and len(screen.genes_of[x]) > 1)]
        if not train:
            return HeldOut(left_out=left_out, reason="without its combinations the screen has nothing to learn from")
        say(f"Measuring the predictions on cells that were held out, fit {k + 1} of {n_fits}.")
        rows = first[np.isin(screen.codes[first], [0, *map(screen.labels.index, train)])]
        with progress_bar("Fitting and predicting"):
            _fit(found, screen, rows, train, list(fold), preset, seed, 1 if by_posterior else max_epochs)
    return summarize(found, screen, first, second, seed, left_out, n_fits, len(folds))


def _testable(screen: Screen, usable: Sequence[str]) -> list[str]:
    """Combinations all of whose genes were perturbed alone, in enough cells."""
    alone = {screen.genes_of[label][0] for label in usable if len(screen.genes_of[label]) == 1}
    return [x for x in usable if len(screen.genes_of[x]) > 1 and alone.issuperset(screen.genes_of[x])]


def _folds(testable: Sequence[str], seed: int, singles_only: bool) -> list[list[str]]:
    if singles_only or not testable:
        return [list(testable)]
    shuffled = [testable[i] for i in np.random.default_rng([seed, 2]).permutation(len(testable))]
    n_folds = min(_N_FOLDS, len(shuffled))
    return [shuffled[k::n_folds] for k in range(n_folds)]


def _fit(
    found: Collected,
    screen: Screen,
    rows: np.ndarray,
    train: Sequence[str],
    test: Sequence[str],
    preset: str,
    seed: int,
    max_epochs: int | None,
) -> None:
    """Fit the model and the baselines to these cells, and collect what they predict."""
    cells, genes = copy_of_cells(screen.adata, rows), screen.var_names
    done = {label for frame in found.seen.get(MODEL, []) for label in frame.index}
    seen = [label for label in train if label not in done]
    method = RaptorGraphMethod(preset, seed=seed, max_epochs=max_epochs, **screen.setup.without_guides()).fit(cells)
    for labels, effects, sds in ((test, found.unseen, found.sd_unseen), (seen, found.seen, found.sd_seen)):
        if labels:
            mean, sd = _predicted(method, labels)
            effects[MODEL].append(mean[genes])
            if sd is not None:
                sds.append(sd[genes])
    for label in test:
        if len(screen.genes_of[label]) == 2:
            asked = [*map(screen.single, screen.genes_of[label]), label]
            found.pairs[label] = method.predict_effects(asked)[genes].to_numpy()
    _fit_baselines(found, screen, cells, train, test, seen)


def _predicted(method: RaptorGraphMethod, labels: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    if method.preset != "default":
        return method.predict_effects(labels), None
    mean, sd = method.model.predict_effects(list(labels), return_sd=True)
    return mean.astype(np.float64), sd.astype(np.float64)


def _fit_baselines(
    found: Collected, screen: Screen, cells: ad.AnnData, train: Sequence[str], test: Sequence[str], seen: Sequence[str]
) -> None:
    with_doubles = bool(_testable(screen, train))
    singles = [label for label in seen if len(screen.genes_of[label]) == 1]
    combined = [label for label in seen if len(screen.genes_of[label]) > 1]
    any_single = any(len(screen.genes_of[label]) == 1 for label in train)
    for name, cls in ladder().items():
        again = (singles if name in _FOR_SINGLES else []) + (combined if name in _FOR_SEEN else [])
        can_learn = (with_doubles or not cls.needs_doubles) and (any_single or name == "no change")
        if not can_learn or not (test or again):
            continue
        try:
            fitted = cls(**screen.setup.without_guides()).fit(cells)
        except ValueError as error:  # such as combinations that do not vary
            found.failed[name] = str(error)
            continue
        for labels, effects in ((test, found.unseen), (again, found.seen)):
            if labels:
                effects[name].append(fitted.predict_effects(labels))
