"""Splits of a screen by condition: what is fitted, what is tuned on, what is reported."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from raptorgraph._docs import docs
from raptorgraph.screen._asked import did_you_mean
from raptorgraph.screen._labels import format_perturbation, parse_perturbation
from raptorgraph.screen._screen import Screen
from raptorgraph.screen._setup import Setup

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anndata import AnnData

    Sets = Sequence[tuple[str, ...]]
    Groups = Sequence[str] | None


@dataclass(frozen=True)
class Split:
    """Conditions of one split, canonical labels; control cells belong to every training set.

    Attributes
    ----------
    name
        What tells this split from others of its kind.
    train
        Fitted while tuning.
    validation
        What settings are tuned on.
    test
        What is reported; never seen before.
    refit
        What the reported model is fitted on: `train`, plus `validation` where the regime trains on combinations.
    groups
        Group of each test condition, under which it is reported.
    left_out
        Combinations that are not tested, since a gene of theirs was not perturbed alone; in none of the other sets,
        but for the training sets of :func:`doubles_folds`.

    Examples
    --------
    >>> split = rg.evaluation.paper_split(["A", "B", "A+B", "A+X"])
    >>> split.train, split.test
    (('A', 'B'), ('A+B',))
    >>> split.left_out  # X was never perturbed alone
    ('A+X',)
    """

    name: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    refit: tuple[str, ...]
    groups: Mapping[str, str] = field(hash=False)
    left_out: tuple[str, ...] = ()


@docs.dedent
def singles_only(
    conditions: Iterable[str],
    *,
    validation_share: float = 0.2,
    seed: int = 0,
    control: str | Sequence[str] = "control",
    delimiter: str = "+",
) -> Split:
    """Train on all singles, tune on some combinations, test on the others.

    The reported model is fitted on the singles alone. Combinations with a gene that was not perturbed alone are left
    out.

    Parameters
    ----------
    conditions
        Labels of the screen, in any order and spelling; the control may be among them.
    validation_share
        Part of the combinations to tune on.
    seed
        Seed of the draws.
    %(control)s
    %(delimiter)s

    Returns
    -------
    The split; all test conditions are in group ``"doubles"``.

    Raises
    ------
    ValueError
        If there are no singles, a share is not at least 0 and below 1, or no combination is left to test.

    Examples
    --------
    >>> conditions = ["control", "A", "B", "C", "D", "A+B", "A+C", "B+C", "A+D", "B+D"]
    >>> split = rg.evaluation.singles_only(conditions, validation_share=0.4)
    >>> split.refit  # what the reported model is fitted on
    ('A', 'B', 'C', 'D')
    >>> len(split.validation), len(split.test)
    (2, 3)
    """
    screen = _Conditions(conditions, control, delimiter)
    shuffled = screen.shuffled(screen.testable, seed)
    n_validation = _part(validation_share, len(shuffled), "validation_share")
    validation, test = shuffled[:n_validation], shuffled[n_validation:]
    return screen.split("singles only", screen.singles, validation, test)


@docs.dedent
def doubles_folds(
    conditions: Iterable[str],
    *,
    n_folds: int = 5,
    validation_share: float = 0.25,
    seed: int = 0,
    control: str | Sequence[str] = "control",
    delimiter: str = "+",
) -> list[Split]:
    """Cross-validate over combinations: train on all singles and the combinations of the other folds.

    Nested: settings are tuned on a part of each fold's training combinations, and the reported model is fitted on all
    of them. Every combination whose genes were all perturbed alone is tested once; those with a gene that was not are
    trained on in every fold.

    Parameters
    ----------
    conditions
        Labels of the screen, in any order and spelling; the control may be among them.
    n_folds
        Number of folds.
    validation_share
        Part of the other folds' combinations to tune on.
    seed
        Seed of the draws.
    %(control)s
    %(delimiter)s

    Returns
    -------
    One split for each fold; all test conditions are in group ``"doubles"``.

    Raises
    ------
    ValueError
        If there are no singles, a share is not at least 0 and below 1, or `n_folds` is below 2 or above the number of
        combinations to test.

    Examples
    --------
    >>> conditions = ["control", "A", "B", "C", "D", "A+B", "A+C", "B+C", "A+D", "B+D"]
    >>> folds = rg.evaluation.doubles_folds(conditions, n_folds=5)
    >>> sorted(label for fold in folds for label in fold.test)  # each once
    ['A+B', 'A+C', 'A+D', 'B+C', 'B+D']
    >>> set(folds[0].test) & set(folds[0].refit)
    set()
    """
    screen = _Conditions(conditions, control, delimiter)
    if not 2 <= n_folds <= len(screen.testable):
        raise ValueError(
            f"n_folds={n_folds} must be from 2 to {len(screen.testable)}, the number of combinations whose genes were "
            "all perturbed alone."
        )
    shuffled = screen.shuffled(screen.testable, seed)
    folds = []
    for k in range(n_folds):
        test = shuffled[k::n_folds]
        rest = [genes for genes in shuffled if genes not in test]
        n_validation = _part(validation_share, len(rest), "validation_share")
        # Each fold draws its own, lest neighbouring folds tune on the same combinations.
        rest = screen.shuffled(rest, (seed, k))
        validation, trained = rest[:n_validation], rest[n_validation:]
        train = [*screen.singles, *trained, *screen.untestable]
        folds.append(screen.split(f"fold {k + 1} of {n_folds}", train, validation, test, refit=[*train, *validation]))
    return folds


@docs.dedent
def paper_split(conditions: Iterable[str], *, control: str | Sequence[str] = "control", delimiter: str = "+") -> Split:
    """Split as in the RAPTORGraph paper (section E.5): train on all singles, test on all combinations.

    The paper has no validation part, so `validation` is empty: whatever is tuned on the results was tuned on the test
    set. Combinations with a gene that was not perturbed alone are left out.

    Parameters
    ----------
    conditions
        Labels of the screen, in any order and spelling; the control may be among them.
    %(control)s
    %(delimiter)s

    Returns
    -------
    The split; all test conditions are in group ``"doubles"``.

    Raises
    ------
    ValueError
        If there are no singles, or no combination to test.

    Examples
    --------
    >>> conditions = ["control", "A", "B", "C", "D", "A+B", "A+C", "B+C", "A+D", "B+D"]
    >>> split = rg.evaluation.paper_split(conditions)
    >>> split.test
    ('A+B', 'A+C', 'A+D', 'B+C', 'B+D')
    """
    screen = _Conditions(conditions, control, delimiter)
    return screen.split("paper", screen.singles, [], screen.testable)


@docs.dedent
def seen_singles(
    conditions: Iterable[str],
    *,
    holdout_share: float = 0.2,
    validation_share: float = 0.25,
    seed: int = 0,
    control: str | Sequence[str] = "control",
    delimiter: str = "+",
) -> Split:
    """Hold out genes: their singles and every combination that contains one of them, as GEARS does.

    Combinations are tested in groups by how many of their genes are in the training data; of those with all genes in
    it, a part is tuned on, as many are tested, and the rest is trained on. The reported model is fitted on `train`
    and `validation`. For methods that need not have seen a gene; others can answer the combinations of seen genes.

    Parameters
    ----------
    conditions
        Labels of the screen, in any order and spelling; the control may be among them.
    holdout_share
        Part of the genes perturbed alone that is held out, at least one.
    validation_share
        Part of the combinations of seen genes to tune on, and as many to test.
    seed
        Seed of the draws.
    %(control)s
    %(delimiter)s

    Returns
    -------
    The split, with test groups ``"unseen single"``, and ``"seen 0"``, ``"seen 1"``, ``"seen 2"`` and so on, after the
    number of a combination's genes that are not held out; a combination of three of which two are seen is in
    ``"seen 2"`` too. Combinations with a gene that was never perturbed alone are left out.

    Raises
    ------
    ValueError
        If there are fewer than two singles, `holdout_share` is not above 0 and below 1, or `validation_share` is not
        at least 0 and at most 0.5.

    References
    ----------
    Roohani, Huang & Leskovec (2024), Nature Biotechnology 42, 927-935.

    Examples
    --------
    >>> conditions = ["control", "A", "B", "C", "D", "A+B", "A+C", "B+C", "A+D", "B+D"]
    >>> split = rg.evaluation.seen_singles(conditions, holdout_share=0.25)
    >>> sorted(set(split.groups.values()))
    ['seen 1', 'seen 2', 'unseen single']
    >>> held = [label for label, group in split.groups.items() if group == "unseen single"]
    >>> len(held)
    1
    """
    screen = _Conditions(conditions, control, delimiter)
    if not 0 < holdout_share < 1:
        raise ValueError(f"holdout_share={holdout_share!r} must be above 0 and below 1.")
    if not 0 <= validation_share <= 0.5:
        raise ValueError(f"validation_share={validation_share!r} must be from 0 to 0.5: as many are tested.")
    if len(screen.singles) < 2:
        raise ValueError(f"To hold out genes there must be two singles or more, found {len(screen.singles)}.")
    order = screen.shuffled(screen.singles, seed)
    held = set(chain.from_iterable(order[: max(1, min(len(order) - 1, round(holdout_share * len(order))))]))
    seen = screen.shuffled([genes for genes in screen.testable if held.isdisjoint(genes)], (seed, 1))
    n = round(validation_share * len(seen))
    validation, seen_test, trained = seen[:n], seen[n : 2 * n], seen[2 * n :]
    train = [*(genes for genes in screen.singles if held.isdisjoint(genes)), *trained]
    test = [*(genes for genes in (*screen.singles, *screen.testable) if not held.isdisjoint(genes)), *seen_test]
    groups = [f"seen {len(set(genes) - held)}" if len(genes) > 1 else "unseen single" for genes in test]
    return screen.split(
        "seen singles",
        train,
        validation,
        test,
        refit=[*train, *validation],
        groups=groups,
    )


@docs.dedent
def split_cells(
    adata: AnnData,
    conditions: Iterable[str],
    perturbation_key: str = "perturbation",
    *,
    control: str | Sequence[str] = "control",
    delimiter: str = "+",
) -> AnnData:
    """Copy the control cells and the cells of the given conditions.

    Parameters
    ----------
    adata
        Cells x genes, with a perturbation label for each cell.
    conditions
        Labels, such as ``split.refit``, in any spelling, or tuples or sets of genes.
    perturbation_key
        Column of ``adata.obs`` with the labels.
    %(control)s
    %(delimiter)s

    Returns
    -------
    A copy of those cells, in their order.

    Raises
    ------
    KeyError
        If the column is not there.
    ValueError
        If no cell is a control cell, or a condition has no cells.

    Examples
    --------
    >>> split = rg.evaluation.singles_only(adata.obs["perturbation"].unique())
    >>> train = rg.evaluation.split_cells(adata, split.refit)
    >>> sorted(train.obs["perturbation"].unique())
    ['P01', 'P02', 'P03', 'P04', 'P05', 'P06', 'control']
    """
    if isinstance(conditions, str):
        raise TypeError(f"conditions must be a list of labels, not the string {conditions!r}.")
    setup = Setup(perturbation_key, control, delimiter)
    screen, wanted = Screen(adata, setup), []
    for label in conditions:
        genes = setup.genes(label)
        if setup.label(genes) not in screen.genes_of:
            hint = did_you_mean(delimiter.join(genes), screen.parsed.genes, **setup.spelling)
            raise ValueError(f"No cell in obs[{perturbation_key!r}] has the condition {label!r}{hint or '.'}")
        wanted.append(setup.label(genes))
    return screen.cells(wanted)


class _Conditions:
    """Conditions of a screen as sorted gene sets: singles, combinations to test, and those that cannot be tested."""

    def __init__(self, conditions: Iterable[str], control: str | Sequence[str], delimiter: str):
        if isinstance(conditions, str):
            raise TypeError(f"conditions must be a list of labels, not the string {conditions!r}.")
        self._spelling: dict[str, Any] = {"control": control, "delimiter": delimiter}
        parsed = sorted({parse_perturbation(label, **self._spelling) for label in conditions} - {()})
        self.singles = [genes for genes in parsed if len(genes) == 1]
        if not self.singles:
            raise ValueError("No condition is a single perturbation: there is nothing to predict combinations from.")
        alone = set(chain.from_iterable(self.singles))
        combinations = [genes for genes in parsed if len(genes) > 1]
        self.testable = [genes for genes in combinations if alone.issuperset(genes)]
        self.untestable = [genes for genes in combinations if not alone.issuperset(genes)]

    @staticmethod
    def shuffled(items: Sequence[tuple[str, ...]], seed: int | tuple[int, int]) -> list[tuple[str, ...]]:
        return [items[i] for i in np.random.default_rng(seed).permutation(len(items))]

    def split(
        self, name: str, train: Sets, validation: Sets, test: Sets, *, refit: Sets | None = None, groups: Groups = None
    ) -> Split:
        """Split with sorted canonical labels; ValueError if there is nothing to test."""
        if not test:
            raise ValueError(
                f"No combination is left to test: {len(self.testable)} of the {len(self.testable + self.untestable)} "
                "combinations have all of their genes perturbed alone."
            )
        groups = ["doubles"] * len(test) if groups is None else groups
        labeled = sorted(zip(self._labels(test), groups, strict=True))
        return Split(
            name=name,
            train=tuple(sorted(self._labels(train))),
            validation=tuple(sorted(self._labels(validation))),
            test=tuple(label for label, _ in labeled),
            refit=tuple(sorted(self._labels(train if refit is None else refit))),
            groups=dict(labeled),
            left_out=tuple(sorted(self._labels(self.untestable))),
        )

    def _labels(self, sets: Iterable[tuple[str, ...]]) -> list[str]:
        return [format_perturbation(genes, **self._spelling) for genes in sets]


def _part(share: float, total: int, name: str) -> int:
    """Number that a share of the total makes: at least one where the share is positive."""
    if not 0 <= share < 1:
        raise ValueError(f"{name}={share!r} must be at least 0 and below 1.")
    return max(1, round(share * total)) if share and total else 0
