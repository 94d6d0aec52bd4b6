"""Interruptions from outside: Ctrl-C, and the end that a system or a scheduler asks for."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

WORDS = {int(signal.SIGINT): "interrupted", int(signal.SIGTERM): "terminated"}
# A scheduler sends a signal to all processes of a job, and the one that waits passes its own on.
_ONCE = 1.0  # seconds in which the same signal counts once


@contextlib.contextmanager
def interruptible() -> Iterator[list[int]]:
    """Have both signals raise a KeyboardInterrupt, so that what is being done is left in order.

    The list gets the numbers of those that came, since libraries may turn the exception into others.
    """
    came: list[int] = []
    last: dict[int, float] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - last.get(number, -_ONCE) < _ONCE:
            return
        last[number] = now
        came.append(number)
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # the only one that may
        # one that is ignored, as under nohup, stays so
        before = {number: signal.getsignal(number) for number in WORDS}
        before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, stop)
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
