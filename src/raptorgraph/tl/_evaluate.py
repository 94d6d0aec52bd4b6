"""How near predictions come to conditions that a model has not seen, beside baselines, floor and ceiling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from raptorgraph._arguments import check_integer
from raptorgraph._docs import docs
from raptorgraph._progress import progress_argument, progress_bar
from raptorgraph.baselines import ladder
from raptorgraph.evaluation._held_out import FEWEST_CELLS
from raptorgraph.evaluation._held_out_scores import HALF, MODEL, scores_of
from raptorgraph.evaluation._scores import CEILING, FLOOR, cell_references, cell_scores, large_enough, size_of_half
from raptorgraph.screen._names import gene_names
from raptorgraph.screen._screen import Screen
from raptorgraph.screen._setup import Setup
from raptorgraph.screen._stored import with_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from raptorgraph.baselines import Baseline
    from raptorgraph.model import RaptorGraphModel

CONTROL = "control cells"
_OF_CELLS = ("energy_distance", "variance_ratio")
_N_REPEATS = 5
_BASELINE_SETUP = ("perturbation_key", "control", "delimiter", "layer", "library_size_key", "batch_key")


@progress_argument()
@docs.dedent
def evaluate(
    model: RaptorGraphModel,
    held_out: AnnData,
    *,
    baselines: Sequence[str] | None = None,
    cells: bool = True,
    n_cells: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Score the predictions of combinations that the model has not seen, beside baselines, floor and ceiling.

    Scored are the conditions of `held_out` that are not among the model's own cells and whose genes were all perturbed
    alone there. Baselines are fitted to the model's own cells and asked the same.

    Parameters
    ----------
    %(model)s
    held_out
        Cells of held-out conditions, set up as the cells of the model are, with control cells among them: measured
        effects are taken against these. They may be the whole screen; what the model has seen is left out. Control
        cells that the model has not seen are better still: an error of theirs is then not shared by the prediction and
        the measurement.
    baselines
        Names of :func:`raptorgraph.baselines.ladder`; default all that the model's cells suffice for.
    cells
        Whether to score predicted cells too, which takes most of the time.
    n_cells
        Number of cells at which cells are compared; default half of those of the smallest condition, 10 to 250.
        Conditions with fewer than twice as many cells get no scores of cells.
    seed
        Seed of the halves and of the draws.
    %(progress)s

    Returns
    -------
    pandas.DataFrame
        One row a method: ``"raptorgraph"``, the baselines from the simplest up, and what is no method, with

        - ``relative_mse``: squared error of the effects as a part of their squared size, over all conditions and genes
          (:func:`raptorgraph.metrics.relative_mse`), and ``relative_mse_se``, its standard error over conditions;
        - ``pearson``: correlation of predicted and measured effects over genes, mean over conditions, and
          ``pearson_se``;
        - ``discrimination``: share of the other conditions whose measured effect is farther from the prediction than
          its own (cosine); 0.5 is chance. NaN for one condition;
        - ``energy_distance``: of predicted to measured cells, mean over conditions
          (:func:`raptorgraph.metrics.energy_distance`); ``variance_ratio``: variance of predicted cells by that of
          measured ones. Without `cells` these are left out.

        The rows that are no methods say what is possible:

        - ``"other half of the cells"``: effects of one half of the held-out cells, scored on the other half. Its energy
          distance is the floor;
        - ``"perfect prediction"``: error of the true effects, which is that of the measurement;
        - ``"control cells"``: their energy distance is the ceiling, that of no change.

        ``attrs`` has ``conditions``, those that are scored; ``left_out``, the reason for each other condition;
        ``failed``, the error of each baseline that could not be fitted; ``best``, the baseline with the smallest error;
        ``difference`` and ``difference_se``, the model's error minus that of this baseline; ``verdict``, ``"better"``,
        ``"worse"`` or ``"level"`` at a level of 5 % (Student's t over conditions); and ``coverage``, the share of the
        measured effects within the model's 90 % intervals, widened by the error of the measurement (None for a model
        without a posterior).

    Raises
    ------
    AttributeError
        If the model was loaded without data.
    KeyError
        If `held_out` lacks genes of the model or a column of its setup.
    ValueError
        If there are no control cells or no condition to score among `held_out`, or a baseline does not exist.

    Notes
    -----
    Scores are for comparing methods on the same cells. A model must not have been chosen by the conditions that are
    reported; :func:`raptorgraph.evaluation.singles_only` sets some aside for that.

    Examples
    --------
    Train without the combinations, and ask for them:

    >>> screen = rg.screen.Screen(adata, {"library_size_key": "total_counts"})
    >>> train = screen.cells(screen.singles)
    >>> rg.RaptorGraphModel.setup_anndata(train, library_size_key="total_counts")
    >>> model = rg.RaptorGraphModel(train, n_hidden=16)
    >>> model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    >>> table = rg.tl.evaluate(model, adata, baselines=["no change", "additive"])
    >>> list(table.index)
    ['raptorgraph', 'no change', 'additive', 'other half of the cells', 'perfect prediction', 'control cells']
    >>> table.attrs["conditions"] == screen.combinations
    True
    >>> float(table.loc["no change", "relative_mse"])
    1.0
    """
    if n_cells is not None:
        check_integer("n_cells", n_cells, 2)
    own = model.screen
    chosen = _ladder(baselines, own)
    screen = _held_out_screen(model, held_out)
    labels, left_out = _scored(screen, own)
    predictions, sd = _own_effects(model, labels)
    fitted, failed = _fit(chosen, own)
    predictions |= {name: method.predict_effects(labels)[screen.var_names] for name, method in fitted.items()}
    first, second = (screen.effects_of(rows).loc[labels] for rows in screen.halves(seed))
    variance = pd.DataFrame(screen.moments.variance, index=screen.labels, columns=screen.var_names)
    scores = scores_of(
        predictions, first, screen.effects.loc[labels], variance.loc[labels], sd, seed, other_half=second
    )
    table = scores.table.set_index("method")
    if cells:
        table = table.reindex([*table.index, CONTROL])
        found = _cells(model, fitted, screen, labels, n_cells, seed)
        table = table.join(found.rename(index={FLOOR: HALF, CEILING: CONTROL}))
    table.attrs = {
        "conditions": labels,
        "left_out": left_out,
        "failed": failed,
        "best": scores.best,
        "difference": scores.difference,
        "difference_se": scores.difference_se,
        "verdict": scores.verdict,
        "coverage": scores.coverage,
    }
    return table


