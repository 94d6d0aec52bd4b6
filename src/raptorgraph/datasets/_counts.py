"""Counts of simulated cells, drawn in pieces."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from raptorgraph.datasets._screen import Cells, Screen


CHUNK_ENTRIES = 200_000  # cells x genes that are dense at a time: they fit into the processor's cache


class CountDraws:
    """Negative binomial counts of one cell after the other: gamma-distributed rates, then Poisson counts.

    Both generators go through the cells in order, so that the counts do not depend on how the cells are cut.
    """

    def __init__(
        self,
        screen: Screen,
        dispersion: float,
        gamma_rng: np.random.Generator,
        poisson_rng: np.random.Generator,
    ) -> None:
        self.screen, self.dispersion = screen, dispersion
        self.gamma_rng, self.poisson_rng = gamma_rng, poisson_rng

    def __call__(self, cells: Cells, latents: np.ndarray) -> sparse.csr_matrix:
        """Counts of the next cells, float32."""
        n_cells, n_genes = len(latents), len(self.screen.base)
        n_rows = max(1, CHUNK_ENTRIES // n_genes)
        starts = range(0, n_cells, n_rows)
        sizes = [(min(n_rows, n_cells - start), n_genes) for start in starts]
        data, indices, per_cell = [], [], []
        for start, gamma in zip(starts, self._gammas(sizes), strict=True):
            rows = slice(start, start + n_rows)
            state = None if cells.state is None else cells.state[rows]
            mean = self.screen.log_rates(latents[rows], cells.shifts[rows], cells.batch[rows], state)
            np.exp(mean, out=mean)
            mean *= cells.library_size[rows, None]
            gamma /= self.dispersion
            mean *= gamma
            counts = self.poisson_rng.poisson(mean)
            present = counts != 0
            per_cell.append(present.sum(axis=1))
            data.append(counts[present].astype(np.float32))
            indices.append(np.nonzero(present)[1].astype(np.int32))
        n_counts = np.concatenate([[0], np.cumsum(np.concatenate(per_cell))])
        small = n_counts[-1] <= np.iinfo(np.int32).max
        return sparse.csr_matrix(
            (np.concatenate(data), np.concatenate(indices), n_counts.astype(np.int32 if small else np.int64)),
            shape=(n_cells, n_genes),
        )

    def _gammas(self, sizes: list[tuple[int, int]]) -> Iterator[np.ndarray]:
        """Gamma draws of one piece after the other; a thread draws the next while the last is used."""
        with ThreadPoolExecutor(1) as pool:
            ahead = None
            for size in sizes:
                following = pool.submit(self.gamma_rng.standard_gamma, self.dispersion, size=size)
                if ahead is not None:
                    yield ahead.result()
                ahead = following
            if ahead is not None:
                yield ahead.result()
