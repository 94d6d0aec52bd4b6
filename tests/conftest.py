"""What all tests share: no display, one thread, fixed seeds, and the folder of real screens."""

import contextlib
import inspect
import io
import json
import os
import random
import re
import socket
import struct
import sys
import textwrap
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# Read when matplotlib and the numerical libraries are first imported, hence before the imports below.
os.environ["MPLBACKEND"] = "Agg"
# Tools that happen to be installed on this machine would change what is compared.
os.environ["RAPTORGRAPH_PEERS"] = str(Path(__file__).with_name("no-peers"))
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from raptorgraph import _progress  # noqa: E402


@pytest.fixture(autouse=True)
def _same_start():
    """Each test starts with the same global generators and one thread, whatever ran before."""
    torch.set_num_threads(1)  # numba and lightning change it
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _closed_figures():
    """No figure outlives its test: matplotlib warns at the twenty-first."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def with_few_steps():
    """Context in which a posterior of effects takes 20 steps, not 200: for how things go together, not for values."""
    from raptorgraph.inference import EffectPosterior

    @contextmanager
    def few():
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(inspect.unwrap(EffectPosterior.fit).__kwdefaults__, "n_steps", 20)
            yield

    return few


@pytest.fixture(scope="module")
def few_steps(with_few_steps):
    """For all tests of a module."""
    with with_few_steps():
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real screens: $RAPTORGRAPH_DATA, or shared/data beside the repository."""
    path = Path(os.environ.get("RAPTORGRAPH_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no folder of real screens at {path}: set RAPTORGRAPH_DATA")
    return path


@pytest.fixture(scope="session")
def counted_cells():
    """A function that gives cells of a common program, with library sizes."""

    def counted(n_cells=120, n_genes=30, seed=0):
        rng = np.random.default_rng(seed)
        rates = np.exp(rng.normal(0, 1, n_genes) + rng.normal(0, 0.5, (n_cells, 1)) * (np.arange(n_genes) < 10))
        X = rng.poisson(rates)
        return X, X.sum(axis=1) + 50.0

    return counted


class Terminal(io.StringIO):
    """Text that was sent to a terminal."""

    def isatty(self) -> bool:
        return True

    def bars(self) -> set[tuple[str, int]]:
        """Description and number of steps of every bar."""
        return {(name, int(total)) for name, total in re.findall(r"\r([^\r:]+):[^\r]*?\d+/(\d+) \[", self.getvalue())}

    def lines(self) -> set[str]:
        """Description of all work that has no steps."""
        return set(re.findall(r"\r([^\r:]+): \d+:\d+", self.getvalue()))


@pytest.fixture
def in_terminal(monkeypatch):
    """Context in which stderr is a :class:`Terminal`, on which bars appear at once."""
    monkeypatch.setattr(_progress, "DELAY", 0.0)
    monkeypatch.setattr(_progress, "_INTERVAL", 0.001)
    return lambda: contextlib.redirect_stderr(Terminal())


class _Cutting(BaseHTTPRequestHandler):
    """Sends so many bytes of an answer, its head included, and hangs up, with or without a reset."""

    def do_GET(self):
        content = self.server.contents[self.path.removeprefix("/")]
        length = f"Content-Length: {len(content)}\r\n" if self.server.says_length else ""
        head = f"HTTP/1.1 200 OK\r\n{length}Connection: close\r\n\r\n".encode()
        whole = head + content
        place = self.server.places.pop(0) if self.server.places else len(whole)
        place = len(head) + int(place * len(content)) if isinstance(place, float) else place
        place = len(whole) + place if place < 0 else place
        self.wfile.write(whole[:place])
        self.wfile.flush()
        if self.server.resets and place < len(whole):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *args):
        pass


@pytest.fixture
def cutting(monkeypatch, tmp_path_factory):
    """A function that serves contents by name over http, and gives the server and its address.

    The server's `places` say where each of the next answers is cut: bytes, a share of the content (a float), or from
    the end (negative); `resets` whether that is by a reset, `says_length` whether answers say how long they are.
    """
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("RAPTORGRAPH_CACHE", str(tmp_path_factory.mktemp("cache")))  # which checksums are kept in
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Cutting)
    http.places, http.says_length, http.resets = [], True, False
    http.handle_error = lambda *args: None
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()

    def serve(contents):
        http.contents = contents
        return http, f"http://127.0.0.1:{http.server_address[1]}"

    yield serve
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def fake_peer(tmp_path, monkeypatch, as_python):
    """A function that makes a tool of the code of an adapter; its environment is this Python."""
    from raptorgraph.baselines import _peer_environments as environments
    from raptorgraph.baselines._peers import PEERS, Peer

    monkeypatch.setenv(environments.FOLDER_VARIABLE, str(tmp_path / "peers"))
    fields = {"title": "Fake", "experiment": "prediction", "package": "fake-tool", "check": "", "python": ("3.11",)}
    fields |= {"with_dependencies": (), "epochs": 5, "options": {"width": 3}, "folder": tmp_path / "adapters"}
    fields["folder"].mkdir()

    def make(code="", name="fake", installed=True, **more):
        tool = Peer(name=name, **{**fields, **more})
        tool.adapter.write_text(textwrap.dedent(code))
        tool.pins.write_text("# one package\nfake-tool==1.2\n")
        monkeypatch.setitem(PEERS, name, tool)
        if installed:
            folder = environments.environment_folder(tool)
            as_python(environments.python_in(folder))
            marker = {"python": "3.11.0", "pins": environments.pins_hash(tool), "versions": {"fake-tool": "1.2"}}
            (folder / environments.MARKER).write_text(json.dumps(marker))
        return tool

    return make


@pytest.fixture(scope="session")
def as_python():
    """A function that makes a program which is this Python, with the libraries that it has here."""

    def make(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        path.chmod(0o755)

    return make