def _ladder(baselines: Sequence[str] | None, own: Screen) -> dict[str, type[Baseline]]:
    """Classes of the baselines that were asked for, or that the cells suffice for."""
    known = ladder()
    if baselines is None:
        alone = _alone(own)
        pairs = any(alone.issuperset(own.genes_of[label]) for label in own.combinations)
        return {name: cls for name, cls in known.items() if pairs or not cls.needs_doubles}
    names = [baselines] if isinstance(baselines, str) else list(dict.fromkeys(baselines))
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise ValueError(f"baselines={baselines!r}: name one or more of {', '.join(known)}.")
    return {name: known[name] for name in known if name in names}


def _alone(own: Screen) -> set[str]:
    return {own.genes_of[label][0] for label in own.singles}


def _held_out_screen(model: RaptorGraphModel, held_out: AnnData) -> Screen:
    """Screen of the held-out cells, with the genes of the model in the model's order."""
    names = gene_names(held_out)
    if not names.is_unique:
        raise ValueError("var_names of held_out are not unique; use adata.var_names_make_unique().")
    missing = pd.Index(model.var_names_).difference(names)
    if len(missing):
        raise KeyError(
            f"{len(missing)} of the model's {len(model.var_names_)} genes are not in held_out, first {missing[0]!r}."
        )
    return Screen(with_columns(held_out, names.get_indexer(model.var_names_)), Setup.of(model.setup_args))


