"""Bars: where they are shown, what they count, and that they leave nothing behind."""

import contextlib
import io
import logging
import re
import sys
import time
import warnings
from pathlib import Path

import pytest
import rich

from raptorgraph import _progress
from raptorgraph._logging import quietly
from raptorgraph._progress import (
    progress_argument,
    progress_bar,
    progress_default,
    progress_line,
    shows_progress,
    track,
)


def test_a_bar_counts_and_is_gone_at_the_end(in_terminal):
    with in_terminal() as terminal:
        with progress_bar("Work", 4) as advance:
            for _ in range(4):
                time.sleep(0.05)
                advance()
        assert terminal.bars() == {("Work", 4)}
        counts = [int(n) for n in re.findall(r"(\d)/4 \[", terminal.getvalue())]
        assert counts == sorted(counts)
        assert {0, 3} <= set(counts)
        *_, last, empty = terminal.getvalue().split("\r")
        assert last.strip() == empty == ""


def test_items_are_counted(in_terminal):
    with in_terminal() as terminal:
        assert list(track(iter("abc"), "Letters", total=3)) == ["a", "b", "c"]
        assert list(track([1, 2], "Numbers")) == [1, 2]
        assert terminal.bars() == {("Letters", 3), ("Numbers", 2)}


def test_work_without_steps_shows_the_time(in_terminal):
    with in_terminal() as terminal:
        with progress_bar("Work"):
            time.sleep(0.05)
        assert terminal.lines() == {"Work"}


def test_short_work_shows_nothing(in_terminal, monkeypatch):
    with in_terminal() as terminal:
        monkeypatch.setattr(_progress, "DELAY", 60.0)
        start = time.perf_counter()
        assert list(track(range(3), "Work")) == [0, 1, 2]
        assert terminal.getvalue() == ""
        assert time.perf_counter() - start < 30


def test_errors_and_broken_loops_end_the_bar(in_terminal):
    with in_terminal() as terminal:
        with pytest.raises(ValueError, match="stop"), progress_bar("Work", 2):
            raise ValueError("stop")
        for _ in track(range(3), "Loop"):
            break
        written = terminal.getvalue()
        time.sleep(0.05)
        assert terminal.getvalue() == written


def test_output_that_is_redirected_meanwhile_does_not_take_the_bar(in_terminal):
    with in_terminal() as terminal:
        with progress_bar("Work", 2), contextlib.redirect_stderr(io.StringIO()) as other:
            time.sleep(0.05)
        assert terminal.bars() == {("Work", 2)}
        assert other.getvalue() == ""


def test_only_where_someone_sees_it(in_terminal, monkeypatch):
    with in_terminal():
        assert shows_progress()
        assert not shows_progress(False)
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        assert not shows_progress()
        assert shows_progress(True)
        monkeypatch.setattr(rich.get_console(), "is_jupyter", True)
        assert shows_progress()


@pytest.mark.parametrize("name", ["raptorgraph", "scvi"])
def test_not_where_the_user_wants_to_hear_less(in_terminal, monkeypatch, name):
    with in_terminal():
        monkeypatch.setattr(logging.getLogger(name), "level", logging.WARNING)
        assert not shows_progress()
        assert shows_progress(True)


def test_a_default_holds_for_what_is_inside(in_terminal):
    with in_terminal():
        with progress_default(False):
            assert not shows_progress()
            assert shows_progress(True)
            with progress_default(None):
                assert not shows_progress()
        with progress_bar("Work"):
            assert not shows_progress()  # one bar at a time
        assert shows_progress()


@pytest.mark.parametrize("decorate", [progress_argument(), progress_line("Work"), quietly])
def test_warnings_come_from_the_package(decorate):
    @decorate
    def work():
        warnings.warn("Few cells.", UserWarning, stacklevel=2)  # of the caller

    with pytest.warns(UserWarning, match="Few cells") as caught:
        work()
    assert Path(caught[0].filename).is_relative_to(Path(_progress.__file__).parent)


def test_an_argument_decides_for_what_is_inside(in_terminal):
    @progress_argument()
    def shown(*, progress=None):
        return shows_progress()

    with in_terminal():
        assert shown()
        assert not shown(progress=False)
    assert shown(progress=True)
    assert not shown()
