"""Messages of the package, shown from INFO on as scvi-tools shows its own, and those of other libraries, kept out."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import warnings
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from rich.logging import RichHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

P = ParamSpec("P")
T = TypeVar("T")

_LIBRARIES = ("lightning", "pytorch_lightning", "scvi")
_NOTES = (
    r".isinstance\(treespec, LeafSpec\). is deprecated",  # lightning calls what torch >= 2.9 deprecates
    r"Checkpoint directory .+ exists and is not empty",
    r"GPU available but not used",
    r"early_stopping was automatically disabled due to the use of DDP",  # it is refused where it was asked for
    r"The .+ does not have many workers",
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    r"IProgress not found",
)


def show_messages() -> None:
    """Give the package's logger a handler, unless the user has given it one."""
    logger = logging.getLogger("raptorgraph")
    if not logger.handlers:
        logger.addHandler(RichHandler(show_time=False, show_path=False, markup=False))
        logger.setLevel(logging.INFO)
        logger.propagate = False
    if "ipykernel" in sys.modules:
        # tqdm warns once, when it is imported in a notebook without ipywidgets; scvi-tools imports it later
        with quiet_libraries():
            import tqdm.auto  # noqa: F401


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep out notes and advertisements of the libraries that train and load.

    Their warnings stay, but for those that the user can do nothing about, and so does the INFO of a logger whose level
    is below INFO: somebody has asked for it.
    """

    def heard(record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO or logging.getLogger(record.name).getEffectiveLevel() < logging.INFO

    # at each logger, since the filters of its parents are not asked
    loggers = [
        logger
        for name, logger in list(logging.root.manager.loggerDict.items())
        if name.split(".")[0] in _LIBRARIES and isinstance(logger, logging.Logger)
    ]
    for logger in loggers:
        logger.addFilter(heard)
    try:
        with warnings.catch_warnings():
            for message in _NOTES:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(heard)


def quietly(function: Callable[P, T]) -> Callable[P, T]:
    """Run a function within :func:`quiet_libraries`; warnings have no frame of contextlib to come from."""

    @functools.wraps(function)
    def decorated(*args: P.args, **kwargs: P.kwargs) -> T:
        with quiet_libraries():
            return function(*args, **kwargs)

    return decorated
