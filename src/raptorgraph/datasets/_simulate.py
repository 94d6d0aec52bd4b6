"""A simulated Perturb-seq screen whose causal graph, effects and interactions are known."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from raptorgraph.datasets._arguments import check_arguments, n_targets_without_gene
from raptorgraph.datasets._counts import CountDraws
from raptorgraph.datasets._destination import InMemory, OnDisk, check_destination
from raptorgraph.datasets._graph import random_graph
from raptorgraph.datasets._guides import random_guides
from raptorgraph.datasets._screen import PROGRAMS_PER_GENE, Cells, random_off_targets, random_screen
from raptorgraph.datasets._states import random_states
from raptorgraph.datasets._truth import known_tables, latin_normal, normalized, true_effects

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import PathLike

    from anndata import AnnData


CONTROL = "control"
BLOCK_NUMBERS = 2**23  # of cells that are drawn at a time


def simulate(
    n_genes: int = 500,
    n_perturbed: int = 20,
    n_latent: int | None = None,
    *,
    n_control_cells: int = 1000,
    n_cells_per_perturbation: int = 100,
    n_doubles: int | Literal["all"] = 10,
    graph: Literal["erdos-renyi", "scale-free"] = "erdos-renyi",
    expected_degree: float = 1.0,
    mechanism: Literal["saturating", "linear"] = "saturating",
    interaction_strength: float = 0.3,
    effect_size: float = 2.0,
    targets_without_gene: float = 0.0,
    n_batches: int = 1,
    batch_effect: float = 0.2,
    library_size: float = 5000.0,
    library_size_sd: float = 0.3,
    dispersion: float = 2.0,
    n_truth_cells: int = 200,
    truth_order: int = 2,
    states: int | Literal["none", "continuous"] = "none",
    state_effect: float = 1.0,
    state_dependence: float = 0.5,
    escape: float | Sequence[float] = 0.0,
    programs_per_gene: float = PROGRAMS_PER_GENE,
    feedback: float = 0.0,
    off_target: float = 0.0,
    n_guides: int = 1,
    dead_guides: float = 0.0,
    seed: int = 0,
    out: str | PathLike[str] | None = None,
) -> AnnData:
    r"""Simulate a knock-down screen with a known causal graph and known effects.

    The latents :math:`u` of a cell follow a linear structural model on a graph, acyclic without `feedback`, and a
    perturbation shifts the exogenous variables of its genes (a soft intervention):

    .. math::

        u = u A + z + \delta = (z + \delta)(I - A)^{-1}, \qquad z \sim N(0, \mathrm{diag}(\sigma^2)), \qquad
        \delta_i = -\text{effect\_size} \cdot e_i \, (1 + 0.1 \, \epsilon)

    for the perturbed genes i, with efficiencies :math:`e_i \sim U[0.6, 1.2]` and standard normal
    :math:`\epsilon` that differs between cells. In control cells every latent has variance 1. Genes read the
    latents through sparse programs B, about three latents a gene:

    .. math::

        \log r = b + \phi(u) B + \sum_{i<j} \phi_i(\delta_i)\,\phi_j(\delta_j)\,C_{ij} + \text{batch offset}, \qquad
        \text{count} \sim \mathrm{NB}(L r, \text{dispersion})

    with :math:`\phi_i(u) = c_i \tanh(u / c_i)`, :math:`c_i \sim U[1, 2.5]`, or the identity. The interaction is a
    product of the interventions' own shifts, so it is zero in controls and in singles; a random half of the pairs
    have loadings :math:`C_{ij}`, on a tenth of the genes, normal with standard deviation
    ``0.5 * interaction_strength``. A saturating response makes doubles deviate from the sum of their singles too,
    where the two genes share descendants. A perturbed gene in the panel reads mostly from its own latent.
    Base rates b are normal (log-normal rates) without the upper tail; those of perturbed genes lie above the median.

    Cells may differ in their state beside the perturbation, and a perturbation may act in some states only. A state
    adds its own expression program to the log rates, on a fifth of the genes, and a factor :math:`a_i` to the shifts
    :math:`\delta_i` of the perturbations that depend on it: 0 or 1 in discrete states, not the same in all. A
    continuous state :math:`t \sim U[0, 1]` adds a program in proportion to :math:`t - 1/2`, and the factor is t, or
    :math:`1 - t` for about half of these perturbations. Cells of every condition have all states, with equal
    probability. Some cells that carry a guide may have escaped: then the shift of that gene is 0.

    Rates are shares of the whole cell's library L, as in a screen of which a part of the genes is kept: the panel
    takes 60 % of it in the mean over controls, and no cell is normalized again. Normalize with ``total_counts``, not
    with the row sums (which may exceed it in a few cells of a small panel).

    Parameters
    ----------
    n_genes
        Genes in the panel, those of the perturbed genes included.
    n_perturbed
        Perturbed genes; each is knocked down alone.
    n_latent
        Latents d, of which the first ``n_perturbed`` belong to the perturbed genes. Default:
        ``n_perturbed + max(5, n_perturbed // 4)``.
    n_control_cells
        Control cells.
    n_cells_per_perturbation
        Cells of each single and of each measured double.
    n_doubles
        Pairs of perturbed genes that are measured, drawn at random, or ``"all"``.
    graph
        Kind of the random acyclic graph. In ``"scale-free"`` ones (Barabasi-Albert) a few latents cause many.
    expected_degree
        Expected number of parents of a latent: at most ``(n_latent - 1) / 2`` for Erdos-Renyi graphs, from 1 to
        ``n_latent - 1`` for scale-free ones, where the oldest latents have fewer. Weights have a random sign and a
        size in [0.3, 0.9] before the latents are scaled to unit variance.
    mechanism
        Response of the log rates to a latent.
    interaction_strength
        Factor of the interaction term; 0 for none.
    effect_size
        Mean shift at efficiency 1, in standard deviations of a latent in control cells.
    targets_without_gene
        Share of the perturbed genes, in [0, 1], that have no column in ``var``.
    n_batches
        Batches; the cells of every condition are spread evenly over them.
    batch_effect
        Standard deviation of the batches' log-rate offsets; unused with one batch.
    library_size
        Mean of the cells' library sizes L, in counts.
    library_size_sd
        Standard deviation of log L.
    dispersion
        Inverse dispersion of the negative binomial: the variance is ``mean + mean ** 2 / dispersion``.
    n_truth_cells
        Latin hypercube draws of cells over which the true effects are averaged.
    truth_order
        Genes in the largest combinations whose true effects are given: 1 for the singles alone, 2 for all pairs, 3 for
        all sets of three, too.
    states
        States of the cells: ``"none"``, a number of discrete ones, 2 or more, or ``"continuous"``.
    state_effect
        Strength of the states' expression programs: the standard deviation that a program gives the log rate of one of
        its genes, over cells and genes; unused without states.
    state_dependence
        Share of the perturbed genes, in [0, 1], whose effect depends on the state; unused without states.
    escape
        Probability that a cell which carries the guide of a perturbed gene is as if it did not, in [0, 1]; one, or one
        for each perturbed gene. The genes of a double escape independently.
    programs_per_gene
        Number of latents from whose programs a gene reads on average, at most d; beyond 3 each of them adds less, so
        that the genes vary as much. With d, every program reaches every gene.
    feedback
        Share of the edges, in [0, 1], that are answered by an edge from the effect back to its cause. The graph then
        has cycles, and :math:`(I - A)^{-1}` holds the gain of its loops.
    off_target
        Share of the perturbed genes, in [0, 1], whose guides also hit another perturbed gene, half to fully as well as
        that gene's own guides. ``uns["simulation"]["off_target"]`` says which.
    n_guides
        Guides of each perturbed gene. With 2 or more, each cell has one of them for each of its genes, at random.
    dead_guides
        Share of the perturbed genes, in [0, 1], of which one guide does nothing; needs `n_guides` of 2 or more.
    seed
        Seed of all randomness. The same arguments give the same bits.
    out
        Path of a ``.h5ad`` file or ``.zarr`` store to which the screen is written in blocks of cells, so that it need
        not fit into memory; it must not exist. The screen is the same as without.

    Returns
    -------
    anndata.AnnData
        Shape (n_cells, n_genes), cells and genes in random order; with `out` its counts stay on disk, and with a
        ``.h5ad`` file it is backed. It has

        - ``X``: counts, CSR float32.
        - ``obs["perturbation"]``: categorical, ``"control"``, ``"P01"``, ``"P01+P07"``...
        - ``obs["total_counts"]``: library size L, float.
        - ``obs["batch"]``: categorical, only with more than one batch.
        - ``obs["state"]``: true state, only with states; categorical ``"S1"``, ``"S2"``..., or t, a float.
        - ``obs["guide"]``: categorical, only with several guides; ``"P01_2"``, of a double ``"P01_2|P07_1"``, missing
          in control cells.
        - ``obs["responded"]``: bool, only where cells escape or guides are dead; True where every guide of the cell
          acts, as far as the state lets it, False in control cells and where a gene escaped.
        - ``var_names``: perturbed genes ``"P01"``..., the others ``"G0001"``...
        - ``obsm["u_true"]``: causal latents u, shape (n_cells, d), float32.
        - ``uns["simulation"]["adjacency"]``: DataFrame (d, d), row = cause, column = effect; latents are named by
          their perturbed gene, the others ``"L21"``...
        - ``uns["simulation"]["effects"]``: DataFrame (all sets of up to `truth_order` genes, measured or not, by
          n_genes), float32: true mean of ``log1p(1e4 * count / L)`` minus that of control cells, of cells that
          responded and over all states.
        - ``uns["simulation"]["state_effects"]``: only with states; the same in each state, a dict of DataFrames by
          state (h5ad files hold no MultiIndex; ``pandas.concat`` makes one). Those of a continuous state are the
          means over its tertiles ``"T1"`` (t below 1/3), ``"T2"`` and ``"T3"``.
        - ``uns["simulation"]["state_activity"]``: only with states; DataFrame (n_perturbed by states): the factor
          :math:`a_i` of the shift, in tertiles its mean. An effect depends on the state where it is not 1 in all.
        - ``uns["simulation"]["off_target"]``: only where there are any; DataFrame (n_perturbed by n_perturbed), row =
          perturbed gene, column = other gene that its guides hit: shift of the latter over its own.
        - ``uns["simulation"]["guides"]``: only with several guides; DataFrame of them with ``gene`` and ``works``.
        - ``uns["simulation"]["settings"]``: dict of the arguments; ``simulate(**settings)`` repeats the screen.

    Raises
    ------
    TypeError
        When an argument is not of its type.
    ValueError
        When an argument is out of its range, or the mean count of a gene would exceed 2^24.
    FileExistsError
        When `out` exists.
    FileNotFoundError
        When the folder of `out` does not.

    Notes
    -----
    Memory grows with the non-zero counts and with cells x d; with `out` it grows with neither, but with the table of
    true effects (`truth_order` is 1 for large screens) and with the interactions, of which there are none where
    ``interaction_strength=0``. h5ad files cannot hold tables of more than about 4,000 columns; remove
    ``uns["simulation"]`` before writing a larger panel, or write zarr.

    Examples
    --------
    >>> adata = rg.datasets.simulate(200, 10, n_doubles=5)
    >>> adata.shape
    (2500, 200)
    >>> truth = adata.uns["simulation"]["effects"]  # conditions x genes, known and not estimated
    >>> truth.shape
    (55, 200)
    >>> adata.uns["simulation"]["adjacency"].shape  # latents x latents
    (15, 15)

    Cells in two states, half of the perturbations acting in one of them only:

    >>> adata = rg.datasets.simulate(200, 10, n_doubles=5, states=2, escape=0.2)
    >>> sorted(adata.uns["simulation"]["state_effects"])
    ['S1', 'S2']
    >>> int((adata.uns["simulation"]["state_activity"] == 0).any(axis=1).sum())
    5
    >>> bool(adata.obs.loc[adata.obs["perturbation"] == "control", "responded"].any())
    False
    """
    settings = check_arguments({name: value for name, value in locals().items() if name != "out"})
    n_latent = settings["n_latent"]
    path = None if out is None else check_destination(out, n_genes, n_latent)

    rng, truth_rng, gamma_rng, poisson_rng, state_rng, escape_rng, off_rng, guide_rng = np.random.default_rng(
        seed
    ).spawn(8)
    names, genes, gene_of_latent = _names(n_genes, n_perturbed, n_latent, targets_without_gene, rng)
    screen = random_screen(
        random_graph(n_latent, graph, expected_degree, rng, feedback),
        gene_of_latent,
        n_genes=n_genes,
        mechanism=mechanism,
        interaction_strength=interaction_strength,
        effect_size=effect_size,
        n_batches=n_batches,
        batch_effect=batch_effect,
        rng=rng,
        programs_per_gene=programs_per_gene,
    )
    cell_states = random_states(
        states, n_genes, n_perturbed, effect=state_effect, dependence=state_dependence, rng=state_rng
    )
    screen = replace(screen, states=cell_states, off_target=random_off_targets(screen.shift, off_target, off_rng))

    guides = random_guides(n_perturbed, n_guides, dead_guides, guide_rng)

    def draw(normal: np.ndarray, batch: np.ndarray) -> Cells:
        return screen.draw_cells(normal, batch, library_size, library_size_sd)

    n_normal = n_latent + n_perturbed + 1
    truth_cells = draw(latin_normal(n_truth_cells, n_normal, truth_rng), np.arange(n_truth_cells) % n_batches)
    groups = [truth_cells]
    if cell_states is not None:
        place = (state_rng.permutation(n_truth_cells) + state_rng.random(n_truth_cells)) / n_truth_cells
        groups = [screen.in_state(truth_cells, mixtures) for mixtures in cell_states.within(place)]
    screen = normalized(screen, groups)
    truth = [hit for size in range(1, truth_order + 1) for hit in combinations(range(n_perturbed), size)]
    effects = true_effects(screen, groups, truth, dispersion)

    conditions = _conditions(n_perturbed, n_doubles, rng)
    n_cells = [n_control_cells] + [n_cells_per_perturbation] * (len(conditions) - 1)
    condition = np.repeat(np.arange(len(conditions)), n_cells)
    batch = np.arange(len(condition)) % n_batches
    shuffle = rng.permutation(len(condition))
    condition, batch = condition[shuffle], batch[shuffle]
    places = state_rng.random(len(condition)) if cell_states is not None else None

    perturbs = np.zeros((len(conditions), n_perturbed), dtype=bool)
    for row, hit in zip(perturbs, conditions, strict=True):
        row[list(hit)] = True
    library, responded = np.empty(len(condition)), np.empty(len(condition), dtype=bool)
    draw_counts = CountDraws(screen, dispersion, gamma_rng, poisson_rng)
    carried = []
    made = InMemory() if path is None else OnDisk(path, n_genes, n_latent)
    with made:
        for rows in _blocks(len(condition), n_normal + n_genes):
            # every generator goes through the cells in order: how they are cut cannot change a draw
            cells = draw(rng.standard_normal((len(condition[rows]), n_normal)), batch[rows])
            if cell_states is not None and places is not None:
                cells = screen.in_state(cells, cell_states.mixtures(places[rows]))
            members = perturbs[condition[rows]]
            acts = members & (escape_rng.random(members.shape) >= settings["escape"])
            if guides is not None:
                guide, works = guides.draw(members)
                acts &= works
                carried.append(guide)
            cells.shifts[~acts] = 0.0
            latents = screen.latents(cells.exogenous, cells.shifts)
            made.add(draw_counts(cells, latents), latents.astype(np.float32))
            library[rows] = cells.library_size
            responded[rows] = (acts == members).all(axis=1) & members.any(axis=1)

        labels = [_label(names, hit) for hit in conditions]
        obs = pd.DataFrame(
            {"perturbation": pd.Categorical.from_codes(condition, labels), "total_counts": library},
            index=[f"cell{k}" for k in range(len(condition))],
        )
        if n_batches > 1:
            obs["batch"] = pd.Categorical.from_codes(batch, [f"batch{k + 1}" for k in range(n_batches)])
        if np.any(settings["escape"]) or dead_guides:
            obs["responded"] = responded
        if guides is not None:
            obs["guide"] = guides.column(np.concatenate(carried), names)
        if cell_states is not None and places is not None:
            obs["state"] = cell_states.column(places)
        known = [_label(names, hit) for hit in truth]
        simulation = known_tables(screen, effects, known, names, genes, settings, guides)
        return made.finish(obs, pd.DataFrame(index=genes), {"simulation": simulation})


def _conditions(n_perturbed: int, n_doubles: int | Literal["all"], rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Genes of the conditions that are measured: the control, every single, and doubles at random."""
    pairs = np.column_stack(np.triu_indices(n_perturbed, k=1))
    measured = np.sort(rng.permutation(len(pairs))[: None if n_doubles == "all" else n_doubles])
    return [(), *((i,) for i in range(n_perturbed)), *map(tuple, pairs[measured].tolist())]


def _blocks(n_cells: int, n_numbers: int) -> Iterator[slice]:
    """Blocks of cells, for each of which so many numbers are kept."""
    size = max(256, BLOCK_NUMBERS // n_numbers // 256 * 256)
    for start in range(0, n_cells, size):
        yield slice(start, start + size)


def _names(
    n_genes: int, n_perturbed: int, n_latent: int, targets_without_gene: float, rng: np.random.Generator
) -> tuple[list[str], list[str], np.ndarray]:
    """Names of the latents, names of the genes, and the column of each perturbed gene (-1: it has none)."""
    width = max(2, len(str(n_latent)))
    latents = [f"{'P' if k < n_perturbed else 'L'}{k + 1:0{width}d}" for k in range(n_latent)]

    n_without = n_targets_without_gene(n_perturbed, targets_without_gene)
    with_gene = np.sort(rng.permutation(n_perturbed)[n_without:])
    columns = rng.permutation(n_genes)
    width = max(4, len(str(n_genes)))
    others = (f"G{k + 1:0{width}d}" for k in range(n_genes - len(with_gene)))
    genes = np.empty(n_genes, dtype=object)
    genes[columns] = [*(latents[k] for k in with_gene), *others]
    gene_of_latent = np.full(n_perturbed, -1)
    gene_of_latent[with_gene] = columns[: len(with_gene)]
    return latents, genes.tolist(), gene_of_latent


def _label(names: Sequence[str], hit: Sequence[int]) -> str:
    """Label of the condition in which these genes are perturbed."""
    return "+".join(sorted(names[k] for k in hit)) or CONTROL
