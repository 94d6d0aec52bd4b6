import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from raptorgraph.benchmark._experiments import experiment
from raptorgraph.benchmark._report import (
    all_rows,
    as_text,
    in_order,
    mean_and_sd,
    paired_differences,
    to_markdown,
    wide,
    write_report,
)
from raptorgraph.benchmark._settings import Part, Settings, Unit


@pytest.fixture
def summary():
    table = pd.DataFrame(
        {
            "method": ["b", "b", "b", "a", "a"],
            "metric": ["mse", "mse", "time", "mse", "mse"],
            "value": [1.0, 3.0, 7.0, 2.0, 2.0],
        }
    )
    return mean_and_sd(table, ["method", "metric"])


def test_mean_and_sd_of_each_group_in_the_order_of_first_occurrence(summary):
    assert summary[["method", "metric"]].to_numpy().tolist() == [["b", "mse"], ["b", "time"], ["a", "mse"]]
    assert summary["value_mean"].tolist() == [2.0, 7.0, 2.0]
    np.testing.assert_allclose(summary["value_sd"], [np.sqrt(2), np.nan, 0.0])
    assert summary["n"].tolist() == [2, 1, 2]


def test_wide_has_a_column_for_each_metric(summary):
    table = wide(summary, ["method"])
    assert table["method"].tolist() == ["b", "a"]
    assert table["mse"].tolist() == ["2.000 +- 1.414", "2.000 +- 0.000"]
    assert table["time"][0] == "7.000"
    assert pd.isna(table["time"][1])


def test_wide_with_as_many_digits_as_are_asked_for(summary):
    assert wide(summary, ["method"], digits=1)["mse"].tolist() == ["2.0 +- 1.4", "2.0 +- 0.0"]


def test_differences_are_paired_by_seed():
    values = {"b": [1.0, 4.0], "base": [0.5, 3.0], "a": [0.5, 2.0]}
    rows = pd.DataFrame([(m, "mse", s, x) for m, each in values.items() for s, x in enumerate(each)])
    rows.columns = ["method", "metric", "seed", "value"]
    found = paired_differences(pd.concat([rows, pd.DataFrame([("b", "time", 0, 7.0)], columns=rows.columns)]), "base")
    assert found["method"].tolist() == ["b", "b", "a", "a"]
    assert found["metric"].tolist() == ["mse", "time", "mse", "time"]
    assert found["value_mean"].tolist()[::2] == [0.75, -0.5]
    np.testing.assert_allclose(found["value_sd"][::2], [np.sqrt(0.125), np.sqrt(0.5)])
    assert found["value_mean"][1::2].isna().all()  # nothing to take off
    assert found["n"].tolist() == [2, 0, 2, 0]
    assert paired_differences(rows[rows["method"] == "base"], "base").empty


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0.12345,), "0.123"),
        ((0.5, 0.01), "0.500 +- 0.010"),
        ((123.44, 1.0), "123.4 +- 1.0"),
        ((49.951, 0.02, 2), "49.95 +- 0.02"),
        ((np.nan, 1.0), "-"),
    ],
)
def test_numbers_as_text(values, text):
    assert as_text(*values) == text


def test_markdown_escapes_and_marks_missing_values():
    lines = to_markdown(pd.DataFrame({"name": ["a|b", "two\nlines"], "value": [np.nan, 1.5]})).splitlines()
    assert lines == ["| name | value |", "|---|---:|", "| a\\|b | - |", "| two lines | 1.5 |"]


def losses(draw):
    return replace(experiment("losses"), title="A title", draw=draw)


def test_report_writes_tables_figure_and_settings(tmp_path):
    table = pd.DataFrame({"x": [1.5]})
    file = tmp_path.parent / "sets.gmt"
    file.write_text("")
    options = {"gene_sets": str(file), "predictions": {"x": table}, "betas": [0, 1]}
    settings = Settings(screen="simulated", seeds=(4,), quick=True, options=options)
    write_report(tmp_path, losses(lambda tables: Figure()), {"losses": table}, settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["losses.csv", "losses.json", "losses.md", "losses.png"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "losses.csv"), table)
    facts = json.loads((tmp_path / "losses.json").read_text())
    assert facts["screen"] == "simulated"
    assert facts["title"] == "A title"
    assert facts["options"] == {"gene_sets": "sets.gmt", "predictions": {"x": "DataFrame"}, "betas": [0, 1]}
    assert facts["seeds"] == [4]
    assert facts["quick"] is True
    assert facts["tables"] == ["losses"]


def test_tables_are_written_where_nothing_can_be_drawn(tmp_path, capsys):
    def draw(tables):
        raise RuntimeError("no font")

    write_report(tmp_path, losses(draw), {"losses": pd.DataFrame({"x": [1.5]})}, Settings())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["losses.csv", "losses.json", "losses.md"]
    assert capsys.readouterr().err == "There is no figure of losses: RuntimeError: no font\n"


def test_rows_of_all_parts_with_what_tells_them_apart():
    parts = [
        (Unit(f"{k}", k, {"kind": "ab"[k], "list": [1, 2, 3]}), Part(pd.DataFrame({"value": [k, -k]}))) for k in (0, 1)
    ]
    found = all_rows(parts, "kind")
    assert found.to_dict("list") == {"value": [0, 0, 1, -1], "seed": [0, 0, 1, 1], "kind": ["a", "a", "b", "b"]}


def test_rows_in_an_order_that_is_given():
    table = pd.DataFrame({"by": ["x", "y", "x", "y", "x"], "name": ["b", "a", "a", "b", "b"], "value": range(5)})
    found = in_order(table, by=("y", "x"), name=("b", "a"))
    assert found["value"].tolist() == [3, 1, 0, 4, 2]
    assert found.index.tolist() == list(range(5))
