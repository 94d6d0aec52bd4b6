"""How good the predictions are: measured on cells, and on combinations, that a second fit has not seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import ndtri
from scipy.stats import spearmanr

from raptorgraph import metrics
from raptorgraph._progress import progress_bar
from raptorgraph.baselines import ladder
from raptorgraph.evaluation._methods import RaptorGraphMethod
from raptorgraph.evaluation._scores import TYPES, interaction_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from raptorgraph.screen import Screen

MODEL, HALF, PERFECT = "raptorgraph", "other half of the cells", "perfect prediction"
UNSEEN, SINGLES, SEEN = "unseen combinations", "singles", "seen combinations"
FEWEST_CELLS = 4  # of a condition: two in each half, so that each half has a mean and a variance
_N_FOLDS = 4
_N_BOOTSTRAP = 500
_LEVEL = 0.9
_FEWEST_PAIRS = 8  # from which a rank correlation says something
# What can answer a single that was measured: not the ladder's ways of adding two effects up.
_FOR_SINGLES = ("no change", "mean single", "additive", "shrunken additive", "low-rank additive")
_FOR_SEEN = ("no change",)


@dataclass(frozen=True)
class Scores:
    """Scores of all methods on one set of conditions.

    Attributes
    ----------
    labels
        The conditions.
    table
        One row a method: ``method``, ``relative_mse``, ``relative_mse_se``, ``pearson``, ``pearson_se``,
        ``discrimination``; the model first, then baselines, then what is no method (`HALF`, `PERFECT`).
    best
        The baseline with the smallest error.
    difference, difference_se
        Relative error of the model minus that of `best`, and its standard error over conditions.
    coverage
        Share of the measured values within the model's 90 % intervals (widened by the error of the measurement), or
        None for a model without intervals.
    """

    labels: list[str]
    table: pd.DataFrame
    best: str
    difference: float
    difference_se: float
    coverage: float | None

    @property
    def verdict(self) -> str:
        """``"better"``, ``"worse"`` or ``"level"``: model against the best baseline, at two standard errors."""
        if not abs(self.difference) > 2 * self.difference_se:
            return "level"
        return "better" if self.difference < 0 else "worse"

    def value(self, method: str, column: str) -> float:
        """One score."""
        return float(self.table.set_index("method").at[method, column])


@dataclass(frozen=True)
class HeldOut:
    """What the second fits say.

    Attributes
    ----------
    scores
        For `UNSEEN`, `SINGLES` and `SEEN`, as far as the screen has such conditions.
    conditions
        Index: condition; ``unseen``, ``seen``, ``half``: Pearson correlation of predicted effect (without and with the
        condition in the fit) and of the effect in the other half of the cells, with the measured effect.
    ranks
        For each type of interaction: rank correlation of the score over pairs that were left out, of the model, of the
        other half of the cells, and ``n_pairs``; None for too few pairs.
    predicted, measured
        Effects of the unseen combinations, or of the singles where there are none; conditions x genes.
    shown
        Which set these are of.
    n_fits, n_folds
        Fits that were made, and parts that the combinations were divided into.
    left_out
        Conditions with too few cells to be divided.
    failed
        Baselines that could not be fitted, and why.
    reason
        Why nothing could be measured, where nothing could.
    """

    scores: dict[str, Scores] = field(default_factory=dict)
    conditions: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["unseen", "seen", "half"]))
    ranks: pd.DataFrame | None = None
    predicted: pd.DataFrame | None = None
    measured: pd.DataFrame | None = None
    shown: str = ""
    n_fits: int = 0
    n_folds: int = 0
    left_out: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    reason: str = ""

    @property
    def chance(self) -> float:
        """Two standard errors of a rank correlation without a relation."""
        return np.nan if self.ranks is None else 2 / np.sqrt(self.ranks["n_pairs"].iloc[0] - 1)


@dataclass
class _Collected:
    """Effects by method: of conditions that a fit had not seen, and of conditions that it had."""

    unseen: dict[str, list[pd.DataFrame]] = field(default_factory=dict)
    seen: dict[str, list[pd.DataFrame]] = field(default_factory=dict)
    sd_unseen: list[pd.DataFrame] = field(default_factory=list)
    sd_seen: list[pd.DataFrame] = field(default_factory=list)
    pairs: dict[str, np.ndarray] = field(default_factory=dict)  # effects of a, b and ab: 3 x genes
    failed: dict[str, str] = field(default_factory=dict)


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

    In the default preset, predicted effects do not depend on the network, which is trained for one epoch in each fit;
    so four fits take about as long as one full training. A preset whose effects come from the network is trained once,
    without one of the four parts.

    Parameters
    ----------
    screen
        All cells, and how they were set up.
    preset, max_epochs
        Of the reported model.
    seed
        Of the halves, the parts and the fits.
    singles_only
        Whether the reported model was trained without combinations: all of them are then predicted by one fit.
    say
        Called with a line before each fit.

    Returns
    -------
    HeldOut
        Without scores, and with a reason, where the control or all conditions have too few cells.
    """
    sizes = dict(zip(screen.labels, np.bincount(screen.codes, minlength=len(screen.labels)), strict=True))
    usable = [label for label in screen.conditions if sizes[label] >= FEWEST_CELLS]
    left_out = [label for label in screen.conditions if sizes[label] < FEWEST_CELLS]
    if sizes[screen.control] < FEWEST_CELLS or not usable:
        reason = f"the control and at least one perturbation need {FEWEST_CELLS} cells or more to be divided in two"
        return HeldOut(left_out=left_out, reason=reason)
    first, second = screen.halves(seed)
    by_posterior = preset == "default"
    testable = _testable(screen, usable)
    folds = _folds(testable, seed, singles_only)
    n_fits = len(folds) if by_posterior else 1
    found = _Collected()
    for k, fold in enumerate(folds[:n_fits]):
        train = [x for x in usable if x not in fold and not (singles_only and len(screen.genes_of[x]) > 1)]
        if not train:
            return HeldOut(left_out=left_out, reason="without its combinations the screen has nothing to learn from")
        say(f"Measuring the predictions on cells that were held out, fit {k + 1} of {n_fits}.")
        rows = first[np.isin(screen.codes[first], [0, *map(screen.labels.index, train)])]
        with progress_bar("Fitting and predicting"):
            _fit(found, screen, rows, train, list(fold), preset, seed, 1 if by_posterior else max_epochs)
    return _summarize(found, screen, first, second, seed, left_out, n_fits, len(folds))


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
    found: _Collected,
    screen: Screen,
    rows: np.ndarray,
    train: Sequence[str],
    test: Sequence[str],
    preset: str,
    seed: int,
    max_epochs: int | None,
) -> None:
    """Fit the model and the baselines to these cells, and collect what they predict."""
    cells, genes = screen.adata[rows].copy(), screen.adata.var_names
    done = {label for frame in found.seen.get(MODEL, []) for label in frame.index}
    seen = [label for label in train if label not in done]
    # pairing of cells has no part in the effects of the default, and takes time
    kwargs = {"pairing": "random"} if preset == "default" else {}
    method = RaptorGraphMethod(preset, seed=seed, max_epochs=max_epochs, model_kwargs=kwargs, **screen.setup).fit(cells)
    for labels, effects, sds in ((test, found.unseen, found.sd_unseen), (seen, found.seen, found.sd_seen)):
        if labels:
            mean, sd = _predicted(method, labels)
            effects.setdefault(MODEL, []).append(mean[genes])
            if sd is not None:
                sds.append(sd[genes])
    for label in test:
        if len(screen.genes_of[label]) == 2:
            asked = [*map(screen.single, screen.genes_of[label]), label]
            found.pairs[label] = method.predict_effects(asked)[genes].to_numpy()
    for name, effects in _baselines(found, screen, cells, train, test, seen):
        for part, frame in effects.items():
            getattr(found, part).setdefault(name, []).append(frame)


