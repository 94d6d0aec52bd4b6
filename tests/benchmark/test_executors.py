"""Units of work on this machine, on Dask and on Ray."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import as_completed
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from raptorgraph.benchmark import _runner
from raptorgraph.benchmark._executors import EXECUTORS, apart, check_executor, pool

INSTALLED = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(package is not None and find_spec(package) is None, reason=f"needs {package}"),
    )
    for name, package in {"processes": None, "dask": "distributed", "ray": "ray"}.items()
]


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.filterwarnings("default")  # those of Dask and Ray are not ours to mend
def test_calls_have_processes_and_threads_of_their_own(name):
    with pool(name, 2, 3) as submit:
        processes = {submit(os.getpid): None for _ in range(3)}
        threads = submit(os.getenv, "OMP_NUM_THREADS")
        failing = submit(int, "no number")
        found = [future.result() for future in as_completed(processes)]
        assert threads.result() == "3"
        with pytest.raises((ValueError, RuntimeError), match="invalid literal for int"):
            failing.result()
    assert len({*found, os.getpid()}) == 4


@pytest.mark.slow
@pytest.mark.skipif(find_spec("distributed") is None, reason="needs distributed")
@pytest.mark.filterwarnings("default")
def test_a_cluster_gives_what_this_process_gives(tmp_path):
    options = {"seeds": [0], "quick": True, "progress": False}
    cluster = _runner.run("losses", out=tmp_path / "cluster", n_jobs=2, executor="dask", **options)
    here = _runner.run("losses", out=tmp_path / "here", n_jobs=0, **options)
    for name in here:
        pd.testing.assert_frame_equal(cluster[name], here[name])


@pytest.mark.skipif(find_spec("distributed") is None, reason="needs distributed")
@pytest.mark.filterwarnings("default")
def test_the_cluster_of_the_environment_is_used(monkeypatch):
    import dask
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        dask.config.set({"scheduler-address": cluster.scheduler_address})
        try:
            with pool("dask", 1, 1) as submit:
                assert submit(len, "abc").result() == 3
                assert len(cluster.scheduler.clients) > 1  # the cluster's own, and this one
        finally:
            dask.config.set({"scheduler-address": None})


def test_a_process_that_ends_without_a_result_says_so():
    with pytest.raises(RuntimeError, match="without a result: it ended with exit code 3"):
        apart(1, os._exit, 3)


def test_what_cannot_be_is_refused_before_any_work(tmp_path, monkeypatch):
    assert EXECUTORS == ("processes", "dask", "ray")
    with pytest.raises(ValueError, match="executor='slurm' is unknown; use one of 'processes', 'dask', 'ray'"):
        _runner.run("losses", out=tmp_path, executor="slurm")
    monkeypatch.setattr("raptorgraph.benchmark._executors.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="executor='dask' needs the package distributed: pip install distributed"):
        _runner.run("losses", out=tmp_path, executor="dask")
    monkeypatch.setattr("raptorgraph.benchmark._executors.find_spec", lambda name: name)
    with pytest.raises(ValueError, match="n_jobs=0 does everything in this process"):
        check_executor("ray", 0)
    assert not list(tmp_path.iterdir())


SCRIPT = """
import os, sys, time
from pathlib import Path
from raptorgraph.benchmark._executors import pool
from raptorgraph.cli._signals import interruptible

def work(folder):
    Path(folder, str(os.getpid())).touch()
    time.sleep(100)

if __name__ == "__main__":
    with interruptible(), pool("processes", 2, 1) as submit:
        [each.result() for each in [submit(work, sys.argv[1]) for _ in range(4)]]
"""


def runs(pid):
    """Whether a process is there and has not ended, waited for or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_process_that_waits_for_them(number, tmp_path):
    script, folder = tmp_path / "script.py", tmp_path / "workers"
    script.write_text(SCRIPT)
    folder.mkdir()
    with subprocess.Popen([sys.executable, script, folder], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: len(list(folder.iterdir())) == 2)
            process.send_signal(number)
            process.wait(30)
        finally:
            process.kill()
    pids = [int(path.name) for path in folder.iterdir()]
    wait_for(lambda: not any(map(runs, pids)))
    assert len(list(folder.iterdir())) == 2  # no other work was begun
