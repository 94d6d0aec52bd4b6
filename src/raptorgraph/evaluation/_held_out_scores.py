"""Scores of predictions on cells that a fit has not seen, beside baselines and what the measurement allows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit
from scipy.stats import spearmanr

from raptorgraph import metrics
from raptorgraph.baselines import ladder
from raptorgraph.evaluation._scores import TYPES, interaction_scores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raptorgraph.screen import Screen

MODEL, HALF, PERFECT = "raptorgraph", "other half of the cells", "perfect prediction"
UNSEEN, SINGLES, SEEN = "unseen combinations", "singles", "seen combinations"
_N_BOOTSTRAP = 500
_LEVEL = 0.9
_FEWEST_PAIRS = 8  # from which a rank correlation says something


@dataclass(frozen=True)
class Scores:
    """Scores of all methods on one set of conditions.

    Attributes
    ----------
    labels
        The conditions.
    table
        One row a method: ``method``, ``relative_mse``, ``relative_mse_se``, ``pearson``, ``pearson_se``,
        ``discrimination``; ``"raptorgraph"`` first, then baselines, then what is no method: ``"other half of the
        cells"`` and ``"perfect prediction"``.
    best
        The baseline with the smallest error.
    difference, difference_se
        Relative error of the model minus that of `best`, and its standard error over conditions.
    coverage
        Share of the measured values within the model's 90 % intervals (widened by the error of the measurement), or
        None for a model without intervals.

    Examples
    --------
    >>> table = pd.DataFrame({"method": ["raptorgraph", "additive"], "relative_mse": [0.4, 0.7]})
    >>> labels = ["A+B", "A+C", "A+D", "B+C", "B+D", "C+D"]
    >>> scores = rg.evaluation.Scores(labels, table, "additive", -0.3, 0.1, coverage=None)
    >>> scores.verdict, scores.value("additive", "relative_mse")
    ('better', 0.7)
    """

    labels: list[str]
    table: pd.DataFrame
    best: str
    difference: float
    difference_se: float
    coverage: float | None

    @property
    def verdict(self) -> str:
        """``"better"``, ``"worse"`` or ``"level"``: model against the best baseline, at a level of 5 %."""
        if not abs(self.difference) > self.errors_of(0.95) * self.difference_se:
            return "level"
        return "better" if self.difference < 0 else "worse"

    def errors_of(self, level: float) -> float:
        """Standard errors to either side of an interval over the conditions, by Student's t; NaN for one of them."""
        return float(stdtrit(len(self.labels) - 1, 0.5 + level / 2))

    def value(self, method: str, column: str) -> float:
        """One score."""
        return float(self.table.set_index("method").at[method, column])


@dataclass(frozen=True)
class HeldOut:
    """Scores of second fits, on cells that they have not seen.

    Attributes
    ----------
    scores
        Scores on ``"unseen combinations"``, ``"singles"`` and ``"seen combinations"``, as far as the screen has them.
    conditions
        Index: condition; ``unseen``, ``seen``, ``half``: Pearson correlation of predicted effect (without and with the
        condition in the fit) and of the effect in the other half of the cells, with the measured effect.
    ranks
        For each type of interaction: rank correlation of the score over pairs that were left out, of the model, of the
        other half of the cells, and ``n_pairs``; None for too few pairs.
    predicted, measured
        Effects of the unseen combinations, or of the singles where there are none; conditions x genes. Empty where
        nothing could be measured.
    shown
        Name of the set of conditions that these are of.
    n_fits, n_folds
        Fits that were made, and parts that the combinations were divided into.
    left_out
        Conditions with too few cells to be divided.
    failed
        Baselines that could not be fitted, and why.
    reason
        Why nothing could be measured, where nothing could.

    Examples
    --------
    >>> held = rg.evaluation.HeldOut(reason="the control has too few cells")
    >>> held.scores, held.n_fits
    ({}, 0)
    """

    scores: dict[str, Scores] = field(default_factory=dict)
    conditions: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["unseen", "seen", "half"]))
    ranks: pd.DataFrame | None = None
    predicted: pd.DataFrame = field(default_factory=pd.DataFrame)
    measured: pd.DataFrame = field(default_factory=pd.DataFrame)
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
class Collected:
    """Effects by method: of conditions that a fit had not seen, and of conditions that it had."""

    unseen: dict[str, list[pd.DataFrame]] = field(default_factory=lambda: defaultdict(list))
    seen: dict[str, list[pd.DataFrame]] = field(default_factory=lambda: defaultdict(list))
    sd_unseen: list[pd.DataFrame] = field(default_factory=list)
    sd_seen: list[pd.DataFrame] = field(default_factory=list)
    pairs: dict[str, np.ndarray] = field(default_factory=dict)  # effects of a, b and ab: 3 x genes
    failed: dict[str, str] = field(default_factory=dict)


def summarize(
    found: Collected,
    screen: Screen,
    first: np.ndarray,
    second: np.ndarray,
    seed: int,
    left_out: list[str],
    n_fits: int,
    n_folds: int,
) -> HeldOut:
    """Scores of what the fits to the `first` rows predict, on the `second` rows."""
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
            scores[name] = scores_of(known, half.loc[labels], measured.loc[labels], variance.loc[labels], sd, seed)
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


def scores_of(
    predictions: Mapping[str, pd.DataFrame],
    half: pd.DataFrame,
    measured: pd.DataFrame,
    variance: pd.DataFrame,
    sd: pd.DataFrame | None,
    seed: int,
    *,
    other_half: pd.DataFrame | None = None,
) -> Scores:
    """Scores of predicted effects, the model's among them; `half` is compared with `other_half`, or with `measured`."""
    truth = measured.to_numpy()
    order = [MODEL, *(name for name in ladder() if name in predictions)]
    arrays = {name: predictions[name].to_numpy() for name in order} | {HALF: half.to_numpy()}
    truths = {HALF: truth if other_half is None else other_half.to_numpy()}
    n = len(truth)
    draws = np.random.default_rng([seed, 3]).integers(n, size=(_N_BOOTSTRAP, n))

    def relative(errors: np.ndarray, to: np.ndarray) -> tuple[float, np.ndarray]:
        """Pooled over conditions, and the same for each resample of the conditions."""
        size = (to**2).sum(axis=1)
        return errors.sum() / size.sum(), errors[draws].sum(axis=1) / size[draws].sum(axis=1)

    def standard_error(values: np.ndarray) -> float:
        """That of resamples, which of few conditions vary less than they would; NaN for one condition."""
        return float(values.std() * np.sqrt(n / (n - 1))) if n > 1 else np.nan

    rows, resampled = [], {}
    for name, values in arrays.items():
        to = truths.get(name, truth)
        error, resampled[name] = relative(((values - to) ** 2).sum(axis=1), to)
        pearson = metrics.pearson_delta(values, to, per_row=True)
        defined = pearson[~np.isnan(pearson)]
        rows.append(
            {
                "method": name,
                "relative_mse": error,
                "relative_mse_se": standard_error(resampled[name]),
                "pearson": defined.mean() if len(defined) else np.nan,
                "pearson_se": defined.std(ddof=1) / np.sqrt(len(defined)) if len(defined) > 1 else np.nan,
                "discrimination": metrics.centroid_accuracy(values, to, "cosine") if n > 1 else np.nan,
            }
        )
    noise, _ = relative(variance.to_numpy().sum(axis=1), truth)
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
        difference_se=standard_error(difference) if n > 1 else np.inf,
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
