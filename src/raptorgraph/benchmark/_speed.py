"""Experiment ``speed``: how long do a step, an epoch and the whole training take?

Each method is trained with its own number of epochs, in a process of its own.

- ``ms a step``: median over the steps of the training, with the loading of the batch; ``ms in matrix products`` is what
  the profiler of torch finds in them, in five steps that do not count for the median; ``share of the matrix rate``
  compares their operations with what the device does in the product of two large matrices.
- ``seconds an epoch``: median, without validation. An epoch of scVI, which has the same batch size, passes over each
  cell once; one of ours over each perturbed cell once and each control about once.
- ``seconds to 1 %``: time from the start of the training, all its parts included and validation left out, until the
  validation (negative evidence lower bound of held-out cells) stays within 1 % of its end. The training of dVAE and
  SENA has no validation: there it is the sum of reconstruction and discrepancy of the training cells, and each epoch
  has the same share of the seconds. SENA is left out without ``gene_sets``.
- ``parts``: seconds of the parts of our training, in the order in which they come.

CPA is left out: it does not install beside the package.

Times are those of the machine, of which nothing else should be asked meanwhile: ``--n-jobs 1``;
``--n-threads`` gives the process more than one core.
``raptorgraph benchmark speed --screen FILE``; ``simulated-large`` is a screen of the size of Norman et al. (2019).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scvi
from matplotlib.figure import Figure

from raptorgraph._logging import quietly
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._methods import check_methods, chosen_methods, epochs_of, method_of
from raptorgraph.benchmark._report import all_rows, in_order, mean_and_sd, wide
from raptorgraph.benchmark._settings import Part, Settings, Unit, units_by_seed
from raptorgraph.benchmark._speed_clock import Clock, first_within
from raptorgraph.evaluation._methods import RaptorGraphMethod
from raptorgraph.pl._panels import dot_panel

if TYPE_CHECKING:
    from raptorgraph.benchmark._experiments import Parts, Tables
    from raptorgraph.screen import Screen

OPTIONS = ("methods", "gene_sets", "max_epochs", "batch_size")
METHODS = ("raptorgraph", "scVI", "dVAE", "SENA")
EPOCH, TO_QUALITY, SECONDS, PER_EPOCH = "epochs", "seconds to 1 %", "seconds to fit", "seconds an epoch"
PARTS = ("splitter", "graph", "posterior", "targets", "start", "epochs", "escape", "rest")
_METRICS = (
    "ms a step",
    "ms in matrix products",
    "share in matrix products",
    "step over matrix products",
    "share of the matrix rate",
    PER_EPOCH,
    EPOCH,
    TO_QUALITY,
    SECONDS,
)
_DRAWN = ("step over matrix products", PER_EPOCH, TO_QUALITY, SECONDS)
_COLUMNS = ["table", "name", "metric", "value"]


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """One unit for each seed and method."""
    screen = load_screen(settings, settings.seeds[0])
    names = chosen_methods(settings, METHODS)
    if "scVI" in names and screen.source[1] is None:
        if settings.options.get("methods"):
            raise ValueError("methods: 'scVI' needs counts, and the screen has log values: name the layer with counts.")
        names.remove("scVI")
    check_methods(names, settings, screen.setup, screen.adata.var_names)
    return units_by_seed(settings, [(name, {"method": name}) for name in names])


def work(unit: Unit, settings: Settings) -> Part:
    """Train a method, and look at the clock."""
    screen, name = load_screen(settings, unit.seed), unit.options["method"]
    seconds: dict[str, float] = {}
    if name == "raptorgraph":
        found, seconds = _ours(screen, settings, unit.seed)
    elif name == "scVI":
        found = _scvi(screen, settings, unit.seed)
    else:
        found = _baseline(name, screen, settings, unit.seed)
    rows = [("methods", name, metric, value) for metric, value in found.items()]
    rows += [("parts", part, "seconds", value) for part, value in seconds.items()]
    return Part(pd.DataFrame(rows, columns=_COLUMNS))


def _ours(screen: Screen, settings: Settings, seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Times of our model, and of the parts of its training."""
    clock = Clock()
    method = RaptorGraphMethod(
        seed=seed,
        max_epochs=epochs_of(settings),
        train_kwargs={"callbacks": [clock], "check_val_every_n_epoch": 1, "batch_size": _batch_size(settings)},
        **screen.setup,
    )
    cells = screen.adata.copy()
    start = time.perf_counter()
    method.fit(cells)
    total = time.perf_counter() - start
    parts = dict(method.model._train_seconds)
    return _of_clock(clock, total), parts | {"rest": total - sum(parts.values())}


