"""Other programs, with what they print kept in a log that an error names."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# what says how many threads a program may have
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_TAIL = 4096  # bytes of a log in which its last line is looked for
_OWN = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")  # of this Python


def call(
    what: str,
    argv: Sequence[str | Path],
    log: Path,
    *,
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> None:
    """Run a program to its end; with this process ends what it has started, whatever ends it.

    Parameters
    ----------
    what
        What it does, such as ``"GEARS"``, for the error.
    argv
        Program and arguments.
    log
        File that gets what it prints.
    folder
        Folder that it runs in.
    variables
        Environment variables beside those of this process, of which those of its Python are left out.
    timeout
        Seconds after which it is stopped; None for any number.

    Raises
    ------
    RuntimeError
        If it ends with another exit code than 0; with its last line, and the name of the log.
    TimeoutError
        If it takes longer; with the name of the log.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _OWN}
    environment |= {"PYTHONNOUSERSITE": "1", **(variables or {})}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=os.name != "nt",  # a group of its own, to be stopped as a whole
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{what} took longer than {timeout:g} s and was stopped; its log is {log}.") from None
        finally:
            _stop(process)
    if code:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise RuntimeError(f"{what} {how}: {last_line(log)} The whole log is {log}.")


def last_line(log: Path) -> str:
    """The last line of a log that is not empty, as a sentence."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    found = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
    return found if found.endswith((".", "!", "?")) else f"{found}."


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Kill what still runs of a program and of those that it has started."""
    if os.name == "nt":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing of it is left
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
