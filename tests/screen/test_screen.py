import numpy as np
import pytest

from raptorgraph import datasets, pp
from raptorgraph.screen import Screen

SIZE = {"n_control_cells": 60, "n_cells_per_perturbation": 20, "n_truth_cells": 10}


@pytest.fixture(scope="module")
def adata():
    return datasets.simulate(40, 4, n_doubles=3, **SIZE)


@pytest.fixture
def screen(adata):
    return Screen(adata, {"library_size_key": "total_counts"})


def test_conditions_and_cells(screen, adata):
    assert screen.control == "control"
    assert screen.singles == ["P01", "P02", "P03", "P04"]
    assert len(screen.combinations) == 3
    assert set(screen.conditions) == {*screen.singles, *screen.combinations}
    cells = screen.cells(["P02"])
    assert cells.n_obs == 60 + 20
    assert set(cells.obs["perturbation"]) == {"control", "P02"}
    assert not cells.is_view
    assert (adata.obs["perturbation"].iloc[screen.rows("P02")] == "P02").all()


def test_labels_are_canonical_in_the_spelling_of_the_screen(adata):
    adata = adata.copy()
    labels = adata.obs["perturbation"].astype(str)
    adata.obs["perturbation"] = labels.str.replace("+", "|", regex=False).replace("control", "nt")
    screen = Screen(adata, {"perturbation_key": "perturbation", "control": ["nt", "ctrl"], "delimiter": "|"})
    assert screen.spelling == {"control": ["nt", "ctrl"], "delimiter": "|"}
    assert screen.label(["P02", "P01"]) == "P01|P02"
    assert screen.single("P03") == "P03"
    assert screen.label(()) == screen.control == "nt"
    assert all(screen.label(genes) == label for label, genes in screen.genes_of.items())


def test_cells_and_effects_of_a_part(screen):
    np.testing.assert_array_equal(screen.expression_of("P02"), screen.expression.toarray()[screen.rows("P02")])
    np.testing.assert_array_equal(screen.effects_of(np.arange(screen.adata.n_obs)), screen.effects)
    rows, _ = screen.halves(0)
    half = screen.effects_of(rows)
    cells, control = (np.isin(screen.codes, code) & np.isin(np.arange(len(screen.codes)), rows) for code in (2, 0))
    X = screen.expression.toarray().astype(float)
    np.testing.assert_allclose(half.loc[screen.labels[2]], X[cells].mean(axis=0) - X[control].mean(axis=0), atol=1e-5)
    assert list(half.index) == screen.conditions
    assert half.columns.equals(screen.adata.var_names)


def test_effects_and_expression_are_those_of_pp(screen, adata):
    measured = pp.measured_effects(adata, library_size_key="total_counts")
    np.testing.assert_allclose(screen.effects.loc[measured.index], measured, atol=1e-6)
    by_hand = np.log1p(1e4 * adata.X.toarray() / adata.obs["total_counts"].to_numpy()[:, None])
    np.testing.assert_allclose(screen.expression.toarray(), by_hand, rtol=1e-5)
    np.testing.assert_allclose(screen.control_mean, by_hand[screen.codes == 0].mean(axis=0), rtol=1e-5)


def test_expression_of_some_cells(screen):
    rows = np.array([7, 2, 30])
    some = screen.expression_at(rows)
    assert some.dtype == np.float32
    np.testing.assert_array_equal(some.toarray(), screen.expression.toarray()[rows])


def test_number_of_perturbed_genes(screen):
    assert list(screen.n_perturbed) == [0, *(label.count("+") + 1 for label in screen.conditions)]
    np.testing.assert_array_equal(screen.n_perturbed, screen.design.sum(axis=1))


def test_some_genes_keep_effects_and_log_ratios(screen):
    genes = list(screen.adata.var_names[[9, 3, 20]])
    part = screen.of_genes(genes)
    assert list(part.adata.var_names) == genes
    assert part.labels == screen.labels
    np.testing.assert_array_equal(part.effects, screen.effects[genes])
    np.testing.assert_array_equal(part.log_ratios_of().log_ratio, screen.log_ratios_of().log_ratio[:, [9, 3, 20]])


def test_other_codes_of_the_same_cells(screen):
    codes = screen.codes.copy()
    first, second = screen.rows("P01"), screen.rows("P02")
    codes[first], codes[second] = screen.codes[second[0]], screen.codes[first[0]]
    swapped = screen.with_codes(codes)
    assert swapped.labels == screen.labels
    np.testing.assert_array_equal(swapped.effects.loc["P01"], screen.effects.loc["P02"])
    np.testing.assert_array_equal(swapped.effects.loc["P03"], screen.effects.loc["P03"])


def test_halves_share_no_cell_and_leave_none(screen):
    first, second = screen.halves(0)
    assert not set(first) & set(second)
    assert len(first) + len(second) == screen.adata.n_obs
    for label in screen.labels:
        n = len(screen.rows(label))
        assert np.isin(screen.rows(label), first).sum() == n // 2
    assert not np.array_equal(first, screen.halves(1)[0])
    np.testing.assert_array_equal(first, screen.halves(0)[0])


def test_one_control_cell_has_a_mean_and_gives_no_effects(adata):
    labels = adata.obs["perturbation"].to_numpy()
    cells = adata[(labels != "control") | (np.cumsum(labels == "control") == 1)].copy()
    screen = Screen(cells, {"library_size_key": "total_counts"})
    np.testing.assert_allclose(screen.control_mean, screen.expression_of("control")[0], rtol=1e-6)
    with pytest.raises(ValueError, match="at least 2; found 1"):
        screen.effects  # noqa: B018
