"""Published tools that run in environments of their own: which there are, and what each needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).parent / "peers"  # of adapters, which run in these environments, and of pinned versions
DRIVER = FOLDER / "run_adapter.py"


@dataclass(frozen=True)
class Peer:
    """One tool.

    Attributes
    ----------
    name
        Name on the command line, and of its files.
    title
        Name in tables.
    experiment
        Experiment of the benchmark that it is a method of.
    package
        The distribution whose version is the tool's.
    check
        Python code that fails in an environment that does not work.
    python
        Versions of Python that its pins are for.
    with_dependencies
        Pinned packages that are installed with what they depend on, which differs between systems.
    reads
        What it is given: ``"counts"``, or ``"expression"``, that is, ``log1p(1e4 * count / library size)``.
    epochs
        Number of epochs where none is asked for; None for a tool that has none.
    options
        Settings of its adapter and their defaults.
    files
        Options of the experiment that name files it cannot do without, and what they hold.
    needs_combinations
        Whether it learns how genes combine from combinations alone.
    knows_other_genes
        Whether it predicts genes that were never perturbed.
    folder
        Folder of its adapter and its pins.
    """

    name: str
    title: str
    experiment: str
    package: str
    check: str
    python: tuple[str, ...]
    with_dependencies: tuple[str, ...] = ("torch",)
    reads: str = "expression"
    epochs: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    needs_combinations: bool = False
    knows_other_genes: bool = False
    folder: Path = FOLDER

    @property
    def pins(self) -> Path:
        """File of the exact version of every package of the environment, as pip reads it."""
        return self.folder / f"{self.name}.txt"

    @property
    def adapter(self) -> Path:
        """Python file that asks the tool, within its environment."""
        return self.folder / f"{self.name}_adapter.py"

    def label(self, epochs: int | None, options: Mapping[str, Any]) -> str:
        """Name in tables, with the settings that are not the tool's own."""
        changed = [] if epochs == self.epochs else [f"{epochs} epoch{'' if epochs == 1 else 's'}"]
        changed += [f"{name}={value}" for name, value in options.items() if value != self.options[name]]
        return f"{self.title} ({', '.join(changed)})" if changed else self.title

    def pinned(self) -> dict[str, str]:
        """Version of each pinned package."""
        lines = (line.partition("#")[0].strip() for line in self.pins.read_text(encoding="utf-8").splitlines())
        return dict(line.split("==", 1) for line in lines if line)


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            name="gears",
            title="GEARS",
            experiment="prediction",
            package="cell-gears",
            check="import gears",
            python=("3.11",),
            epochs=20,
            options={"hidden_size": 64, "batch_size": 32},
            files={"gene2go": "the GO terms of each gene, {symbol: [terms]}, as .json or .json.gz"},
            needs_combinations=True,
            knows_other_genes=True,
        ),
        Peer(
            name="cpa",
            title="CPA",
            experiment="prediction",
            package="cpa-tools",
            check="import cpa",
            python=("3.10",),
            reads="counts",
            epochs=500,
            options={"n_latent": 32, "batch_size": 512, "patience": 10},
        ),
        Peer(
            name="mixscape",
            title="Mixscape",
            experiment="responders",
            package="pertpy",
            check="import pertpy",
            python=("3.11",),
        ),
        Peer(
            name="sdcd",
            title="SDCD",
            experiment="graph",
            package="sdcd",
            check="import sdcd",
            python=("3.11",),
        ),
    )
}
"""Tools by name."""
