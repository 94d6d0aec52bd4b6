"""The mechanism of a simulated screen: from exogenous noise to the mean count of every gene."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.special import ndtr, ndtri

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.datasets._graph import LatentGraph
    from raptorgraph.datasets._states import States


PANEL_SHARE = 0.6  # of a cell's library that falls on the genes of the panel
BASE_SD = 3.0  # of the log base rates, a normal cut off above: no gene takes a large part of a small panel
BASE_MAX = 1.5  # in standard deviations
PROGRAMS_PER_GENE = 3.0
LOADING_SD = 0.3
OWN_LOADING = (0.8, 1.2)  # of a perturbed gene on its own latent
OTHER_SHARE = 0.25  # factor of its other loadings
SATURATION = (1.0, 2.5)
EFFICIENCY = (0.6, 1.2)  # of the guides of a gene
EFFICIENCY_SD = 0.1  # relative, between cells
OFF_TARGET = (0.5, 1.0)  # shift of a second target over that by its own guides
PAIR_SHARE = 0.5  # of the pairs that interact
PAIR_DENSITY = 0.1  # of the genes an interaction reaches
PAIR_LOADING_SD = 0.5


@dataclass(frozen=True)
class Cells:
    """Draws of n cells.

    `exogenous` has z before any perturbation, shape (n, d), and `shifts` the shift, negative, that each perturbed gene
    would cause on its own latent of this cell, shape (n, n_perturbed). `library_size` are the counts of the whole cell.
    `state` has their mixtures of states, shape (n, m), None without states.
    """

    exogenous: np.ndarray
    shifts: np.ndarray
    library_size: np.ndarray
    batch: np.ndarray
    state: np.ndarray | None = None


@dataclass(frozen=True)
class Screen:
    """Parameters of a simulated screen.

    Attributes
    ----------
    graph
        Structural model of the d latents; the first n_perturbed belong to the perturbed genes.
    shift
        Mean shift of z by each perturbation, shape (n_perturbed,), negative.
    saturation
        Bound of each latent's response, shape (d,); None for a linear response.
    base
        Log share of the library of each gene, shape (n_genes,).
    loadings
        Sparse programs B, shape (d, n_genes).
    pairs
        Interacting pairs of perturbed genes, shape (n_pairs, 2).
    pair_loadings
        Sparse loadings of the interactions, shape (n_pairs, n_genes).
    batch_offsets
        Log-rate offsets, shape (n_batches, n_genes).
    states
        States of the cells; None for none.
    off_target
        Shift that a perturbation gives the latents of other perturbed genes, as a part of its own shift, shape
        (n_perturbed, n_perturbed); None where every guide hits its own gene alone.
    """

    graph: LatentGraph
    shift: np.ndarray
    saturation: np.ndarray | None
    base: np.ndarray
    loadings: sparse.csr_array
    pairs: np.ndarray
    pair_loadings: sparse.csr_array
    batch_offsets: np.ndarray
    states: States | None = None
    off_target: np.ndarray | None = None

    def draw_cells(self, normal: np.ndarray, batch: np.ndarray, library_size: float, library_size_sd: float) -> Cells:
        """Turn standard normal numbers, shape (n, d + n_perturbed + 1), into cells."""
        n_latent = len(self.graph.noise_sd)
        return Cells(
            exogenous=normal[:, :n_latent] * self.graph.noise_sd,
            shifts=self.shift * (1 + EFFICIENCY_SD * normal[:, n_latent:-1]),
            library_size=library_size * np.exp(library_size_sd * normal[:, -1] - library_size_sd**2 / 2),
            batch=batch,
        )

    def in_state(self, cells: Cells, mixtures: np.ndarray) -> Cells:
        """The same cells, drawn without a state, in these states, which scale the shifts by perturbations."""
        if self.states is None:
            return cells
        return replace(cells, shifts=cells.shifts * (mixtures @ self.states.activity), state=mixtures)

    def latents(self, exogenous: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        """Causal latents ``u = (z + shift) (I - A)^-1``, shape (n, d)."""
        shifted = exogenous.copy()
        shifted[:, : shifts.shape[1]] += shifts if self.off_target is None else shifts + shifts @ self.off_target
        return np.asarray(shifted @ self.graph.total)

    def respond(self, values: np.ndarray, latents: list[int] | None = None) -> np.ndarray:
        """Response phi of the leading latents, or of these `latents`: the identity, or ``c tanh(value / c)``."""
        if self.saturation is None:
            return values
        bound = self.saturation[slice(values.shape[1]) if latents is None else latents]
        return np.asarray(bound * np.tanh(values / bound))

    @cached_property
    def programs_of_genes(self) -> sparse.csr_array:
        """Loadings by gene, shape (n_genes, d): a gene's few programs are read at once for all cells."""
        return sparse.csr_array(self.loadings.T)

    @cached_property
    def pair_keys(self) -> np.ndarray:
        """One number for each interacting pair, ascending as :func:`random_screen` lists them."""
        return np.asarray(self.pairs[:, 0] * len(self.shift) + self.pairs[:, 1])

    def interacting(self, members: Sequence[int]) -> list[tuple[int, int, int]]:
        """Interacting pairs among these perturbed genes: row in `pairs`, first and second gene."""
        met = list(combinations(sorted(members), 2)) if len(self.pairs) else []
        keys = np.array([i * len(self.shift) + j for i, j in met], dtype=int)
        rows = np.searchsorted(self.pair_keys, keys)
        found = self.pair_keys[np.minimum(rows, len(self.pairs) - 1)] == keys if len(met) else []
        return [(int(row), *pair) for row, pair, is_pair in zip(rows, met, found, strict=True) if is_pair]

    def hit_genes(self, pair: int) -> np.ndarray:
        """Genes that the interaction of a pair, by its row in `pairs`, reaches."""
        return np.asarray(self.pair_loadings.indices[slice(*self.pair_loadings.indptr[pair : pair + 2])])

    def log_rates(
        self,
        latents: np.ndarray,
        shifts: np.ndarray,
        batch: np.ndarray,
        state: np.ndarray | None = None,
        genes: np.ndarray | None = None,
    ) -> np.ndarray:
        """Log share of the library of every gene, shape (n, n_genes), or of these `genes`.

        ``base + phi(u) B + sum over pairs i < j of phi_i(shift_i) phi_j(shift_j) C_ij + batch offset + state offset``:
        an interaction is driven by the interventions themselves, so it is zero in controls and in singles.
        """
        # every gene of every cell is summed by itself, in one order: how cells and genes are cut cannot change a bit
        every = genes is None
        programs = self.programs_of_genes if every else self.programs_of_genes[genes]
        rates = np.ascontiguousarray((programs @ self.respond(latents).T).T)
        rates += self.base if every else self.base[genes]
        rates += (self.batch_offsets if every else self.batch_offsets[:, genes])[batch]
        self._add_interactions(rates, shifts, genes)
        if self.states is not None:
            rates += sparse.csr_array(state) @ (self.states.programs if every else self.states.programs[:, genes])
        return rates

    def _add_interactions(self, rates: np.ndarray, shifts: np.ndarray, genes: np.ndarray | None) -> None:
        """Add the interactions of the perturbations that meet in a cell."""
        if not len(self.pairs):
            return
        perturbed = shifts != 0
        # most pairs meet in no cell, and of many genes there are many pairs; cells are grouped by what meets in them
        meetings: dict[bytes, list[int]] = {}
        for cell in np.flatnonzero(perturbed.sum(axis=1) > 1).tolist():
            meetings.setdefault(perturbed[cell].tobytes(), []).append(cell)
        for cells in meetings.values():
            pairs = self.interacting(np.flatnonzero(perturbed[cells[0]]).tolist())
            if not pairs:
                continue
            loadings = self.pair_loadings[[row for row, *_ in pairs]].toarray()
            loadings = loadings if genes is None else loadings[:, genes]
            added = np.zeros((len(cells), loadings.shape[1]))
            for (_, *pair), row in zip(pairs, loadings, strict=True):
                first, second = self.respond(shifts[np.ix_(cells, pair)], pair).T
                added += (first * second)[:, None] * row
            rates[cells] += added


