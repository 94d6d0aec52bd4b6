"""Constants of the graph model: its priors, and when an update counts."""

from __future__ import annotations

EDGE = 0.5  # probability from which an edge is one
# Standard deviations of spike and slab of the weights, in units of the effect of perturbing the target. The former is
# not 0: a gene may move a little with a perturbation without standing for the other's program.
NO_EDGE_SD, EDGE_SD = 0.05, 0.3
EDGES_PER_LATENT = (0.2, 1.0, 5.0)  # least, first and largest number that the prior expects
PROGRAM_FRACTION = 0.05  # of the genes in a program, at the start
FRACTION_RANGE = (0.005, 0.5)
FEW = 50  # entries from which a prior is not learned
GREEDY_STEPS = 10  # edges of a latent that are looked for at the start
SETTLED = 5  # sweeps before priors are learned
TINY = 1e-3  # change of a weight that is not carried on
