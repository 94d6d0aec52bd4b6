"""Screens in small, and a server of files."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from scipy import sparse

from raptorgraph.datasets import _public
from raptorgraph.datasets._graph import random_graph
from raptorgraph.datasets._screen import random_screen
from raptorgraph.datasets._truth import latin_normal


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    """Requests go to this machine."""
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    """The user's cache is not touched."""
    monkeypatch.setenv("RAPTORGRAPH_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def server(tmp_path):
    """Folder that is served over http, its address, and the paths that were asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{http.server_address[1]}", asked
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture(scope="session")
def whole_counts():
    """Counts of a whole transcriptome, and the names of its genes."""

    def whole_counts_(n_cells, targets, seed=0):
        # 60 expressed genes, some of them variable, then the targets, hardly variable
        rng = np.random.default_rng(seed)
        rate = rng.uniform(1, 5, size=60) * np.where(np.arange(60) < 30, rng.gamma(0.5, 2.0, size=(n_cells, 60)), 1.0)
        counts = sparse.lil_matrix((n_cells, _public.WHOLE_TRANSCRIPTOME), dtype=np.float32)
        counts[:, :60] = rng.poisson(rate)
        counts[:, 60 : 60 + len(targets)] = 1
        names = [
            *(f"G{i}" for i in range(60)),
            *targets,
            *(f"Z{i}" for i in range(_public.WHOLE_TRANSCRIPTOME - 60 - len(targets))),
        ]
        return sparse.csr_matrix(counts), names

    return whole_counts_


@pytest.fixture(scope="session")
def make_screen():
    """Simulated screen of which the first of three perturbed genes is gene 4, the second none."""

    def make_screen_(
        n_genes=30, n_perturbed=3, n_latent=6, mechanism="linear", interaction_strength=0.0, n_batches=1, **kwargs
    ):
        rng = np.random.default_rng(1)
        return random_screen(
            random_graph(n_latent, "erdos-renyi", 1.0, rng),
            np.array([4, -1, *range(n_perturbed - 2)]),
            n_genes=n_genes,
            mechanism=mechanism,
            interaction_strength=interaction_strength,
            effect_size=2.0,
            n_batches=n_batches,
            batch_effect=0.2,
            rng=rng,
            **kwargs,
        )

    return make_screen_


@pytest.fixture(scope="session")
def make_cells():
    """Draws of cells of a simulated screen in one batch."""

    def make_cells_(screen, n_cells, library_size=5000.0):
        normal = latin_normal(n_cells, screen.loadings.shape[0] + len(screen.shift) + 1, np.random.default_rng(2))
        return screen.draw_cells(normal, np.zeros(n_cells, dtype=int), library_size, 0.3)

    return make_cells_


@pytest.fixture(scope="session")
def log_rates():
    """Log rates of cells under a condition."""

    def log_rates_(screen, cells, condition):
        shifts = np.zeros_like(cells.shifts)
        shifts[:, condition] = cells.shifts[:, condition]
        return screen.log_rates(screen.latents(cells.exogenous, shifts), shifts, cells.batch)

    return log_rates_
