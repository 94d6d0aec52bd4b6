"""Messages of the package, shown from INFO on as scvi-tools shows its own."""

from __future__ import annotations

import logging

from rich.logging import RichHandler


def show_messages() -> None:
    """Give the package's logger a handler, unless the user has given it one."""
    logger = logging.getLogger("raptorgraph")
    if not logger.handlers:
        logger.addHandler(RichHandler(show_time=False, show_path=False, markup=False))
        logger.setLevel(logging.INFO)
        logger.propagate = False
