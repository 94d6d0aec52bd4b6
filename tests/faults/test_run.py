"""Runs that are killed, that find no room, no memory or no home, and two at once."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

STAGES = ("network", "tables", "graph", "gene sets", "cells", "figures", "report")
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}
RESUMED = "whole files alone; the same command gives the results of an unbroken run"
KEPT = "exit code 2, one line; " + RESUMED


def killed_in(stage, part, number, screen, tools, folder, *, real=False):
    """Start a run, and end it after a part of the time that a stage takes; its exit code and stderr."""
    process = screen.command.start(folder, real=real)
    holder = folder / "out" / ".run" / "holder.json"

    def begun():
        if not holder.exists():
            return False
        with contextlib.suppress(FileNotFoundError, ValueError):  # one that a killed run left is written anew
            pid = json.loads(holder.read_text())["pid"]
            ours = pid in tools["family"](process.pid)
            return ours and set(STAGES[: STAGES.index(stage)]) <= set(tools["manifest"](folder)["stages"])
        return False

    tools["until"](begun, process)
    time.sleep(part * screen.manifest["stages"][stage]["seconds"])
    process.send_signal(number)
    _, err = process.communicate()
    return process.returncode, err


@pytest.mark.parametrize("k", range(6))
def test_kills(k, screen, tools, record, tmp_path):
    """In each stage, one after the other: what is killed next is what goes on."""
    for stage in STAGES:
        # the last ones as users have them, where the process that waits is killed, and takes the other along
        code, _ = killed_in(stage, (k + 0.5) / 6, signal.SIGKILL, screen, tools, tmp_path, real=k == 5)
        assert code in (-signal.SIGKILL, 0)
        tools["check_whole"](tmp_path)
        record("SIGKILL of `run`", stage, RESUMED)
    screen.check_resumed(tmp_path)
    assert not list((tmp_path / "out").glob(".raptorgraph-*"))


@pytest.mark.parametrize("number", SIGNALS)
def test_interruptions(number, screen, tools, record, tmp_path):
    for stage in STAGES:
        code, err = killed_in(stage, 0.5, number, screen, tools, tmp_path)
        assert code in (SIGNALS[number], 0)
        if code:
            word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[number]
            assert err == f"error: {word}; the same command goes on where it stopped\n"
            assert not list((tmp_path / "out").glob(".raptorgraph-*"))
        tools["check_whole"](tmp_path)
        record(f"{number.name} of `run`", stage, f"exit code {SIGNALS[number]}, one line; {RESUMED}")
    screen.check_resumed(tmp_path)


def test_files_that_may_not_grow(screen, tools, record, tmp_path):
    """As on a full disk, each write beyond a size fails; ten sizes, one after the other."""
    sizes = sorted({path.stat().st_size for path in (screen.folder / "out").rglob("*") if path.is_file()})
    for k in range(10):
        limit = max(1, int(0.8 * sizes[(k * (len(sizes) - 1)) // 9]))
        code, _, err = screen.command.run(
            tmp_path, begin=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        )
        assert code == 2
        assert err.count("\n") == 1
        assert err.startswith("error: [Errno 27] File too large: ")
        tools["check_whole"](tmp_path)
        assert not list((tmp_path / "out").glob(".raptorgraph-*"))
        record("no file may be larger than a limit", "ten limits", KEPT)
    screen.check_resumed(tmp_path)


def test_full_disk(screen, tools, record, tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        for size in ("64k", "300k", "600k"):
            subprocess.run(["mount", "-o", f"remount,size={size}", tmp_path], check=True)
            code, _, err = screen.command.run(tmp_path)
            assert code == 2
            assert err.startswith("error: [Errno 28] ")
            assert err.count("\n") == 1
            tools["check_whole"](tmp_path)
            record("full disk", "three sizes", KEPT)
        subprocess.run(["mount", "-o", "remount,size=100m", tmp_path], check=True)
        screen.check_resumed(tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_full_disk_costs_no_earlier_results(screen, tools, record, tmp_path):
    screen.command.finish(tmp_path)
    before = tools["results"](tmp_path)
    limit = resource.RLIMIT_FSIZE
    code, _, err = screen.command.run(
        tmp_path, "--seed", "1", "--overwrite", begin=lambda: resource.setrlimit(limit, (20_000, 20_000))
    )
    assert code == 2
    assert "File too large" in err
    assert tools["results"](tmp_path) == before
    record(
        "no file may be larger than a limit", "`--overwrite`", "exit code 2, one line; the earlier results as they were"
    )


@pytest.mark.parametrize("k", range(4))
def test_two_at_once(k, screen, tools, record, tmp_path):
    processes = [screen.command.start(tmp_path) for _ in range(2)]
    ended = [(*process.communicate(), process.returncode) for process in processes]
    assert sorted(code for *_, code in ended) == [0, 2]
    (err,) = [err for _, err, code in ended if code]
    assert err.startswith("error: 'out' is written to by process ")
    assert err.count("\n") == 1
    screen.check_same(tmp_path)
    record(
        "two runs at once", "one folder", "one finishes; the other has exit code 2 and one line that names the first"
    )


def test_a_used_folder(screen, tools, record, tmp_path):
    screen.command.finish(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    code, _, err = screen.command.run(tmp_path, "--seed", "1")
    assert code == 2
    assert err.startswith("error: 'out' has the results of another run, with seed 0 and not 1: ")
    assert err.count("\n") == 1
    code, out, err = screen.command.run(tmp_path)
    assert (code, err) == (0, "")
    assert out.startswith("All is in out already.")
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert {path.name for path in before if after[path] != before[path]} <= {".run"}
    screen.check_same(tmp_path)
    record("a folder with results", "`run` with another seed", "exit code 2, one line that says what differs")
    record("a folder with results", "the same command", "shown again; nothing is done anew")


def test_a_folder_that_cannot_be_written(screen, record, tmp_path):
    (tmp_path / "out").mkdir(mode=0o555)
    mounted = os.access(tmp_path / "out", os.W_OK)
    if mounted:  # this user may write anywhere, but for what is mounted to be read
        mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", tmp_path / "out"]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("this user may write anywhere, and mount nothing")
    try:
        code, out, err = screen.command.run(tmp_path)
    finally:
        if mounted:
            subprocess.run(["umount", tmp_path / "out"], check=True)
    assert code == 2
    assert err == "error: 'out' cannot be written to: choose another directory for the results.\n"
    assert "Training" not in out
    record("read-only folder", "`run`", "exit code 2, one line, before the training")


def test_no_home(screen, record, tmp_path):
    names = ("HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    code, _, err = screen.command.run(tmp_path, environment=environment | {"HOME": "/nowhere", "OMP_NUM_THREADS": "1"})
    assert (code, err) == (0, "")
    screen.check_resumed(tmp_path)
    record("no home folder", "`run`", "the results of an unbroken run")


@pytest.fixture(scope="module")
def peak(screen, tools, tmp_path_factory):
    """Largest address space of a run, in bytes."""
    process, peak = screen.command.start(tmp_path_factory.mktemp("peak"), real=True), 0
    while process.poll() is None:
        for pid in tools["family"](process.pid)[1:]:  # the first one waits
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
                peak = max([peak, *(1024 * int(line.split()[1]) for line in lines if line.startswith("VmPeak"))])
        time.sleep(0.05)
    process.communicate()
    return peak


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9, 0.95])
def test_little_memory(share, peak, screen, tools, record, tmp_path):
    limit = int(share * peak)
    code, _, err = screen.command.run(
        tmp_path, real=True, begin=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    )
    assert code in (0, 2, *(128 + number for number in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGKILL)))
    assert err.count("\n") == (code != 0)
    if code:
        assert err.startswith("error: the memory does not suffice")
    tools["check_whole"](tmp_path)
    screen.check_resumed(tmp_path)
    ended = "exit code 0, or with one line that says memory 2 or 128 and the number of a signal; "
    record("a limit of memory", f"{share:.0%} of what it takes", ended + RESUMED)


def test_memory_that_the_system_takes_back(screen, tools, record, tmp_path):
    """As the system does where memory runs out: it kills the process that has most of it."""
    process = screen.command.start(tmp_path, real=True)
    tools["until"](lambda: "network" in tools["manifest"](tmp_path)["stages"], process)
    os.kill(tools["family"](process.pid)[1], signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGKILL
    assert err.startswith("error: SIGKILL ended the work, as the system does where memory runs out; fewer genes ")
    assert err.count("\n") == 1
    tools["check_whole"](tmp_path)
    screen.check_resumed(tmp_path)
    record("SIGKILL of the process that works", "`run`", "exit code 137, one line that says memory; " + RESUMED)
