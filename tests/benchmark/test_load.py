"""Screens of an experiment, by name or from a file."""

import pytest

from raptorgraph import datasets
from raptorgraph.benchmark import Settings, load_screen

SIZE = {"n_control_cells": 60, "n_cells_per_perturbation": 20, "n_truth_cells": 10}


@pytest.fixture(scope="module")
def adata():
    return datasets.simulate(40, 4, n_doubles=3, **SIZE)


def test_simulated_screens_of_three_kinds_differ_by_seed():
    found = {}
    for kind in ("additive", "saturating", "interacting"):
        screen = load_screen(Settings(f"simulated-{kind}", quick=True), seed=1)
        settings = screen.adata.uns["simulation"]["settings"]
        found[kind] = settings["mechanism"], settings["interaction_strength"]
        assert screen.setup["library_size_key"] == "total_counts"
        assert settings["seed"] == 1
    assert found == {"additive": ("linear", 0.0), "saturating": ("saturating", 0.0), "interacting": ("saturating", 1.0)}


def test_a_simulated_screen_whose_effects_depend_on_the_state():
    adata = load_screen(Settings("simulated-states", quick=True), seed=1).adata
    assert adata.obs["state"].nunique() == 2
    activity = adata.uns["simulation"]["state_activity"]
    assert ((activity == 0).any(axis=1)).sum() == round(0.5 * len(activity))


def test_a_small_simulated_screen():
    screen = load_screen(Settings("simulated-small"), seed=2)
    assert screen.adata.n_vars == 87
    assert len(screen.singles) == 23
    assert len(screen.combinations) == 44
    assert (screen.adata.obs["perturbation"].value_counts().drop("control") == 20).all()
    assert load_screen(Settings("simulated-small", quick=True)).adata.n_vars == 60


def test_screens_by_name_from_a_folder(adata, tmp_path, monkeypatch):
    adata.write_h5ad(tmp_path / "mine.h5ad")
    monkeypatch.setenv("RAPTORGRAPH_DATA", str(tmp_path))
    assert load_screen(Settings("mine")).adata.n_obs == adata.n_obs
    with pytest.raises(FileNotFoundError, match="no file 'other'"):
        load_screen(Settings("other"))


def test_read_outs_of_guides_are_left_out(adata, tmp_path):
    """In the latents and scores of a file that has them methods would read who carries which guide."""
    changed = adata.copy()
    changed.var_names = [*changed.var_names[:-3], "KLF1-2", "sgP01-1", "P02_g1:P03_g2"]
    changed.write_h5ad(tmp_path / "mine.h5ad")
    with pytest.warns(UserWarning, match="2 of 40 variables read guides and no genes"):
        screen = load_screen(Settings(str(tmp_path / "mine.h5ad")))
    assert screen.var_names.tolist() == changed.var_names[:-2].tolist()
    assert screen.effects.shape[1] == 38


def test_public_screens_come_from_datasets(adata, monkeypatch):
    monkeypatch.setattr(datasets, "norman2019", lambda: adata.copy())
    screen = load_screen(Settings("norman2019", {"library_size_key": "total_counts"}))
    assert screen.adata.n_obs == adata.n_obs


@pytest.mark.parametrize(
    ("name", "function", "arguments"),
    [
        ("norman2019-median", "norman2019", {"normalization": "median"}),
        ("papalexi2021", "papalexi2021", {}),
        ("replogle2020", "replogle2020", {}),
    ],
)
def test_names_of_public_screens_stand_for_calls(adata, monkeypatch, name, function, arguments):
    asked = []
    monkeypatch.setattr(datasets, function, lambda **given: asked.append(given) or adata.copy())
    load_screen(Settings(name, {"library_size_key": "total_counts"}))
    assert asked == [arguments]


def test_variable_genes_keep_targets_and_library_sizes(adata, tmp_path):
    adata.write_h5ad(tmp_path / "screen.h5ad")
    screen = load_screen(Settings(str(tmp_path / "screen.h5ad"), n_top_genes=10))
    assert 10 <= screen.adata.n_vars <= 14
    assert set(screen.singles) <= set(screen.adata.var_names)
    library, kept = screen.adata.obs[screen.setup["library_size_key"]], screen.adata.X.sum(axis=1).A1
    assert (library >= kept - 1e-3).all()
    assert library.mean() > kept.mean()


def test_bad_screens(tmp_path):
    with pytest.raises(ValueError, match="Name a screen"):
        load_screen(Settings())
    (tmp_path / "text.h5ad").write_text("no")
    with pytest.raises(ValueError, match="not an h5ad file"):
        load_screen(Settings(str(tmp_path / "text.h5ad")))
