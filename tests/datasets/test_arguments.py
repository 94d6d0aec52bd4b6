import pytest

from raptorgraph.datasets import simulate
from raptorgraph.datasets._arguments import check_arguments, n_targets_without_gene


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_genes": 0}, ValueError, "n_genes=0 is too small: use 1 or more"),
        ({"n_genes": 3.5}, TypeError, "n_genes=3.5 is not an integer"),
        ({"n_genes": True}, TypeError, "n_genes=True is not an integer"),
        ({"n_genes": 10}, ValueError, "n_genes=10 leaves no room for the 20 perturbed genes"),
        ({"n_perturbed": 0}, ValueError, "n_perturbed=0 is too small"),
        ({"n_latent": 19}, ValueError, "n_latent=19 is too small: use 20 or more, a latent for each"),
        ({"n_control_cells": 0}, ValueError, "n_control_cells=0"),
        ({"n_cells_per_perturbation": -1}, ValueError, "n_cells_per_perturbation=-1"),
        ({"n_doubles": 191}, ValueError, "n_doubles=191 but 20 perturbed genes have 190 pairs"),
        ({"n_doubles": "some"}, TypeError, "n_doubles='some' is not an integer: use 0 or more or 'all'"),
        ({"n_doubles": -1}, ValueError, "n_doubles=-1 is too small"),
        ({"graph": "ring"}, ValueError, "graph='ring' is unknown; use one of 'erdos-renyi', 'scale-free'"),
        ({"mechanism": "relu"}, ValueError, "mechanism='relu' is unknown"),
        ({"expected_degree": 12.5}, ValueError, "expected_degree=12.5 is impossible: .* 25 latents takes 0 to 12"),
        ({"expected_degree": 0.5, "graph": "scale-free"}, ValueError, "expected_degree=0.5 .* takes 1 to 24"),
        ({"expected_degree": float("inf")}, ValueError, "expected_degree=inf is impossible"),
        ({"interaction_strength": -0.1}, ValueError, "interaction_strength=-0.1 is out of range"),
        ({"effect_size": float("nan")}, ValueError, "effect_size=nan is out of range"),
        ({"effect_size": "big"}, TypeError, "effect_size='big' is not a number"),
        ({"targets_without_gene": 1.5}, ValueError, "targets_without_gene=1.5 is out of range: .* from 0 to 1"),
        ({"n_batches": 0}, ValueError, "n_batches=0"),
        ({"batch_effect": -1.0}, ValueError, "batch_effect=-1.0"),
        ({"library_size": 0.0}, ValueError, "library_size=0.0"),
        ({"library_size_sd": -0.1}, ValueError, "library_size_sd=-0.1"),
        ({"dispersion": 0.0}, ValueError, "dispersion=0.0"),
        ({"n_truth_cells": 2, "n_batches": 3}, ValueError, "n_truth_cells=2 is too small: use 3 or more, one for each"),
        ({"states": 1}, ValueError, "states=1 is too small: use 2 or more, 'continuous' or 'none'"),
        ({"states": 2.0}, TypeError, "states=2.0 is not an integer"),
        ({"states": "two"}, ValueError, "states='two' is unknown; use one of 'none', 'continuous'"),
        ({"state_effect": -1.0}, ValueError, "state_effect=-1.0 is out of range"),
        ({"state_dependence": 1.1}, ValueError, "state_dependence=1.1 is out of range: .* from 0 to 1"),
        ({"escape": 1.1}, ValueError, "escape=1.1 is out of range"),
        ({"escape": "all"}, TypeError, "escape='all' is neither a number nor a list of one for each"),
        ({"escape": [0.1, 0.2]}, ValueError, "escape has 2 shares for 20 perturbed genes"),
        ({"escape": [0.1] * 19 + [-1]}, ValueError, "escape=-1 is out of range"),
        ({"n_guides": 0}, ValueError, "n_guides=0 is too small"),
        ({"dead_guides": 2}, ValueError, "dead_guides=2 is out of range"),
        ({"dead_guides": 0.5}, ValueError, "dead_guides=0.5 needs guides that work .* n_guides=2 or more"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"seed": None}, TypeError, "seed=None is not an integer"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        simulate(**arguments)


def test_defaults_that_depend_on_others():
    settings = simulate(30, 4, n_doubles=0, n_control_cells=2, n_cells_per_perturbation=2).uns["simulation"]["settings"]
    assert settings["n_latent"] == 4 + 5
    assert check_arguments({**settings, "n_perturbed": 28, "n_latent": None})["n_latent"] == 28 + 7
    # the least that each argument takes, at once
    least = {"n_genes": 1, "n_perturbed": 1, "n_latent": 1, "n_control_cells": 1, "n_cells_per_perturbation": 1}
    assert check_arguments({**settings, **least, "expected_degree": 0.0, "n_truth_cells": 1})["n_latent"] == 1


@pytest.mark.parametrize(("n", "share", "expected"), [(4, 0.5, 2), (10, 0.24, 2), (10, 0.26, 3), (3, 0, 0), (3, 1, 3)])
def test_number_of_targets_without_gene(n, share, expected):
    assert n_targets_without_gene(n, share) == expected
