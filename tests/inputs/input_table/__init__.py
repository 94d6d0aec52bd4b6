"""What users hand in, and what happens: one row for each input, which the tests run and the documentation shows."""

from input_table._row import Row

__all__ = ["ROWS", "Row"]


def _all() -> list[Row]:
    from input_table import _columns, _commands, _files, _guides, _labels, _matrices, _mudata, _names, _queries

    parts = (_labels, _names, _matrices, _columns, _guides, _queries, _mudata, _files, _commands)
    return [row for part in parts for row in part.ROWS]


ROWS: list[Row] = _all()
