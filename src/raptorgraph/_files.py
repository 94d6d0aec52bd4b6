"""Files and folders that are put in place as a whole, so that no error, interruption or kill leaves a part of one."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raptorgraph._failures import disk_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from anndata import AnnData

_START = ".raptorgraph"  # of the names of what is not finished
_TABLES_OF_HDF5 = 2**16  # bytes of a file beside its values, about
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Name to write a file or a folder to, which takes the place of `path` once the block has ended without an error.

    The name is a hidden one in the same folder, with the suffix of `path`. What is written is flushed to the disk and
    then renamed, which no kill can cut in two. After an error, interruptions included, what was at `path` is as it was,
    and what was written is gone. What a killed process left in the folder is removed by the next one that writes there.

    Parameters
    ----------
    path
        File or folder, there or not; its parent must be there. A link stays and what it leads to is replaced. What is
        neither file nor folder, such as a pipe, is written to directly.

    Raises
    ------
    OSError
        Where the disk takes no more, in place of what a library makes of that; names the file.
    PermissionError
        If there is a file that must not be written, before the block.

    Examples
    --------
    >>> from pathlib import Path
    >>> from raptorgraph._files import replaced
    >>> with replaced("table.csv") as part:
    ...     _ = part.write_text("a,b")
    >>> [path.name for path in Path().iterdir()]
    ['table.csv']
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not (path.is_file() or path.is_dir()):
        yield path
        return
    if path.is_file() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    _remove_stale(path.parent)
    part = temporary_name(path)
    try:
        yield part
        if path.is_file() and part.is_file():
            shutil.copymode(path, part)
        for written in (part, *(part.rglob("*") if part.is_dir() else ())):
            _flush(written)
        put(part, path)
    except BaseException as error:
        remove(part)
        number = disk_error(error) if isinstance(error, Exception) else None
        if number is None:
            raise
        # of many libraries each has its own words for it, and none names the file
        raise OSError(number, os.strerror(number), str(path)) from error
    _flush(path.parent)


def put_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file (UTF-8), in place of an earlier one, as :func:`replaced` does."""
    with replaced(path) as part:
        part.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Make a folder within another one for the time of the block, for what is of no use after it."""
    _remove_stale(folder)
    made = temporary_name(folder / "scratch")
    made.mkdir()
    try:
        yield made
    finally:
        remove(made)


def put_table(
    path: str | os.PathLike[str], table: pd.DataFrame, *, index: bool = False, digits: int | None = 6
) -> None:
    """Write a table as CSV, in place of an earlier file; numbers with so many digits, None for all of them."""
    with replaced(path) as part:
        table.to_csv(part, index=index, float_format=None if digits is None else f"%.{digits}g")


def write_h5ad(part: Path, cells: AnnData, **arguments: Any) -> None:
    """Write an h5ad file to a name that :func:`replaced` gave, once the disk has taken about as many bytes.

    An HDF5 file that finds no room cannot be closed either, and may end the process without a word.
    """
    if arguments.get("compression") is None:
        check_takes(part, cells.__sizeof__() + _TABLES_OF_HDF5)
    cells.write_h5ad(part, **arguments)


def check_takes(path: Path, n_bytes: int) -> None:
    """OSError where the disk does not take a file of this size under a name that is free; it is gone afterwards."""
    if path.exists():
        return
    try:
        path.touch()
        reserve(path, n_bytes)
    finally:
        path.unlink(missing_ok=True)


def reserve(path: Path, n_bytes: int) -> None:
    """Have the disk take a file that is being written up to this size, before a library writes so far.

    Raises
    ------
    OSError
        Where the disk, a quota or a limit of the size of files does not allow it.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("rb+") as file:
        size = os.fstat(file.fileno()).st_size
        if size >= n_bytes:
            return
        try:
            os.posix_fallocate(file.fileno(), size, n_bytes - size)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOTSUP):  # a file system that knows no such thing
                return
            raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error


def temporary_name(path: Path) -> Path:
    """Name beside `path` for what is gone before this process ends; names the machine and the process."""
    return path.with_name(f"{_START}-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_running(pid: int) -> bool:
    """Whether a process of this machine runs."""
    if sys.platform == "win32":  # where asking would interrupt it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's; no number of a process
        return True
    return True


def _machine() -> str:
    """Few letters for the name of this machine, since folders are shared between machines."""
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _remove_stale(folder: Path) -> None:
    """Remove what processes of this machine that have ended left unfinished in a folder."""
    name = re.compile(rf"{re.escape(_START)}-{_machine()}-(\d+)-[0-9a-f]{{8}}(\..*)?")
    for path in folder.glob(f"{_START}-*"):
        found = name.fullmatch(path.name)
        if found and not is_running(int(found[1])):
            with contextlib.suppress(OSError):  # somebody else's, or removed meanwhile: it stands in nobody's way
                remove(path)


def _flush(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    if sys.platform == "win32":  # which opens no folders, and flushes only what is open for writing
        return
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that knows no flushing
            raise
    finally:
        os.close(opened)


def put(part: Path, path: Path) -> None:
    """Let a file or folder take the place of another of its kind, or of none, on the same disk."""
    if not (part.is_dir() and path.is_dir()):
        part.replace(path)
    elif _exchanged(part, path):
        remove(part)
    else:  # a folder takes no place of another: the earlier one comes back if this one cannot be put there
        before = temporary_name(path)
        path.replace(before)
        try:
            part.replace(path)
        except BaseException:
            before.replace(path)
            raise
        remove(before)


def _exchanged(first: Path, second: Path) -> bool:
    """Exchange two folders in a single call, and whether the system can."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and bool(rename(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0)


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Checksum of a file, in hexadecimal digits; of a folder that of the names and contents of its files in order."""
    digest = hashlib.new(algorithm)
    for file in sorted(name for name in path.rglob("*") if name.is_file()) if path.is_dir() else [path]:
        if file != path:
            digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as opened:
            while chunk := opened.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder; 0 where there is none."""
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())
