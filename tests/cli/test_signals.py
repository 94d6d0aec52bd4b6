"""Interruptions from outside end a command with one line and the code of the signal."""

import contextlib
import os
import signal
import sys
import threading

import pytest

from raptorgraph.cli import _run, _signals
from raptorgraph.cli._commands import main
from raptorgraph.cli._signals import interruptible

CODES = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}


def as_it_is():
    raise KeyboardInterrupt


def as_an_exit():
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


def as_a_name():
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        raise NameError("name 'exit' is not defined") from error


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("library", [None, as_an_exit, as_a_name])
def test_a_signal_ends_a_command_in_one_line(number, library, tmp_path, capsys, monkeypatch):
    def demo(out, **options):
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        except KeyboardInterrupt:
            if library is None:
                raise
        library()

    monkeypatch.setattr(_run, "demo", demo)
    before = [signal.getsignal(each) for each in CODES]
    code, word = CODES[number]
    assert main(["demo", "--out", str(tmp_path / "out")]) == code
    assert capsys.readouterr() == ("", f"error: {word}; the same command goes on where it stopped\n")
    assert [signal.getsignal(each) for each in CODES] == before


@pytest.mark.parametrize("library", [as_it_is, as_an_exit, as_a_name])
def test_an_interruption_that_came_otherwise_counts_too(library, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_run, "demo", lambda **options: library())
    assert main(["demo", "--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "error: interrupted; the same command goes on where it stopped\n"


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible() as came:
            os.kill(os.getpid(), signal.SIGINT)
        assert came == []
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_the_signals_alone():
    found = []

    def work():
        with interruptible() as came:
            found.append((came, signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [([], before)]


def test_a_signal_that_comes_twice_at_once_counts_once(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(_signals.time, "monotonic", lambda: now[0])
    with interruptible() as came:
        for later, expected in ((0.0, True), (0.2, False), (0.9, True), (0.9, False)):
            now[0] += later
            with pytest.raises(KeyboardInterrupt) if expected else contextlib.nullcontext():
                os.kill(os.getpid(), signal.SIGTERM)
    assert came == [signal.SIGTERM] * 2
