"""Cells of a wanted state are read as the screen is, or refused before any work."""

import numpy as np
import pytest

from raptorgraph import datasets
from raptorgraph.cli._commands import main
from raptorgraph.cli._query import read_query

SETUP = {"perturbation_key": "perturbation", "layer": None, "library_size_key": "total_counts", "batch_key": None}


@pytest.fixture(scope="module")
def screen():
    return datasets.simulate(
        40, 4, n_doubles=1, n_control_cells=60, n_cells_per_perturbation=20, n_truth_cells=10, seed=3
    )


@pytest.fixture
def read(screen, tmp_path):
    """Read cells of one perturbation after a change, for a screen of the first 30 genes."""

    def reading(change=lambda cells: cells, **setup):
        cells = change(screen[screen.obs["perturbation"] == "P02"].copy())
        cells.write_h5ad(tmp_path / "wanted.h5ad")
        return read_query(tmp_path / "wanted.h5ad", screen[:, :30].copy(), {**SETUP, **setup})

    return reading


def without_column(cells):
    del cells.obs["total_counts"]
    return cells


def log_values(cells):
    cells.X = np.log1p(cells.X.toarray())
    return cells


def test_library_sizes_are_those_of_all_genes_where_the_screen_has_them(read, screen):
    rows = screen.obs["perturbation"] == "P02"
    assert read().n_vars == 40
    # of a screen whose genes were selected, the column was made from all of them
    chosen = read(without_column, library_size_key="raptorgraph_library_size")
    np.testing.assert_allclose(chosen.obs["raptorgraph_library_size"], np.asarray(screen[rows].X.sum(axis=1)).ravel())
    # row sums of the screen are over its genes, and so are those of the query
    assert read(library_size_key=None).n_vars == 30


@pytest.mark.parametrize(
    ("change", "setup", "error", "match"),
    [
        (lambda x: x[:, 2:].copy(), {}, KeyError, "2 of the 30 genes of the screen are not there, first '"),
        (lambda x: x, {"layer": "raw"}, KeyError, "there is no layer 'raw'"),
        (without_column, {}, KeyError, "there is no column 'total_counts' with library sizes"),
        (lambda x: x, {"batch_key": "lane"}, KeyError, "there is no column 'lane' with batches"),
        (log_values, {}, ValueError, "holds log-normalized values, and the screen counts"),
    ],
    ids=["genes", "layer", "library", "batch", "log"],
)
def test_what_does_not_fit_the_screen(read, change, setup, error, match):
    with pytest.raises(error, match=match):
        read(change, **setup)


def test_a_query_that_cannot_be_compared_is_refused_before_the_training(screen, tmp_path, capsys):
    screen.write_h5ad(tmp_path / "screen.h5ad")
    screen[screen.obs["perturbation"] == "control"].copy().write_h5ad(tmp_path / "control.h5ad")
    arguments = ["run", str(tmp_path / "screen.h5ad"), "--out", str(tmp_path / "out")]
    arguments += ["--library-size-key", "total_counts", "--query"]
    for name, match in (("control.h5ad", "All cells of the query are control cells"), ("none.h5ad", "no file")):
        assert main([*arguments, str(tmp_path / name)]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert match in err
        assert not (tmp_path / "out").exists()
