"""Names of the experiments, apart from their work: the command line lists them in its help, where nothing is loaded."""

from __future__ import annotations

EXPERIMENTS = (
    "prediction",
    "interactions",
    "reverse",
    "ablation",
    "intervals",
    "enrichment",
    "pairing",
    "losses",
    "sensitivity",
    "capacity",
    "stability",
    "graph",
    "graph-ablation",
    "spillover",
)


class UnitsFailed(RuntimeError):
    """Some units of an experiment failed, after all others were done."""