@quietly
def _scvi(screen: Screen, settings: Settings, seed: int) -> dict[str, float]:
    """Times of scVI with its own settings, at our batch size."""
    setup, cells = screen.setup, screen.adata.copy()
    scvi.settings.seed = seed
    scvi.model.SCVI.setup_anndata(cells, layer=setup.layer, batch_key=setup.batch_key)
    model = scvi.model.SCVI(cells)
    clock, start = Clock(), time.perf_counter()
    model.train(
        max_epochs=epochs_of(settings),
        batch_size=_batch_size(settings),
        check_val_every_n_epoch=1,
        callbacks=[clock],
        enable_progress_bar=False,
        enable_checkpointing=False,
    )
    return _of_clock(clock, time.perf_counter() - start)


def _of_clock(clock: Clock, total: float) -> dict[str, float]:
    found = clock.results() | {EPOCH: len(clock.curve), SECONDS: total}
    if clock.curve:
        found[TO_QUALITY] = clock.curve[first_within(np.array([value for _, value in clock.curve]))][0]
    return found


def _baseline(name: str, screen: Screen, settings: Settings, seed: int) -> dict[str, float]:
    """Times of a baseline that keeps a history of its epochs."""
    method: Any = method_of(name, settings, screen.setup, seed)
    cells = screen.adata.copy()
    start = time.perf_counter()
    method.fit(cells)
    total = time.perf_counter() - start
    history = method.history_
    n, place = len(history), first_within((history["reconstruction"] + history["mmd"]).to_numpy())
    return {EPOCH: n, PER_EPOCH: total / n, TO_QUALITY: (place + 1) / n * total, SECONDS: total}


def _batch_size(settings: Settings) -> int:
    size: int = settings.option("batch_size", 256, quick=64)
    return size


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``speed`` (to read), ``speed_parts`` and ``speed_long``."""
    rows = all_rows(parts)
    methods, own = rows[rows["table"] == "methods"], rows[rows["table"] == "parts"]
    summary = mean_and_sd(in_order(methods, name=METHODS, metric=_METRICS), ["name", "metric"])
    summary = summary.rename(columns={"name": "method"})
    found = {"speed": wide(summary, ["method"]).fillna("-"), "speed_long": summary}
    if len(own):
        seconds = mean_and_sd(in_order(own, name=PARTS), ["name", "metric"])
        found["speed_parts"] = wide(seconds.rename(columns={"name": "part"}), ["part"])
    return found


def draw(tables: Tables) -> Figure:
    """Seconds of each method."""
    summary = tables["speed_long"]
    methods = list(dict.fromkeys(summary["method"]))
    figure = Figure(figsize=(11, 1.5 + 0.35 * len(methods)), layout="constrained")
    for i, (ax, metric) in enumerate(zip(figure.subplots(1, len(_DRAWN)), _DRAWN, strict=True)):
        values = summary[summary["metric"] == metric].set_index("method")
        dot_panel(ax, values, methods, {}, title=metric, labels=i == 0)
    return figure


SPEED = Experiment("speed", "Seconds of a step, an epoch and a training", OPTIONS, units, work, tables, draw, n_seeds=1)
