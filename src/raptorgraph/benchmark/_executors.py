"""Where the units of an experiment are done: processes of this machine, or of a cluster of Dask or Ray."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raptorgraph._arguments import check_choice
from raptorgraph.baselines._peer_calls import THREADS
from raptorgraph.baselines.peers.run_adapter import end_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future

_PACKAGES = {"processes": None, "dask": "distributed", "ray": "ray"}
EXECUTORS = tuple(_PACKAGES)


def check_executor(name: str, n_jobs: int | None) -> str:
    """Name of an executor whose package is installed."""
    package = _PACKAGES[check_choice("executor", name, EXECUTORS)]
    if package is not None and find_spec(package) is None:
        raise ImportError(f"executor={name!r} needs the package {package}: pip install {package}")
    if package is not None and n_jobs == 0:
        raise ValueError(f"n_jobs=0 does everything in this process: leave it out with executor={name!r}.")
    return name


@contextlib.contextmanager
def pool(name: str, n_jobs: int, n_threads: int) -> Iterator[Callable[..., Future[Any]]]:
    """Function that has another one called in a process of its own, with `n_threads` threads, `n_jobs` at a time.

    The cluster of Dask is the one of ``DASK_SCHEDULER_ADDRESS``, that of Ray the one of ``RAY_ADDRESS``: they say how
    much is done at a time. Without these variables, one is started on this machine. What is called writes its results
    to files, so workers on other machines must have the same folders.
    """
    with {"processes": _processes, "dask": _dask, "ray": _ray}[name](n_jobs, n_threads) as submit:
        yield submit


@contextlib.contextmanager
def _processes(n_jobs: int, n_threads: int) -> Iterator[Callable[..., Future[Any]]]:
    others = active_children()
    with (
        environment(_threads(n_threads)),
        # a fresh process each: no state of one unit reaches another, and memory is its own
        ProcessPoolExecutor(
            n_jobs,
            mp_context=get_context("spawn"),
            max_tasks_per_child=1,
            initializer=_begin,
            initargs=(os.getpid(),),
        ) as executor,
    ):
        try:
            yield executor.submit
        except BaseException:  # nobody waits for what is being done
            for child in active_children():
                if child not in others:
                    child.kill()
            raise


@contextlib.contextmanager
def _dask(n_jobs: int, n_threads: int) -> Iterator[Callable[..., Future[Any]]]:
    import dask
    from distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:
        address = dask.config.get("scheduler-address", None)
        if address is None:
            address = stack.enter_context(
                LocalCluster(n_workers=n_jobs, threads_per_worker=1, dashboard_address=None, memory_limit=0)
            )
        executor = stack.enter_context(Client(address)).get_executor(pure=False)
        yield lambda function, *arguments: executor.submit(apart, n_threads, function, *arguments)


@contextlib.contextmanager
def _ray(n_jobs: int, n_threads: int) -> Iterator[Callable[..., Future[Any]]]:
    import ray

    started = not ray.is_initialized()
    if started:
        size = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": n_jobs * n_threads}
        ray.init(include_dashboard=False, log_to_driver=False, **size)
    remote = ray.remote(num_cpus=n_threads)(apart)
    try:
        yield lambda function, *arguments: remote.remote(n_threads, function, *arguments).future()
    finally:
        if started:
            ray.shutdown()


def _begin(parent: int) -> None:
    """Leave interruptions of the terminal to the process that waits, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)


def apart(n_threads: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Result of a function that is called in a fresh Python, as a worker of a cluster keeps what it has imported.

    RuntimeError, with the end of what it wrote to stderr, where it ends without a result.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder, "asked"), Path(folder, "answer")
        asked.write_bytes(pickle.dumps((function, arguments)))
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(asked), str(answer), str(os.getpid())],
            env={**os.environ, **_threads(n_threads)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if not answer.exists():
            last = done.stderr.strip().splitlines()[-1:] or [f"it ended with exit code {done.returncode}"]
            raise RuntimeError(f"A process ended without a result: {last[0]}")
        return pickle.loads(answer.read_bytes())


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, which the processes that start meanwhile inherit."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _threads(n_threads: int) -> dict[str, str]:
    return dict.fromkeys(THREADS, str(n_threads))


def _answer(asked: str, answer: str, parent: str) -> None:
    end_with(int(parent))
    function, arguments = pickle.loads(Path(asked).read_bytes())
    found = pickle.dumps(function(*arguments))
    Path(answer).write_bytes(found)


if __name__ == "__main__":
    _answer(*sys.argv[1:])
