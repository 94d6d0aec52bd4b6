"""Causal models of Perturb-seq screens."""

from importlib.metadata import PackageNotFoundError, version

from raptorgraph import _logging, baselines, benchmark, datasets, metrics, nn, pl, pp, tl
from raptorgraph.model import RaptorGraphModel

try:
    __version__ = version("raptorgraph")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"

RaptorGraph = RaptorGraphModel
_logging.show_messages()

__all__ = [
    "RaptorGraph",
    "RaptorGraphModel",
    "__version__",
    "baselines",
    "benchmark",
    "datasets",
    "metrics",
    "nn",
    "pl",
    "pp",
    "tl",
]
