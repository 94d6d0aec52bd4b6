"""The command line in a process of its own, so that its end is told in a line, however it comes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING

from raptorgraph._failures import FEWER_GENES, says_no_memory

if TYPE_CHECKING:
    from collections.abc import Collection

_PASSED_ON = (signal.SIGINT, signal.SIGTERM)
_END_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux
_UNCAUGHT = 1  # exit code of Python after an error that nobody caught; the command itself has no such code
_LONGEST = 200  # characters of what a library said


def main() -> int:
    """Run the command line in a process of its own, and return its exit code.

    A library in C++ that gets no memory ends its process, as the system does with what takes too much: then nothing
    within can say so. This process, which needs next to no memory, waits for the other, passes signals on to it and
    ends with it. What is written to stderr by other means than Python's is shown after a good end alone.

    Returns
    -------
    int
        Exit code of :func:`raptorgraph.cli.main`; or with one line on stderr 128 and the number of the signal that
        ended the work (137 where the system took the memory back, 134 where a library gave up), and 2 after an error
        that nobody caught. Other systems than Linux run the command line in this process.
    """
    if sys.platform != "linux":
        return _work()
    parent = os.getpid()
    try:
        noise = os.memfd_create("stderr")
    except OSError:  # a kernel that does without
        return _work()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored nobody learns how a child ended
    waited_for = {signal.SIGCHLD, *(number for number in _PASSED_ON if signal.getsignal(number) != signal.SIG_IGN)}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    try:
        pid = os.fork()
    except OSError:  # as many processes as there may be
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return _work()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _begin(parent, noise)
        return _work()
    code = _wait(pid, waited_for)
    said = os.pread(noise, os.fstat(noise).st_size, 0).decode(errors="replace")
    if code == 0 or os.environ.get("RAPTORGRAPH_DEBUG"):
        sys.stderr.write(said)
    if code >= 0 and code != _UNCAUGHT:
        return code
    import resource  # which Windows does not have

    limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    print(f"error: {_words(max(-code, 0), said, limited=limited)}", file=sys.stderr)
    return 128 - code if code < 0 else 2


def _work() -> int:
    from raptorgraph.cli._commands import main  # here, since the process that waits needs none of it

    return main()


def _begin(parent: int, noise: int) -> None:
    """In the new process: end with the one that waits, and keep apart what libraries write to stderr by themselves."""
    ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it has ended before that
        os._exit(_UNCAUGHT)
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError):  # a stderr that is closed
        shown, encoding = os.dup(2), sys.stderr.encoding
        os.dup2(noise, 2)
        sys.stderr = os.fdopen(shown, "w", buffering=1, encoding=encoding, errors="backslashreplace")
    sys.excepthook = _hide


def _hide(*error: object) -> None:
    """Leave the last words to the process that waits."""
    sys.stderr = sys.__stderr__
    sys.__excepthook__(*error)  # type: ignore[arg-type]


def _wait(pid: int, numbers: Collection[signal.Signals]) -> int:
    """Exit code of a child, negative where a signal ended it; signals are passed on to it."""
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        found = signal.sigwaitinfo(numbers)
        # A terminal sends its signals to all processes by itself: those have the code of the system, above 0.
        if found.si_signo != signal.SIGCHLD and found.si_code <= 0:
            os.kill(pid, found.si_signo)


def _words(number: int, said: str, *, limited: bool) -> str:
    """What ended the work: a signal by its number, or 0 for an error; with the last that was said."""
    what = f"{signal.Signals(number).name} ended the work" if number else "the work failed"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = f" ({lines[-1][:_LONGEST]})" if lines else ""
    if limited or says_no_memory(said):
        what = f"the memory does not suffice, {what}{last}; {FEWER_GENES}"
    elif number == signal.SIGKILL:
        what = f"{what}, as the system does where memory runs out{last}; {FEWER_GENES}"
    else:
        what += last
    return f"{what}; the same command goes on where it stopped"
