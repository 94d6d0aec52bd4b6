"""Threads of torch, where many small operations follow each other, and what is asked by several threads at once."""

from __future__ import annotations

from contextlib import contextmanager
from functools import wraps
from threading import RLock
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def one_thread(when: bool = True) -> Iterator[None]:
    """Compute on one thread `when` the work is small, and leave the number of threads as it was.

    Threads meet after every operation. Where operations are small there is little to share, and on a machine that is
    busy otherwise each meeting waits for the slowest thread.
    """
    before = torch.get_num_threads()
    if when:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_turn(function: Callable[P, T]) -> Callable[P, T]:
    """Let threads that call a function take turns.

    Where it draws from the generators of torch, which all threads share, they would at once find what depends on which
    is faster.
    """
    turn = RLock()

    @wraps(function)
    def decorated(*args: P.args, **kwargs: P.kwargs) -> T:
        with turn:
            return function(*args, **kwargs)

    return decorated


class OwnLock:
    """Lock of one object, for ``with``: a thread that holds it may take it again, and a copy has a lock of its own."""

    def __init__(self) -> None:
        self._lock = RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[OwnLock], tuple[()]]:
        """How it is copied and pickled, which a lock of the system cannot be."""
        return type(self), ()
