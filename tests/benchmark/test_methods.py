"""Methods as the settings of an experiment ask for them."""

import pandas as pd
import pytest

from raptorgraph.baselines import ladder
from raptorgraph.benchmark import Settings, load_screen
from raptorgraph.benchmark._methods import (
    check_methods,
    chosen_methods,
    epochs_of,
    method_names,
    method_of,
    n_repeats_of,
)


@pytest.fixture(scope="module")
def screen():
    return load_screen(Settings("simulated", quick=True))


def test_names_of_methods(screen, gmt):
    without = method_names(Settings(), doubles=False)
    assert "main-effects ridge" not in without
    assert "SENA" not in without
    assert "additive" in without
    assert set(ladder()) < set(method_names(Settings(), doubles=True))
    with_sets = Settings(options={"gene_sets": str(gmt)})
    assert method_names(with_sets, doubles=False)[-1] == "SENA"
    assert method_names(Settings(options={"methods": ["dVAE", "additive"]}), doubles=False) == ["dVAE", "additive"]


def test_methods_that_are_known_to_an_experiment(gmt):
    known = ("dVAE", "SENA")
    assert chosen_methods(Settings(), known) == ["dVAE"]
    assert chosen_methods(Settings(options={"gene_sets": str(gmt)}), known) == ["dVAE", "SENA"]
    with pytest.raises(ValueError, match="'SENA' needs gene sets"):
        chosen_methods(Settings(options={"methods": ["SENA"]}), known)
    with pytest.raises(ValueError, match="'additive' has no graph; there are dVAE, SENA"):
        chosen_methods(Settings(options={"methods": ["additive"]}), known, "has no graph")
    with pytest.raises(ValueError, match="methods: 'best' is unknown"):
        method_names(Settings(options={"methods": ["best"]}), doubles=True)
    assert method_names(Settings(options={"methods": ["mean double", "dVAE"]}), doubles=False) == ["dVAE"]


def test_sena_is_refused_where_no_gene_set_matches(screen, gmt):
    settings = Settings(options={"gene_sets": str(gmt)})
    check_methods(["SENA"], settings, screen.setup, screen.adata.var_names)
    with pytest.raises(ValueError, match="0 of the 12 gene sets"):
        check_methods(["SENA"], settings, screen.setup, pd.Index([f"x{i}" for i in range(60)]))


@pytest.mark.parametrize("name", ["raptorgraph", "raptorgraph paper", "dVAE", "SENA", "additive"])
def test_every_method_is_made_with_its_seed(name, screen, gmt):
    settings = Settings(quick=True, options={"gene_sets": str(gmt)})
    method = method_of(name, settings, screen.setup, 5)
    assert method.setup_args["library_size_key"] == "total_counts"
    if name != "additive":
        settings = getattr(method, "settings", method)  # dVAE and SENA keep those of their training together
        assert settings.seed == 5
        assert settings.max_epochs == 2


def test_epochs_and_samples():
    assert [epochs_of(Settings(quick=quick)) for quick in (True, False)] == [2, None]
    assert epochs_of(Settings(quick=True, options={"max_epochs": 7})) == 7
    assert [n_repeats_of(Settings(quick=quick)) for quick in (True, False)] == [2, 5]
    assert n_repeats_of(Settings(options={"n_repeats": 9})) == 9
