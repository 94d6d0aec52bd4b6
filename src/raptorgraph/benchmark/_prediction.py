"""Experiment ``prediction``: all models and baselines on unseen combinations (Tables 1 and S6, with everything beside).

Every method is fitted on the same cells and asked for the same combinations, which it has not seen, in up to four
regimes (:mod:`raptorgraph.benchmark._splits`): ``singles`` (control and singles are seen), ``doubles`` (and four of
five parts of the combinations, each part left out once), ``paper`` (as ``singles``, without a validation part) and
``seen`` (some singles are left out too). Effects are scored against the method's own predicted control and against the
data's control; a method whose control drifts differs in the two. Cells are scored at a fixed number, beside the floor
(real against real) and the ceiling (control against real).

``raptorgraph benchmark prediction --screen FILE``
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import anndata as ad
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import sparse

from raptorgraph import metrics
from raptorgraph.baselines import ladder
from raptorgraph.benchmark._draw import dot_panel
from raptorgraph.benchmark._measure import Measured
from raptorgraph.benchmark._methods import Predictions, check_methods, make_method, method_names, ordered
from raptorgraph.benchmark._pairs import database
from raptorgraph.benchmark._report import mean_and_sd, wide
from raptorgraph.benchmark._scores import effect_scores, gene_overlap, sample_size
from raptorgraph.benchmark._screen import Screen, load_screen
from raptorgraph.benchmark._settings import Part, Settings, Unit
from raptorgraph.benchmark._splits import Split, doubles_folds, paper_split, seen_singles, singles_only

TITLE = "Prediction of unseen combinations"
OPTIONS = ("methods", "regimes", "n_folds", "on", "gene_sets", "predictions", "max_epochs", "n_repeats")
WORK_OPTIONS = ("n_folds", "on", "gene_sets", "max_epochs", "n_repeats")
REGIMES = ("singles", "doubles", "paper", "seen")
WITH_PAIRS = ("singles", "paper")  # regimes in which all pairs are predicted, for other experiments
HALF = "half of the cells, for the other half"
FLOOR, CEILING = "floor: real against real cells", "ceiling: control against real cells"
_SHORT = {HALF: "half of the cells", FLOOR: "floor", CEILING: "ceiling"}
_REFERENCES = tuple(_SHORT)
OWN, DATA = "own control", "data's control"  # what an effect is the difference to
_SHOWN = (
    "relative_mse",
    "relative_mse, data's control",
    "pearson_delta",
    "cosine_delta",
    "pearson_delta_centroid",
    "pearson_delta_top50",
    "centroid_accuracy_cosine",
    "mk_mmd_200",
    "energy_distance",
    "variance_ratio",
    "seconds to fit",
    "memory, MB",
)


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """One unit for each regime, fold, seed and model; the baselines, which take seconds, share one."""
    screen = load_screen(settings, settings.seeds[0])
    regimes = _regimes(settings, screen)
    external(settings, screen)
    found = []
    for seed in settings.seeds:
        for regime in regimes:
            names = method_names(settings, doubles=regime == "doubles")
            check_methods(names, settings, screen.setup, screen.adata.var_names)
            quick = [name for name in names if name in ladder()]
            groups = [["reference"], *([quick] if quick else []), *([name] for name in names if name not in quick)]
            for fold in range(_n_folds(settings) if regime == "doubles" else 1):
                for group in groups:
                    word = "baselines" if group == quick else group[0].replace(" ", "-")
                    options = {"regime": regime, "fold": fold, "methods": group}
                    found.append(Unit(f"{regime}{fold}-{word}-seed{seed}", seed, options))
    return found


def work(unit: Unit, settings: Settings) -> Part:
    """Fit the methods of the unit, predict the unseen combinations, and score what needs the cells."""
    screen = load_screen(settings, unit.seed)
    split = splits(unit.options["regime"], screen, unit.seed, settings)[unit.options["fold"]]
    fitted, scored = (split.train, split.validation) if _on(settings) == "validation" else (split.refit, split.test)
    n_cells, n_repeats = sample_size(screen), _n_repeats(settings)
    if unit.options["methods"] == ["reference"]:
        return Part(_references(screen, scored, n_cells, n_repeats, unit.seed))

    train = screen.cells(fitted)
    rows, effects, index = [], [], []
    for name in unit.options["methods"]:
        method = make_method(name, settings, screen.setup, unit.seed)
        with Measured() as fit:
            method.fit(train)
        known = set(method.perturbed_genes)
        asked = [label for label in scored if known.issuperset(screen.genes_of[label])]
        rows.append((name, "", "not predictable", len(scored) - len(asked)))
        if asked:
            with Measured() as ask:
                own = method.predict_effects(asked).loc[asked].to_numpy()
                cells = method.predict(asked, n_cells=n_cells * n_repeats, seed=unit.seed)
            drift = method.predict_control() - screen.control_mean
            for reference, values in ((OWN, own), (DATA, own + drift)):
                effects.append(values)
                index += [(name, label, reference, "scored") for label in asked]
            rows += [(name, *found) for found in _cell_scores(screen, cells, drift, n_cells, n_repeats, unit.seed)]
            rows.append((name, "", "seconds to predict", ask.seconds))
        if unit.options["regime"] in WITH_PAIRS:
            more = [label for label in [*screen.singles, *database(screen)] if label not in asked]
            effects.append(method.predict_effects(more).loc[more].to_numpy())
            index += [(name, label, OWN, "further") for label in more]
        rows += [(name, "", "seconds to fit", fit.seconds), (name, "", "memory, MB", fit.megabytes)]
        rows += [(name, "", *found) for found in _reconstruction(method, screen, unit.seed)]
    table = pd.DataFrame(rows, columns=["method", "condition", "metric", "value"])
    if not effects:
        return Part(table)
    obs = pd.DataFrame(index, columns=["method", "condition", "reference", "role"])
    obs.index = obs.index.astype(str)
    return Part(table, ad.AnnData(np.vstack(effects), obs=obs, var=pd.DataFrame(index=screen.adata.var_names)))


def _cell_scores(
    screen: Screen, cells: ad.AnnData, drift: np.ndarray, n_cells: int, n_repeats: int, seed: int
) -> list[tuple]:
    found = []
    for label in cells.obs["perturbation"].cat.categories:
        real = screen.expression[screen.rows(label)].toarray()
        if len(real) < 2 * n_cells:
            continue
        drawn = _dense(cells[(cells.obs["perturbation"] == label).to_numpy()].X)
        scores = metrics.sampled_scores(
            drawn, real, n_cells=n_cells, n_repeats=n_repeats, seed=_draw(seed, screen, label)
        )
        found += [(label, metric, value) for metric, value in scores.drop(columns="repeat").mean().items()]
        found.append((label, "variance_ratio", metrics.variance_ratio(drawn, real)))
        found += [(label, metric, value) for metric, value in gene_overlap(screen, label, drawn, drift).items()]
    return found


def _draw(seed: int, screen: Screen, label: str) -> int:
    """Seed of the draws of a condition, the same for all methods: each condition draws anew."""
    return int(np.random.SeedSequence([seed, screen.labels.index(label)]).generate_state(1)[0])


def _references(screen: Screen, scored: Sequence[str], n_cells: int, n_repeats: int, seed: int) -> pd.DataFrame:
    """Floor and ceiling of the scores of cells."""
    control, rows = screen.expression[screen.codes == 0].toarray(), []
    for label in scored:
        real = screen.expression[screen.rows(label)].toarray()
        if len(real) < 2 * n_cells:
            continue
        found = metrics.floor_and_ceiling(
            real, control, n_cells=n_cells, n_repeats=n_repeats, seed=_draw(seed, screen, label)
        )
        for name, kind in ((FLOOR, "floor"), (CEILING, "ceiling")):
            scores = found[found["reference"] == kind].drop(columns=["reference", "repeat"]).mean()
            rows += [(name, label, metric, value) for metric, value in scores.items()]
    return pd.DataFrame(rows, columns=["method", "condition", "metric", "value"])


def _reconstruction(method, screen: Screen, seed: int) -> list[tuple[str, float]]:
    """Errors of the reconstruction of control cells, where the method reconstructs cells."""
    if not hasattr(method, "reconstruct"):
        return []
    control = screen.codes == 0
    real = screen.expression[control].toarray().astype(np.float64)
    built = method.reconstruct(screen.adata[control].copy())
    same = metrics.same_cell_mse(built, real)
    return [
        ("control MSE, other cells", metrics.control_mse(built, real, seed=seed)),
        ("control MSE, same cells", same.mse),
        ("control variance explained", same.explained),
    ]


# -- regimes ---------------------------------------------------------------------------------------------------------
def _regimes(settings: Settings, screen: Screen) -> list[str]:
    asked = settings.options.get("regimes")
    if _on(settings) not in ("test", "validation"):
        raise ValueError(f"on={_on(settings)!r} is unknown; use 'test' or 'validation'.")
    if not asked:
        singles = {screen.genes_of[label][0] for label in screen.singles}
        n_testable = sum(singles.issuperset(screen.genes_of[label]) for label in screen.combinations)
        # a part left out must be worth scoring
        asked = ["singles", "doubles"] if n_testable >= 2 * _n_folds(settings) else ["singles"]
    for regime in asked:
        if regime not in REGIMES:
            raise ValueError(f"regimes: {regime!r} is unknown; there are {', '.join(REGIMES)}.")
        splits(regime, screen, settings.seeds[0], settings)  # raises where the screen does not allow it
    return list(asked)


def splits(regime: str, screen: Screen, seed: int, settings: Settings) -> list[Split]:
    """Splits of a regime, one for each fold; those without folds do not depend on the seed."""
    spelling = {"control": screen.setup["control"], "delimiter": screen.setup["delimiter"]}
    if regime == "doubles":
        return doubles_folds(screen.conditions, n_folds=_n_folds(settings), seed=seed, **spelling)
    if regime == "paper":
        return [paper_split(screen.conditions, **spelling)]
    if regime == "seen":
        return [seen_singles(screen.conditions, seed=seed, **spelling)]
    return [singles_only(screen.conditions, seed=0, **spelling)]


def _on(settings: Settings) -> str:
    return settings.options.get("on", "test")


def _n_folds(settings: Settings) -> int:
    return settings.options.get("n_folds", 2 if settings.quick else 5)


def _n_repeats(settings: Settings) -> int:
    return settings.options.get("n_repeats", 2 if settings.quick else 5)


def external(settings: Settings, screen: Screen) -> dict[str, Predictions]:
    """Predictions of other tools, read and checked."""
    return {
        name: Predictions(path, screen.setup, screen.adata.var_names, screen.control_mean)
        for name, path in (settings.options.get("predictions") or {}).items()
    }


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Sequence[tuple[Unit, Part]], settings: Settings) -> dict[str, pd.DataFrame]:
    """``prediction`` (to read), ``prediction_long`` (all scores) and ``prediction_conditions`` (each combination)."""
    rows = pd.concat(
        [
            part.rows.assign(regime=unit.options["regime"], fold=unit.options["fold"], seed=unit.seed)
            for unit, part in parts
        ],
        ignore_index=True,
    )
    by_seed, of_tools = [], []
    for seed in settings.seeds:
        screen = load_screen(settings, seed)
        tools = external(settings, screen)
        for regime in dict.fromkeys(rows["regime"]):
            effects = predicted(parts, regime, screen, seed, roles=("scored",))
            folds = splits(regime, screen, seed, settings)
            by_seed += _score_effects(effects, screen, folds, tools, seed, regime, settings)
            of_tools += [
                (regime, seed, name, *item)
                for name, tool in tools.items()
                for item in _tool_scores(tool, screen, _scored(folds, settings), seed, settings)
            ]
    columns = ["regime", "seed", "method", "condition", "metric", "value"]
    if of_tools:
        rows = pd.concat([rows, pd.DataFrame(of_tools, columns=columns)], ignore_index=True)
    cells = rows.groupby(["regime", "seed", "method", "metric"], sort=False)["value"].mean().reset_index()
    cells["reference"] = ""
    scores = pd.concat([pd.DataFrame(by_seed), cells], ignore_index=True)
    scores["group"] = scores["group"].fillna("all")
    summary = mean_and_sd(scores, ["regime", "group", "method", "reference", "metric"])
    conditions = rows[rows["condition"].fillna("") != ""]
    return {
        "prediction": _to_read(summary),
        "prediction_long": summary,
        "prediction_conditions": mean_and_sd(conditions, ["regime", "method", "condition", "metric"]),
    }


def predicted(
    parts: Sequence[tuple[Unit, Part]],
    regime: str,
    screen: Screen,
    seed: int,
    *,
    roles: Sequence[str] = ("scored", "further"),
) -> dict[tuple[str, str], pd.DataFrame]:
    """Effects that each method predicts, against each of the two controls.

    Parameters
    ----------
    parts
        Finished units, the folds of a regime together.
    regime, seed
        Which units to take.
    screen
        The screen of that seed.
    roles
        ``"scored"`` for the conditions that are reported, ``"further"`` for singles and all pairs.

    Returns
    -------
    For each method and control (:data:`OWN` or :data:`DATA`) a table of conditions x genes, in the screen's order of
    genes.
    """
    found: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for unit, part in parts:
        if part.arrays is None or unit.seed != seed or unit.options["regime"] != regime:
            continue
        arrays = part.arrays[:, screen.adata.var_names]  # simulated screens of other seeds have other orders
        obs = arrays.obs.reset_index(drop=True)
        obs = obs[obs["role"].isin(roles)]
        for key, rows in obs.groupby(["method", "reference"], sort=False, observed=True).groups.items():
            frame = pd.DataFrame(arrays.X[rows], index=obs["condition"].loc[rows].to_numpy(), columns=arrays.var_names)
            found.setdefault(key, []).append(frame)
    return {key: pd.concat(frames) for key, frames in found.items()}


def _scored(folds: Sequence[Split], settings: Settings) -> list[str]:
    on_validation = _on(settings) == "validation"
    return [label for split in folds for label in (split.validation if on_validation else split.test)]


def _tool_scores(
    tool: Predictions, screen: Screen, scored: Sequence[str], seed: int, settings: Settings
) -> list[tuple]:
    """Scores of the cells that another tool predicted."""
    known = [label for label in scored if label not in tool.missing(scored)]
    rows = [("", "not predictable", len(scored) - len(known))]
    n_cells = sample_size(screen)
    if tool.cells is None:
        return rows
    counts = tool.cells.obs["perturbation"].value_counts()
    cells = tool.cells[tool.cells.obs["perturbation"].isin([x for x in known if counts[x] >= n_cells])].copy()
    if not cells.n_obs:
        return rows
    cells.obs["perturbation"] = cells.obs["perturbation"].astype("category")
    return rows + _cell_scores(screen, cells, tool.control - screen.control_mean, n_cells, _n_repeats(settings), seed)


def _score_effects(predictions, screen, folds, tools, seed, regime, settings) -> list[dict]:
    """Scores of one regime and seed: the folds together, so that every combination is predicted once."""
    scored = _scored(folds, settings)
    groups = {label: name for split in folds for label, name in split.groups.items()}
    fitted = [label for label in folds[0].train if len(screen.genes_of[label]) == 1]
    for name, tool in tools.items():
        known = [label for label in scored if label not in tool.missing(scored)]
        predictions[name, OWN] = tool.effects.loc[known]
        predictions[name, DATA] = tool.effects.loc[known] + (tool.control - screen.control_mean)
    first, second = screen.halves(seed)
    half = pd.DataFrame(screen.moments_of(first).effect[1:], index=screen.conditions, columns=screen.adata.var_names)
    other = pd.DataFrame(screen.moments_of(second).effect[1:], index=screen.conditions, columns=screen.adata.var_names)
    found = []
    for group in dict.fromkeys(["all", *groups.values()]):
        labels = [label for label in scored if group == "all" or groups.get(label) == group]
        if not labels or (group != "all" and len(labels) == len(scored)):
            continue
        for (name, reference), frame in predictions.items():
            known = [label for label in labels if label in frame.index]
            if known:
                scores = effect_scores(frame.loc[known], screen.effects.loc[known], screen, fitted)
                found += [_row(regime, group, name, reference, seed, *item) for item in scores.items()]
        scores = effect_scores(half.loc[labels], other.loc[labels], screen, fitted)
        found += [_row(regime, group, HALF, OWN, seed, *item) for item in scores.items()]
    return found


def _row(regime, group, method, reference, seed, metric, value) -> dict:
    return {
        "regime": regime,
        "group": group,
        "method": method,
        "reference": reference,
        "metric": metric,
        "seed": seed,
        "value": value,
    }


def _to_read(summary: pd.DataFrame) -> pd.DataFrame:
    """One row for each regime, group and method, references last; the scores that tell most."""
    drift = summary["reference"] == DATA
    shown = summary[~drift | (summary["metric"] == "relative_mse")].assign(
        metric=lambda table: table["metric"].where(~drift, "relative_mse, data's control")
    )
    shown = shown[shown["metric"].isin(_SHOWN)]
    orders = {
        "regime": list(dict.fromkeys(summary["regime"])),
        "group": list(dict.fromkeys(summary["group"])),
        "method": _rank(summary["method"]),
        "metric": list(_SHOWN),
    }
    ranks = pd.DataFrame({column: shown[column].map(names.index) for column, names in orders.items()})
    # one group alone needs no column
    index = ["regime", "group", "method"] if summary["group"].nunique() > 1 else ["regime", "method"]
    return wide(shown.loc[ranks.sort_values(list(orders)).index], index).fillna("-")


def _rank(methods: Iterable[str]) -> list[str]:
    """Methods in their order, and what they are measured by."""
    found = set(methods)
    return [*ordered(name for name in methods if name not in _REFERENCES), *(n for n in _REFERENCES if n in found)]


def draw(tables: dict[str, pd.DataFrame]) -> Figure:
    """Relative MSE, Pearson and MK-MMD of every method, one row of panels for each regime."""
    summary = tables["prediction_long"]
    summary = summary[(summary["group"] == "all") & (summary["reference"] != DATA)]
    regimes = list(dict.fromkeys(summary["regime"]))
    panels = {"relative_mse": "relative MSE", "pearson_delta": "Pearson of the effect", "mk_mmd_200": "MK-MMD (200)"}
    figure = Figure(figsize=(13, 1.2 + 0.28 * summary["method"].nunique() * len(regimes)), layout="constrained")
    for axes, regime in zip(figure.subplots(len(regimes), len(panels), squeeze=False), regimes, strict=True):
        here = summary[summary["regime"] == regime]
        methods = [name for name in _rank(here["method"]) if name not in _REFERENCES]
        for ax, (metric, title) in zip(axes, panels.items(), strict=True):
            values = here[here["metric"] == metric].set_index("method")
            lines = {short: values["value_mean"].get(name, np.nan) for name, short in _SHORT.items()}
            dot_panel(ax, values, methods, lines, title=f"{regime}: {title}", labels=ax is axes[0])
    return figure


def _dense(X) -> np.ndarray:
    return X.toarray() if sparse.issparse(X) else np.asarray(X)
