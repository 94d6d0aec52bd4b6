from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import raptorgraph as rg
from raptorgraph import pl


def test_a_line_for_each_pair(power_table):
    ax = pl.power(power_table)
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words == ["A+B (180 cells)", "A+C (never)", "0.8, as for `cells_needed`"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), power_table.loc["A+B", "power"])
    np.testing.assert_allclose(ax.lines[1].get_xdata(), [25, 100, 400])
    assert ax.get_xscale() == "log"
    assert "pair 30% off the sum" in ax.get_ylabel()


def test_many_pairs_by_their_median(power_table):
    many = pd.concat([power_table.assign(power=power_table["power"] * k / 10).set_axis(
        power_table.index + str(k)) for k in range(11)])  # fmt: skip
    ax = pl.power(many)
    wide = many.assign(pair=many.index).pivot(index="n_cells", columns="pair", values="power")
    np.testing.assert_allclose(ax.lines[22].get_ydata(), wide.median(axis=1))
    assert "each of 22 pairs" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_of_a_trained_model(trained):
    pair = "+".join(trained.perturbed_genes[:2])
    ax = pl.power(rg.tl.power(trained, [pair], n_cells=(50, 100), n_draws=20, seed=0))
    assert len(ax.lines) == 2


def test_bad_input(power_table):
    with pytest.raises(KeyError, match="'power'"):
        pl.power(power_table.drop(columns="power"))
    with pytest.raises(ValueError, match="no pairs"):
        pl.power(power_table.iloc[:0])
    with pytest.raises(ValueError, match="n_named=-1"):
        pl.power(power_table, n_named=-1)


def test_a_model_is_no_table():
    with pytest.raises(TypeError, match="SimpleNamespace is no table"):
        pl.power(SimpleNamespace())
