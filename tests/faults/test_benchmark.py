"""Benchmarks whose processes are killed."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
]

TABLES = ("losses.csv", "losses.md", "losses.json")


@pytest.fixture(scope="module")
def unbroken(tools, tmp_path_factory):
    """The command, its tables when nothing befalls it, and the seconds that it takes."""
    folder = tmp_path_factory.mktemp("benchmark")
    command = tools["Command"](
        ["benchmark", "losses", "--quick", "--seeds", 3, "--n-jobs", 2, "--out", "out"], real=True
    )
    start = time.monotonic()
    command.finish(folder)
    return command, {name: (folder / "out" / name).read_bytes() for name in TABLES}, time.monotonic() - start


def ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def kill_a_worker(process, family):
    """Kill one of its workers, or the next that starts; nothing where it ends without another one.

    The tracker of shared resources is no worker: what Python says when that one is killed is not ours to choose.
    """
    while process.poll() is None:
        for pid in family(process.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
                    return
        time.sleep(0.01)


@pytest.mark.parametrize("k", range(20))
def test_kills(k, unbroken, tools, record, tmp_path):
    command, tables, seconds = unbroken
    process = command.start(tmp_path)
    time.sleep((k + 0.5) / 20 * seconds)
    number = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, "worker")[k % 4]
    members = tools["family"](process.pid)
    if number == "worker":
        kill_a_worker(process, tools["family"])
    else:
        process.send_signal(number)
    _, err = process.communicate()
    assert err.count("\n") <= 1
    end = time.monotonic() + 10
    while not all(map(ended, members)):
        assert time.monotonic() < end, "a process lives on"
        time.sleep(0.05)
    command.finish(tmp_path)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in TABLES} == tables
    where = "a worker" if number == "worker" else "the process that waits"
    fault = f"{'SIGKILL' if number == 'worker' else number.name} of `benchmark`"
    record(fault, where, "no process lives on; the same command gives the tables of an unbroken one")


@pytest.mark.parametrize("content", [b"", b"half"])
def test_parts_that_are_damaged(content, unbroken, record, tmp_path):
    command, tables, _ = unbroken
    command.finish(tmp_path)
    for path in (tmp_path / "out" / "parts" / "losses").iterdir():
        path.write_bytes(content)
    command.finish(tmp_path)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in TABLES} == tables
    record("damaged parts", "`benchmark`", "made anew, to the same tables")
