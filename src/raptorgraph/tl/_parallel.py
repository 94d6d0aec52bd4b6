"""Work on several threads, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import rich
from rich.progress import track

Item = TypeVar("Item")
Result = TypeVar("Result")


def shows_progress(progress: bool | None) -> bool:
    """`progress`, or whether someone is there to see it: in a terminal or a notebook."""
    console = rich.get_console()
    return (console.is_terminal or console.is_jupyter) if progress is None else progress


def in_threads(
    task: Callable[[Item], Result], items: Sequence[Item], *, threads: int, progress: bool | None, description: str
) -> list[Result]:
    """Results of `task` in the order of the items; an error or an interrupt leaves no work behind."""
    pool = ThreadPoolExecutor(threads)
    try:
        results = pool.map(task, items)
        return list(
            track(
                results,
                description=description,
                total=len(items),
                disable=not shows_progress(progress),
                transient=True,
            )
        )
    finally:
        pool.shutdown(cancel_futures=True)
