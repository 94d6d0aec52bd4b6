"""What went wrong, in one line; and steps that may fail without taking the others with them."""

from __future__ import annotations

import contextlib
import errno
import os
import traceback
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAILURES = (
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zlib.error,
)
"""What libraries raise on damaged files, odd sizes, full disks or parts that are missing; no interruption."""

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
# of torch, the loader of libraries, C++ and Rust, whose errors have no type of their own
_NO_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",
    "failed to map segment",
    "bad_alloc",
    "memory allocation of",
    "out of memory",
    "not enough memory",
)
_FIXES = {"no locator available": "set NUMBA_CACHE_DIR to a folder that can be written"}
FEWER_GENES = "fewer genes (--n-top-genes) need less"


@contextlib.contextmanager
def optional(what: str, say: Callable[[str], None]) -> Iterator[None]:
    """Do without what fails inside, the result called `what` (such as ``"umap.png"``), and `say` so in a line.

    What fails since the disk takes no more is an error, since nothing else could be written either, and so is what a
    library makes of an interruption.
    """
    try:
        yield
    except FAILURES as error:
        if disk_error(error) is not None or any(isinstance(each, KeyboardInterrupt) for each in causes(error)):
            raise
        _show_traceback()
        text = one_line(error)
        fix = next((fix for sign, fix in _FIXES.items() if sign in text), None)
        say(f"There is no {what}: {text}" + (f" - {fix}" if fix else ""))


def disk_error(error: BaseException) -> int | None:
    """Number of the system's error where a disk takes no more, if this is what an error tells of."""
    for each in causes(error):
        for number in _DISK:
            if getattr(each, "errno", None) == number or os.strerror(number) in str(each):
                return number
    return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from or during, and so on."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def says_no_memory(text: str) -> bool:
    """Whether a text tells that there was no more memory."""
    text = text.lower()
    return any(sign in text for sign in _NO_MEMORY)


def one_line(error: BaseException) -> str:
    """Type and text of an error."""
    return " ".join(f"{type(error).__name__}: {_text(error)}".split())


def told(error: BaseException) -> str:
    """What an error says; with its type, and how to see more, where it was not raised to be read."""
    _show_traceback()
    text = " ".join(_text(error).split())
    if isinstance(error, MemoryError) or says_no_memory(text):
        return f"the memory does not suffice; {FEWER_GENES}. {text}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = bool(frames) and Path(frames[-1].filename).is_relative_to(Path(__file__).parent)
    if text and (isinstance(error, OSError | ImportError) or (ours and " " in text)):
        return text
    return f"{one_line(error)} (RAPTORGRAPH_DEBUG=1 shows where)"


def _show_traceback() -> None:
    if os.environ.get("RAPTORGRAPH_DEBUG"):
        traceback.print_exc()


def _text(error: BaseException) -> str:
    # the text of a KeyError would come in quotes
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)