def _predicted(method: RaptorGraphMethod, labels: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    if method.preset != "default":
        return method.predict_effects(labels), None
    mean, sd = method.model.predict_effects(list(labels), return_sd=True)
    return mean.astype(np.float64), sd.astype(np.float64)


def _baselines(
    found: _Collected, screen: Screen, cells, train: Sequence[str], test: Sequence[str], seen: Sequence[str]
) -> Iterator[tuple[str, dict[str, pd.DataFrame]]]:
    with_doubles = bool(_testable(screen, train))
    singles = [label for label in seen if len(screen.genes_of[label]) == 1]
    combined = [label for label in seen if len(screen.genes_of[label]) > 1]
    any_single = any(len(screen.genes_of[label]) == 1 for label in train)
    for name, cls in ladder().items():
        if (cls.needs_doubles and not with_doubles) or (not any_single and name != "no change"):
            continue
        asked = {
            "unseen": list(test),
            "seen": (singles if name in _FOR_SINGLES else []) + (combined if name in _FOR_SEEN else []),
        }
        if not any(asked.values()):
            continue
        try:
            fitted = cls(**screen.setup).fit(cells)
        except ValueError as error:  # such as combinations that do not vary
            found.failed[name] = str(error)
            continue
        yield name, {part: fitted.predict_effects(labels) for part, labels in asked.items() if labels}


def _summarize(
    found: _Collected,
    screen: Screen,
    first: np.ndarray,
    second: np.ndarray,
    seed: int,
    left_out: list[str],
    n_fits: int,
    n_folds: int,
) -> HeldOut:
    moments, genes = screen.moments_of(second), screen.adata.var_names
    measured = pd.DataFrame(moments.effect, index=screen.labels, columns=genes)
    variance = pd.DataFrame(moments.variance, index=screen.labels, columns=genes)
    half = screen.effects_of(first)
    unseen = {name: pd.concat(parts) for name, parts in found.unseen.items() if name not in found.failed}
    seen = {name: pd.concat(parts) for name, parts in found.seen.items() if name not in found.failed}
    sets = {
        UNSEEN: (unseen, found.sd_unseen, list(unseen[MODEL].index) if unseen else []),
        SINGLES: (seen, found.sd_seen, [x for x in seen[MODEL].index if len(screen.genes_of[x]) == 1]),
        SEEN: (seen, found.sd_seen, [x for x in seen[MODEL].index if len(screen.genes_of[x]) > 1]),
    }
    scores = {}
    for name, (predictions, sds, labels) in sets.items():
        if labels:
            # of a measured single the sum of single effects is the other half of the cells itself
            known = {
                method: frame.loc[labels]
                for method, frame in predictions.items()
                if frame.index.isin(labels).sum() == len(labels) and (name == UNSEEN or method != "additive")
            }
            sd = pd.concat(sds).loc[labels] if sds else None
            scores[name] = _scores(known, half.loc[labels], measured.loc[labels], variance.loc[labels], sd, seed)
    shown = UNSEEN if UNSEEN in scores else SINGLES if SINGLES in scores else SEEN
    labels = scores[shown].labels
    return HeldOut(
        scores=scores,
        conditions=_by_condition(unseen, seen, half, measured),
        ranks=_ranks(found.pairs, screen, half, measured),
        predicted=(unseen if shown == UNSEEN else seen)[MODEL].loc[labels],
        measured=measured.loc[labels],
        shown=shown,
        n_fits=n_fits,
        n_folds=n_folds,
        left_out=left_out,
        failed=found.failed,
    )


def _scores(
    predictions: Mapping[str, pd.DataFrame],
    half: pd.DataFrame,
    measured: pd.DataFrame,
    variance: pd.DataFrame,
    sd: pd.DataFrame | None,
    seed: int,
) -> Scores:
    truth = measured.to_numpy()
    order = [MODEL, *(name for name in ladder() if name in predictions)]
    arrays = {name: predictions[name].to_numpy() for name in order} | {HALF: half.to_numpy()}
    size = (truth**2).sum(axis=1)
    draws = np.random.default_rng([seed, 3]).integers(len(truth), size=(_N_BOOTSTRAP, len(truth)))

    def relative(errors: np.ndarray) -> tuple[float, np.ndarray]:
        """Pooled over conditions, and the same for each resample of the conditions."""
        return errors.sum() / size.sum(), errors[draws].sum(axis=1) / size[draws].sum(axis=1)

    rows, resampled = [], {}
    for name, values in arrays.items():
        error, resampled[name] = relative(((values - truth) ** 2).sum(axis=1))
        pearson = metrics.pearson_delta(values, truth, per_row=True)
        defined = pearson[~np.isnan(pearson)]
        many = len(truth) > 1
        rows.append(
            {
                "method": name,
                "relative_mse": error,
                "relative_mse_se": resampled[name].std() if many else np.nan,
                "pearson": defined.mean() if len(defined) else np.nan,
                "pearson_se": defined.std(ddof=1) / np.sqrt(len(defined)) if len(defined) > 1 else np.nan,
                "discrimination": metrics.centroid_accuracy(values, truth, "cosine") if many else np.nan,
            }
        )
    noise, _ = relative(variance.to_numpy().sum(axis=1))
    rows.append({"method": PERFECT, "relative_mse": min(noise, 1.0)})
    table = pd.DataFrame(rows)
    baselines = table[table["method"].isin(ladder())]
    best = str(baselines.loc[baselines["relative_mse"].idxmin(), "method"])
    difference = resampled[MODEL] - resampled[best]
    coverage = None
    if sd is not None:
        width = ndtri(0.5 + _LEVEL / 2) * np.sqrt(sd.to_numpy() ** 2 + variance.to_numpy())
        coverage = float((np.abs(arrays[MODEL] - truth) < width).mean())
    return Scores(
        labels=list(measured.index),
        table=table,
        best=best,
        difference=float(table["relative_mse"][0] - baselines["relative_mse"].min()),
        difference_se=float(difference.std()) if len(truth) > 1 else np.inf,
        coverage=coverage,
    )


def _by_condition(
    unseen: Mapping[str, pd.DataFrame], seen: Mapping[str, pd.DataFrame], half: pd.DataFrame, measured: pd.DataFrame
) -> pd.DataFrame:
    """Pearson correlation of each condition's effect with what was measured on the second half of its cells."""
    found = {}
    for column, frame in {"unseen": unseen.get(MODEL), "seen": seen.get(MODEL), "half": half}.items():
        if frame is None:
            found[column] = pd.Series(dtype=float)
            continue
        values = metrics.pearson_delta(frame.to_numpy(), measured.loc[frame.index].to_numpy(), per_row=True)
        found[column] = pd.Series(values, index=frame.index)
    return pd.DataFrame(found)


def _ranks(
    pairs: Mapping[str, np.ndarray], screen: Screen, half: pd.DataFrame, measured: pd.DataFrame
) -> pd.DataFrame | None:
    """Whether pairs that were left out are ranked as they are in the second half of the cells."""
    if len(pairs) < _FEWEST_PAIRS:
        return None

    def of(effects: pd.DataFrame) -> dict[str, np.ndarray]:
        asked = [[*map(screen.single, screen.genes_of[pair]), pair] for pair in pairs]
        three = np.stack([effects.loc[labels].to_numpy() for labels in asked], axis=1)
        return interaction_scores(*three)

    truth, other = of(measured), of(half)
    predicted = interaction_scores(*np.stack(list(pairs.values()), axis=1))
    return pd.DataFrame(
        {
            "type": type_,
            "raptorgraph": _rank_correlation(predicted[type_], truth[type_]),
            "half": _rank_correlation(other[type_], truth[type_]),
            "n_pairs": len(pairs),
        }
        for type_ in TYPES
    )


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    defined = np.isfinite(x) & np.isfinite(y)
    if defined.sum() < 3 or np.ptp(x[defined]) == 0 or np.ptp(y[defined]) == 0:
        return np.nan
    return float(spearmanr(x[defined], y[defined]).statistic)
