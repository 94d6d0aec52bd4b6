"""Work on several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    task: Callable[[Item], Result], items: Sequence[Item], *, threads: int, advance: Callable[[], None]
) -> list[Result]:
    """Results of `task` in the order of the items; an error or an interrupt leaves no work behind.

    `advance` is called with each result.
    """
    pool, found = ThreadPoolExecutor(threads), []
    try:
        for result in pool.map(task, items):
            found.append(result)
            advance()
        return found
    finally:
        pool.shutdown(cancel_futures=True)
