"""Random graphs over the latents of a simulated screen."""

from dataclasses import dataclass

import networkx as nx
import numpy as np
from scipy.linalg import solve_triangular

WEIGHT_RANGE = (0.3, 0.9)
LARGEST_LOOP = 0.8  # spectral radius of absolute weights


@dataclass(frozen=True)
class LatentGraph:
    """Structural model ``u = u A + z`` with ``z ~ N(0, diag(noise_sd ** 2))`` and ``Var(u) = 1`` for every latent.

    ``A[i, j]`` of the `adjacency` is the direct effect of latent i on latent j; `total` has the total effects,
    ``(I - A)^-1``, so that ``u = z @ total``. Both have shape (d, d).
    """

    adjacency: np.ndarray
    total: np.ndarray
    noise_sd: np.ndarray


def random_graph(
    n_latent: int, kind: str, expected_degree: float, rng: np.random.Generator, feedback: float = 0.0
) -> LatentGraph:
    """Draw a graph and its weights: acyclic but for edges that are answered.

    The nodes of a random undirected graph, ``"erdos-renyi"`` or ``"scale-free"`` (Barabasi-Albert; the old,
    well-connected nodes are the causes), are laid out in a random causal order and every edge points from the earlier
    to the later node. Latents have `expected_degree` parents on average, nearly so in scale-free graphs, whose first
    nodes have fewer. Weights have a random sign and a size uniform in [0.3, 0.9]; then the latents are scaled to unit
    variance, so that neither variances nor indices reveal the order.

    A share `feedback` of the edges, drawn at random, is answered by an edge back, with a weight of the same kind. Where
    loops would amplify themselves (a spectral radius of the absolute weights of 0.8 or more), the answers are halved
    until they do not.
    """
    if kind == "erdos-renyi":
        skeleton = nx.gnp_random_graph(n_latent, 2 * expected_degree / max(n_latent - 1, 1), seed=rng)
    else:
        low, high = int(np.floor(expected_degree)), int(np.ceil(expected_degree))
        skeleton = nx.dual_barabasi_albert_graph(n_latent, low, high, 1 - (expected_degree - low), seed=rng)

    order = rng.permutation(n_latent)
    if (np.diff(order) > 0).all():  # an order that the index reveals
        order = order[::-1]

    edges = np.sort(np.array(sorted(skeleton.edges), dtype=int).reshape(-1, 2), axis=1)
    weights = rng.uniform(*WEIGHT_RANGE, size=len(edges)) * rng.choice([-1.0, 1.0], size=len(edges))
    ordered = np.zeros((n_latent, n_latent))
    ordered[edges[:, 0], edges[:, 1]] = weights
    # triangular, so that latents without a path between them have a total effect of exactly zero
    ordered_total = solve_triangular(np.eye(n_latent) - ordered, np.eye(n_latent), unit_diagonal=True)
    n_answered = round(feedback * len(edges))
    if n_answered:
        ordered, ordered_total = _answered(ordered, edges[rng.permutation(len(edges))[:n_answered]], rng)

    sd = np.sqrt((ordered_total**2).sum(axis=0))
    scale = np.outer(sd, 1 / sd)
    position = np.argsort(order)
    to_index = np.ix_(position, position)
    return LatentGraph((ordered * scale)[to_index], (ordered_total * scale)[to_index], (1 / sd)[position])


def _answered(adjacency: np.ndarray, edges: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Weights with an answer to each of these edges, and their total effects."""
    back = np.zeros_like(adjacency)
    back[edges[:, 1], edges[:, 0]] = rng.uniform(*WEIGHT_RANGE, size=len(edges)) * rng.choice([-1.0, 1.0], len(edges))
    while np.abs(np.linalg.eigvals(np.abs(adjacency + back))).max() >= LARGEST_LOOP:
        back /= 2
    return adjacency + back, np.linalg.inv(np.eye(len(adjacency)) - adjacency - back)
