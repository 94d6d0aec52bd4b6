import numpy as np
import pandas as pd
import pytest

from raptorgraph.report import _tables as tables


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (tables.fixed(2), -0.004, "0.00"),
        (tables.fixed(2), -1.005, "−1.00"),
        (tables.fixed(1), 12345.67, "12,345.7"),
        (tables.whole, 8100, "8,100"),
        (tables.with_error(2), (0.5, 0.125), "0.50 [0.29, 0.71]"),
        (tables.with_error(2), (-0.5, np.nan), "−0.50"),
        (tables.with_interval(2), (0.95, 0.5, 1.05), "0.95 [0.50, 1.05]"),
        (tables.with_interval(1), (-1.0, -2.0, 0.0), "−1.0 [−2.0, 0.0]"),
        (tables.with_interval(2), (0.95, np.nan, np.nan), "0.95"),
        (tables.small, 0.0004, "< 0.001"),
        (tables.small, 0.0312, "0.031"),
        (tables.yes_no, np.True_, "yes"),
    ],
)
def test_how_values_are_written(write, value, text):
    assert write(value) == text


def test_cells_of_a_table():
    frame = pd.DataFrame({"gene": ["A", None, "C"], "value": [(1.0, 0.1), (np.nan, np.nan), (-2.0, np.nan)]})
    columns = {"value": tables.Column("v", tables.with_error(1), number=True), "gene": tables.Column("g")}
    found = tables.table("t", "caption", "reading", frame, columns, strong=[1])
    assert [[cell.text for cell in row] for row in found.rows] == [["1.0 [0.8, 1.2]", "A"], ["–", "–"], ["−2.0", "C"]]
    assert [row[0].value for row in found.rows] == [1.0, None, -2.0]
    assert found.rows[0][1].value is None
    assert [row[0].missing for row in found.rows] == [False, True, False]
    assert found.strong == {1}