def random_screen(
    graph: LatentGraph,
    gene_of_latent: np.ndarray,
    *,
    n_genes: int,
    mechanism: str,
    interaction_strength: float,
    effect_size: float,
    n_batches: int,
    batch_effect: float,
    rng: np.random.Generator,
    programs_per_gene: float = PROGRAMS_PER_GENE,
) -> Screen:
    """Draw the response of the genes to the latents, whose base rates are then to be scaled by :func:`normalized`.

    `gene_of_latent` has the column of each perturbed gene, -1 for a gene outside the panel. The other arguments are
    those of :func:`raptorgraph.datasets.simulate`.
    """
    n_latent, n_perturbed = len(graph.noise_sd), len(gene_of_latent)
    own_latents = np.flatnonzero(gene_of_latent >= 0)
    own_genes = gene_of_latent[own_latents]

    quantile = rng.random(n_genes)
    quantile[own_genes] = (1 + quantile[own_genes]) / 2  # screens target genes that are expressed
    base = BASE_SD * ndtri(quantile * ndtr(BASE_MAX))

    density = min(1.0, programs_per_gene / n_latent)
    # of denser programs each gene takes less, so that it varies as much
    n_read = min(programs_per_gene, n_latent)
    loading_sd = LOADING_SD * (1.0 if n_read <= PROGRAMS_PER_GENE else np.sqrt(PROGRAMS_PER_GENE / n_read))
    loadings = loading_sd * rng.standard_normal((n_latent, n_genes)) * (rng.random((n_latent, n_genes)) < density)
    loadings[:, own_genes] *= OTHER_SHARE
    loadings[own_latents, own_genes] = rng.uniform(*OWN_LOADING, size=len(own_genes))

    pairs = np.column_stack(np.triu_indices(n_perturbed, k=1))
    pairs = pairs[rng.random(len(pairs)) < PAIR_SHARE * (interaction_strength > 0)]
    n_hit = max(1, round(PAIR_DENSITY * n_genes))
    hit = np.empty((len(pairs), n_hit), dtype=np.int32)
    for row in hit:
        row[:] = np.sort(rng.permutation(n_genes)[:n_hit])
    pair_loadings = interaction_strength * PAIR_LOADING_SD * rng.standard_normal(hit.size)
    return Screen(
        graph=graph,
        shift=-effect_size * rng.uniform(*EFFICIENCY, size=n_perturbed),
        saturation=rng.uniform(*SATURATION, size=n_latent) if mechanism == "saturating" else None,
        base=base,
        loadings=sparse.csr_array(loadings),
        pairs=pairs,
        pair_loadings=sparse.csr_array(
            (pair_loadings, hit.ravel(), n_hit * np.arange(len(pairs) + 1)), (len(pairs), n_genes)
        ),
        batch_offsets=batch_effect * rng.standard_normal((n_batches, n_genes)) * (n_batches > 1),
    )


def random_off_targets(shift: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray | None:
    """Draw a second gene for this share of the perturbed genes: their guides hit it half to fully as well as its own.

    Weights are in units of the shift of the perturbation's own latent, as for :attr:`Screen.off_target`.
    """
    k = len(shift)
    rows = rng.permutation(k)[: round(share * k)]
    if not len(rows) or k < 2:
        return None
    columns = (rows + rng.integers(1, k, size=len(rows))) % k
    found = np.zeros((k, k))
    found[rows, columns] = rng.uniform(*OFF_TARGET, size=len(rows)) * shift[columns] / shift[rows]
    return found
