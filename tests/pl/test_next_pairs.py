from types import SimpleNamespace

import numpy as np
import pytest

import raptorgraph as rg
from raptorgraph import pl


def test_pairs_in_the_order_of_choice(next_pairs_table):
    ax = pl.next_pairs(next_pairs_table)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["1.  A+B", "2.  C+D", "3.  A+C", "4.  B+D"]
    alone, beside = (np.asarray(ax.collections[k].get_offsets())[:, 0] for k in (1, 2))
    np.testing.assert_allclose(alone, next_pairs_table["gain_alone"])
    np.testing.assert_allclose(beside, next_pairs_table["gain"])
    assert [text.get_text() for text in ax.texts] == ["cells", "120", "1,500", "∞", "300"]
    assert ax.get_xlabel() == "gain: share of the variance of the other pairs"
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first on top


def test_genes_never_alone_are_named_where_there_are_any(next_pairs_table):
    def words(table):
        return [text.get_text() for text in pl.next_pairs(table).get_legend().get_texts()]

    assert words(next_pairs_table) == ["beside those above it", "the same, a gene never alone", "by itself"]
    assert words(next_pairs_table.assign(singles_measured=True)) == ["beside those above it", "by itself"]


def test_of_a_trained_model(trained):
    table = rg.tl.next_pairs(trained, n=3)
    assert len(pl.next_pairs(table).get_yticklabels()) == len(table)


def test_bad_input(next_pairs_table):
    with pytest.raises(KeyError, match="'gain_in'"):
        pl.next_pairs(next_pairs_table.drop(columns="gain_in"))
    with pytest.raises(ValueError, match="no pairs"):
        pl.next_pairs(next_pairs_table.iloc[:0])


def test_a_model_is_no_table():
    with pytest.raises(TypeError, match="SimpleNamespace is no table"):
        pl.next_pairs(SimpleNamespace())
