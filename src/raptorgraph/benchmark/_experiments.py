"""What an experiment is, and the table of all: light to import, since the command line lists the names in its help.

To add an experiment, write a module such as ``_mine.py`` with

- ``units(settings)``: check screen and options, and cut the work into units (``units_by_seed``);
- ``work(unit, settings)``: do one unit, in a process of its own, and give a table (``Part``);
- ``tables(parts, settings)``: the tables of all units, mostly mean and SD over seeds (``mean_and_sd``);
- ``draw(tables)``: the figure;
- ``MINE = Experiment("mine", "Title", OPTIONS, units, work, tables, draw)``,

and add its line to the table below. Its tests go to ``tests/benchmark/test_mine.py``. The files of the package that the
work uses are found from ``work`` on; a finished unit is used again until one of them changes.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from matplotlib.figure import Figure

    from raptorgraph.benchmark._settings import Part, Settings, Unit

    Parts = Sequence[tuple[Unit, Part]]
    Tables = dict[str, pd.DataFrame]


class Work(Protocol):
    """The function that does a unit of work; its module and name tell what it depends on."""

    __module__: str
    __qualname__: str

    def __call__(self, unit: Unit, settings: Settings, /) -> Part:
        """Do the unit."""

    def __hash__(self) -> int:
        """Hash, so that what the work depends on is found once."""


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes
    ----------
    name
        Name on the command line and of its files.
    title
        What it is about, in a line.
    options
        Names of its options.
    units
        Cuts the work into units; raises a ValueError, before any work, for settings or a screen that do not suit.
    work
        Does one unit. Experiments with the same function share their finished units.
    tables
        Makes the tables of all units, by name.
    draw
        Makes the figure of the tables, or figures by name.
    work_options
        Options that the work depends on; default all.
    n_seeds
        Number of repetitions where none is asked for.
    """

    name: str
    title: str
    options: tuple[str, ...]
    units: Callable[[Settings], list[Unit]]
    work: Work
    tables: Callable[[Parts, Settings], Tables]
    draw: Callable[[Tables], Figure | Mapping[str, Figure]]
    work_options: tuple[str, ...] | None = None
    n_seeds: int = 3

    @property
    def parts(self) -> str:
        """Name of the folder of finished units: that of the module that does the work."""
        return self.work.__module__.rpartition("._")[2].replace("_", "-")


_TABLE = {
    "prediction": "_prediction:PREDICTION",
    "interactions": "_interactions:INTERACTIONS",
    "calls": "_calls:CALLS",
    "reverse": "_reverse:REVERSE",
    "profile": "_profile:PROFILE",
    "ablation": "_ablation:ABLATION",
    "intervals": "_intervals:INTERVALS",
    "unseen-genes": "_unseen_genes:UNSEEN_GENES",
    "enrichment": "_enrichment:ENRICHMENT",
    "pairing": "_pairing:PAIRING",
    "losses": "_losses:LOSSES",
    "sensitivity": "_sensitivity:SENSITIVITY",
    "capacity": "_capacity:CAPACITY",
    "stability": "_stability:STABILITY",
    "graph": "_graph:GRAPH",
    "graph-ablation": "_graph_ablation:GRAPH_ABLATION",
    "spillover": "_spillover:SPILLOVER",
    "latents": "_latents:LATENTS",
    "responders": "_responders:RESPONDERS",
    "states": "_states:STATES",
    "design": "_design:DESIGN",
    "scale": "_scale:SCALE",
    "statistics": "_statistics:STATISTICS",
    "stream": "_stream:STREAM",
    "pairing-cost": "_pairing_cost:PAIRING_COST",
    "speed": "_speed:SPEED",
}
EXPERIMENTS = tuple(_TABLE)


def experiment(name: str) -> Experiment:
    """The experiment of that name, whose module is imported now; ValueError where there is none."""
    if not isinstance(name, str) or name not in _TABLE:
        raise ValueError(f"There is no experiment {name!r}; there are {', '.join(EXPERIMENTS)}.")
    found: Experiment = pkgutil.resolve_name(f"raptorgraph.benchmark.{_TABLE[name]}")
    return found


class UnitsFailed(RuntimeError):
    """Some units of an experiment failed, after all others were done."""
