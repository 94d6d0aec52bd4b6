"""Progress bars on stderr, where someone is there to see them and the work takes more than a second."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import rich

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Item = TypeVar("Item")
P = ParamSpec("P")
T = TypeVar("T")

DELAY = 1.0  # seconds; shorter work shows nothing
_INTERVAL = 0.5  # seconds between two looks at the count
_ASKED: ContextVar[bool | None] = ContextVar("progress", default=None)


def shows_progress(progress: bool | None = None) -> bool:
    """Whether bars are shown: as asked, or else in a terminal or a notebook.

    Neither where ``scvi.settings.verbosity`` or the level of the logger ``raptorgraph`` is above INFO.
    """
    progress = _ASKED.get() if progress is None else progress
    if progress is not None:
        return progress
    if max(logging.getLogger(name).level for name in ("raptorgraph", "scvi")) > logging.INFO:
        return False
    return (sys.stderr is not None and sys.stderr.isatty()) or rich.get_console().is_jupyter


@contextlib.contextmanager
def progress_default(progress: bool | None) -> Iterator[None]:
    """Show or hide all bars within that are not asked for one by one; None changes nothing."""
    token = _ASKED.set(_ASKED.get() if progress is None else progress)
    try:
        yield
    finally:
        _ASKED.reset(token)


def progress_argument(name: str = "progress") -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let an argument of a function, given by its name, decide on all bars within it."""
    return _within(lambda arguments: progress_default(arguments.get(name)))


def _within(
    context: Callable[[dict[str, Any]], contextlib.AbstractContextManager[object]],
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Run a function within a context that is made from its keyword arguments.

    The context manager would do as a decorator too, but for warnings: they are shown if they come from this package,
    and a frame of contextlib would stand between it and its caller.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def decorated(*args: P.args, **kwargs: P.kwargs) -> T:
            with context(dict(kwargs)):
                return function(*args, **kwargs)

        return decorated

    return decorate


@contextlib.contextmanager
def progress_bar(description: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Show a bar until the end; the context gives what is called after each step. Bars within this one are not shown.

    A total of None is for work that tells nothing of its steps: then a line shows the time that has passed.
    """
    n = 0

    def advance() -> None:
        nonlocal n
        n += 1

    if not shows_progress():
        yield advance
        return
    stream, started, done = sys.stderr, time.time(), threading.Event()  # work may redirect stderr

    def show() -> None:
        if DELAY and done.wait(DELAY):
            return
        from tqdm import tqdm  # the plain one: that for notebooks warns where ipywidgets is not installed

        form = "{desc}: {elapsed}" if total is None else None
        with tqdm(desc=description, total=total, leave=False, file=stream, bar_format=form) as bar:
            bar.start_t = started
            while not done.wait(_INTERVAL):
                bar.n = n
                bar.refresh()

    # in a thread of its own, so that a step of minutes shows that it goes on
    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        with progress_default(False):
            yield advance
    finally:
        done.set()
        thread.join()


def progress_line(description: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Show the time that a function takes."""
    return _within(lambda arguments: progress_bar(description))


def track(items: Iterable[Item], description: str, *, total: int | None = None) -> Iterable[Item]:
    """The items, with a bar that counts them: for generators, and many short steps."""
    if not shows_progress():
        return items
    from tqdm import tqdm

    return tqdm(items, description, total, file=sys.stderr, leave=False, delay=DELAY)