def _scored(screen: Screen, own: Screen) -> tuple[list[str], dict[str, str]]:
    """Conditions to score, and why the others are not."""
    alone, seen = _alone(own), {frozenset(own.genes_of[label]) for label in own.conditions}
    labels, left_out = [], {}
    for label in screen.conditions:
        genes = screen.genes_of[label]
        never = [gene for gene in genes if gene not in alone]
        if frozenset(genes) in seen:
            left_out[label] = "the model was trained on it"
        elif never:
            left_out[label] = f"{', '.join(never)} was not perturbed alone in the model's data"
        elif screen.n_cells[label] < FEWEST_CELLS:
            left_out[label] = f"fewer than {FEWEST_CELLS} cells"
        else:
            labels.append(label)
    if not labels:
        example = next(iter(left_out.items()), ("there is none", "all cells are control cells"))
        raise ValueError(
            f"None of the {len(left_out)} conditions of held_out can be scored; {example[0]}: {example[1]}. Hold "
            "combinations of genes out that were perturbed alone (raptorgraph.evaluation.singles_only names some)."
        )
    return labels, left_out


def _own_effects(model: RaptorGraphModel, labels: list[str]) -> tuple[dict[str, pd.DataFrame], pd.DataFrame | None]:
    genes = model.var_names_
    if not model.has_posterior:
        return {MODEL: model.predict_effects(labels)[genes].astype(np.float64)}, None
    mean, sd = model.predict_effects(labels, return_sd=True)
    return {MODEL: mean[genes].astype(np.float64)}, sd[genes].astype(np.float64)


def _fit(chosen: Mapping[str, type[Baseline]], own: Screen) -> tuple[dict[str, Baseline], dict[str, str]]:
    """Baselines that could be fitted to the model's cells, and the errors of the others."""
    setup: dict[str, Any] = {name: own.setup[name] for name in _BASELINE_SETUP}
    fitted, failed = {}, {}
    with progress_bar("Fitting baselines", len(chosen)) as advance:
        for name, cls in chosen.items():
            try:
                fitted[name] = cls(**setup).fit(own.adata)
            except ValueError as error:  # such as combinations that do not vary
                failed[name] = str(error)
            advance()
    if not fitted:
        name, reason = next(iter(failed.items()))
        raise ValueError(f"No baseline could be fitted to the model's cells; {name}: {reason}")
    return fitted, failed


def _cells(
    model: RaptorGraphModel,
    fitted: Mapping[str, Baseline],
    screen: Screen,
    labels: list[str],
    n_cells: int | None,
    seed: int,
) -> pd.DataFrame:
    """Scores of the cells of all methods, means over conditions, and their floor and ceiling."""
    n_cells = size_of_half(len(screen.rows(label)) for label in labels) if n_cells is None else n_cells
    draws: dict[str, Any] = {"n_cells": n_cells, "n_repeats": _N_REPEATS, "seed": seed}
    labels = large_enough(screen, labels, n_cells)
    if not labels:
        return pd.DataFrame(columns=list(_OF_CELLS), dtype=float)
    found = [cell_references(screen, labels, **draws)]
    genes, n_drawn = list(screen.var_names), n_cells * _N_REPEATS
    no_drift = np.zeros(len(genes))  # which only overlaps of genes read, and these are not shown
    methods: dict[str, Any] = {MODEL: model, **fitted}
    with progress_bar("Comparing cells", len(methods) * len(labels)) as advance:
        for name, method in methods.items():
            for label in labels:  # one at a time, which bounds the memory
                drawn = method.predict([label], n_cells=n_drawn, seed=seed)[:, genes]
                found.append(cell_scores(drawn, screen, no_drift, **draws).assign(method=name))
                advance()
    rows = pd.concat(found, ignore_index=True)
    rows = rows[rows["metric"].isin(_OF_CELLS)]
    return rows.pivot_table(index="method", columns="metric", values="value")[list(_OF_CELLS)].rename_axis(columns=None)
