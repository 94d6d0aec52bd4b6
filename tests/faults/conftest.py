"""Commands in processes of their own, and a table of what befell them and how they ended."""

import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch

from raptorgraph import datasets
from raptorgraph._files import file_hash, put_table
from raptorgraph.model import RaptorGraphModel

_ROWS = pytest.StashKey[list]()
_CHANGES = (rb"<dt>(date|times)</dt><dd>.*?</dd>", rb" on \d\d \w+ \d{4}\.")  # what differs from run to run


def pytest_configure(config):
    config.stash[_ROWS] = []


def pytest_sessionfinish(session):
    """With $RAPTORGRAPH_FAULTS, a folder, write the table of the faults."""
    folder, rows = os.environ.get("RAPTORGRAPH_FAULTS"), session.config.stash[_ROWS]
    if folder and rows:
        Path(folder).mkdir(parents=True, exist_ok=True)
        counted = [(fault, where, n, ended) for (fault, where, ended), n in Counter(rows).items()]
        put_table(Path(folder) / "faults.csv", pd.DataFrame(counted, columns=["fault", "where", "times", "ended in"]))


@pytest.fixture
def record(request):
    """Note a fault, where it fell, and how it ended; at the end of a test, which has checked that."""
    return lambda fault, where, ended: request.config.stash[_ROWS].append((fault, where, ended))


class Fork:
    """A function in a fork of this process, which has imported what it needs, with the methods of a Popen.

    The function is called in a folder, after `begin`, and what it returns is the exit code.
    """

    def __init__(self, function, folder, begin=None):
        self.returncode = None
        pipes = [os.pipe() for _ in range(2)]  # and no files, which a limit of the size of files would cut
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                os.chdir(folder)
                for number, (_, to) in enumerate(pipes, 1):
                    os.dup2(to, number)
                    os.close(to)
                sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
                if begin is not None:
                    begin()
                code = function()
            except BaseException:  # noqa: BLE001  the last place to show it
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        self._said, self._readers = [b"", b""], []
        for k, (source, to) in enumerate(pipes):
            os.close(to)
            self._readers.append(threading.Thread(target=self._read, args=(k, source), daemon=True))
            self._readers[k].start()

    def _read(self, k, source):
        with os.fdopen(source, "rb") as file:
            self._said[k] = file.read()

    def poll(self):
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if done else None
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout=120):
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.005)
        for reader in self._readers:
            reader.join(10)
        return tuple(said.decode() for said in self._said)


class Command:
    """A command of the package, into the folder ``out`` of the one it is started in.

    In a fork of this process, where nothing is to be imported anew, or else in a process as users have them (`real`).
    """

    def __init__(self, arguments, *, real=False):
        self.arguments, self.real = [str(argument) for argument in arguments], real

    def start(self, folder, *more, environment=None, begin=None, real=False):
        """`begin` is called in the new process, before its work."""
        if not (real or self.real or environment):
            from raptorgraph.cli._commands import main

            return Fork(lambda: main([*self.arguments, *more]), folder, begin)
        environment = os.environ | {"OMP_NUM_THREADS": "1"} if environment is None else environment
        return subprocess.Popen(
            [sys.executable, "-m", "raptorgraph", *self.arguments, *more],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=begin,  # noqa: PLW1509  there are no other threads
        )

    def run(self, folder, *more, **options):
        """Exit code, stdout and stderr."""
        process = self.start(folder, *more, **options)
        out, err = process.communicate()
        return process.returncode, out, err

    def finish(self, folder):
        """Run to the end, which must be a good one."""
        code, _, err = self.run(folder)
        assert code == 0, err


def import_all():
    """Import what a run imports, but start no threads, which a fork would not have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("cli._run", "report._write", "tl", "pl", "pp", "model", "datasets"):
            importlib.import_module(f"raptorgraph.{name}")
        for name in ("umap", "gseapy", "matplotlib.pyplot", "scanpy", "lightning.pytorch"):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


def family(pid):
    """A process and all that it has started, by their ids."""
    children = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] not in "ZX":
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def manifest(folder):
    """What is known of a run so far."""
    try:
        return json.loads((folder / "out" / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"stages": {}, "products": {}}


def results(folder):
    """What a run has written, without what differs from run to run."""
    found = {}
    for path in (folder / "out").rglob("*"):
        name = path.relative_to(folder / "out").as_posix()
        if not path.is_file() or name.startswith(".") or name == "run.json":
            continue
        found[name] = path.read_bytes()
        if path.suffix == ".html":
            for change in _CHANGES:
                found[name] = re.sub(change, b"", found[name], flags=re.DOTALL)
    return found


def weights(folder):
    """The numbers of a run's network, by name."""
    state = RaptorGraphModel.load(str(folder / "out" / "model"), adata=False).module.state_dict()
    return {name: value for name, value in state.items() if torch.is_tensor(value)}


def check_whole(folder):
    """Every file that has its name is one that the run has finished."""
    known = manifest(folder)["products"]
    for path in (folder / "out").iterdir() if (folder / "out").exists() else ():
        if not path.name.startswith(".") and path.name != "run.json":
            assert file_hash(path) in known[path.name], path.name


class Screen:
    """The command of a run of everything, and what it leaves when nothing befalls it."""

    def __init__(self, folder):
        import_all()
        adata = datasets.simulate(
            30, 3, n_doubles=2, n_control_cells=60, n_cells_per_perturbation=20, n_truth_cells=10, seed=3
        )
        adata.write_h5ad(folder / "screen.h5ad")
        genes = list(adata.var_names)
        sets = "".join(f"SET_{k}\tna\t" + "\t".join(genes[k::3]) + "\n" for k in range(3))
        (folder / "sets.gmt").write_text(sets)
        options = ["--max-epochs", 2, "--library-size-key", "total_counts", "--report", "--resamples", 2]
        sources = [folder / "screen.h5ad", "--gene-sets", folder / "sets.gmt"]
        self.command = Command(["run", *sources, "--out", "out", *options])
        self.command.finish(folder)
        self.manifest, self.results, self.weights = manifest(folder), results(folder), weights(folder)
        self.folder = folder

    def check_resumed(self, folder):
        """The same command goes on, to the results of an unbroken run."""
        self.command.finish(folder)
        self.check_same(folder)

    def check_same(self, folder):
        """The results are those of an unbroken run.

        Of processes that train with the same seed, some find weights that differ in the last bits. Then the files that
        rest on the network are not the same to the bit, and its weights are compared in their place.
        """
        found, expected = results(folder), self.results
        tables = {name for name in expected if name.endswith(".csv")}
        assert {name.partition("-")[0] for name in found} == {name.partition("-")[0] for name in expected}
        assert [name for name in tables if found[name] != expected[name]] == []
        ours = weights(folder)
        if all(ours[name].numpy().tobytes() == value.numpy().tobytes() for name, value in self.weights.items()):
            assert found == expected
        else:
            torch.testing.assert_close(ours, self.weights, equal_nan=True)


@pytest.fixture(scope="session")
def screen(tmp_path_factory):
    return Screen(tmp_path_factory.mktemp("unbroken"))


@pytest.fixture(scope="session")
def tools():
    """What tests of this folder share."""
    names = (Command, Fork, manifest, results, check_whole, until, family, import_all)
    return {each.__name__: each for each in names}


def until(condition, process, seconds=120):
    """Wait for a condition, or the end of a process."""
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.005)
