"""Causal models of Perturb-seq screens."""

import lazy_loader as lazy

from raptorgraph import _logging

_logging.show_messages()

# What takes seconds to import is loaded with the first name that needs it.
__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submodules=[
        "baselines",
        "benchmark",
        "cli",
        "datasets",
        "evaluation",
        "inference",
        "metrics",
        "model",
        "nn",
        "pl",
        "pp",
        "report",
        "screen",
        "tl",
    ],
    submod_attrs={"_version": ["__version__"], "model._model": ["RaptorGraph", "RaptorGraphModel"]},
)
__all__.remove("model")  # noqa: PYI056  which is what users call their models
