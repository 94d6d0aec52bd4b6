import numpy as np
import pandas as pd
import pytest

import raptorgraph as rg
from raptorgraph import pl


def names(ax):
    return [tick.get_text() for tick in ax.get_yticklabels()]


def test_nearest_come_first(reverse_table):
    ax = pl.reverse(reverse_table, n=3)
    assert names(ax) == ["1.  A+B", "2.  A", "3.  A+C"]
    np.testing.assert_allclose(np.asarray(ax.collections[1].get_offsets())[:, 0], [1.2, 2.1, 2.5])
    assert ax.lines[0].get_xdata()[0] == reverse_table["distance"].median()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["1 gene", "2 genes", "median of all 6"]


def test_truth_is_bold_and_added_where_it_is_far_down(reverse_table):
    ax = pl.reverse(reverse_table, n=2, truth=["C", "B"])
    assert names(ax) == ["1.  A+B", "2.  A", "6.  B+C"]
    assert [tick.get_fontweight() for tick in ax.get_yticklabels()] == ["normal", "normal", "bold"]
    assert names(pl.reverse(reverse_table, n=2, truth="A")) == ["1.  A+B", "2.  A"]


def test_one_of_several_queries(reverse_table):
    table = pd.concat([reverse_table, reverse_table.assign(query="q2", distance=reverse_table["distance"] + 1)])
    assert pl.reverse(table, "q2").get_title() == "query: q2"
    with pytest.raises(ValueError, match="2 queries"):
        pl.reverse(table)
    with pytest.raises(KeyError, match="'q3'"):
        pl.reverse(table, "q3")


def test_of_a_trained_model(trained):
    table = rg.tl.reverse(trained, trained.measured_effects().iloc[:1])
    assert len(names(pl.reverse(table))) == min(15, len(table))


def test_bad_input(reverse_table):
    with pytest.raises(KeyError, match="'rank'"):
        pl.reverse(reverse_table.drop(columns="rank"))
    with pytest.raises(ValueError, match="n=0"):
        pl.reverse(reverse_table, n=0)
    with pytest.raises(ValueError, match="No distance"):
        pl.reverse(reverse_table.assign(distance=np.nan))
