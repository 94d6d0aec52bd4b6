"""The section on the graph, for edges with and without a direction."""

from types import SimpleNamespace

import pandas as pd

from raptorgraph.report._blocks import Text
from raptorgraph.report._relations import graph
from raptorgraph.report._tables import Table


def findings(support, module):
    edges = pd.DataFrame(
        {
            "source": ["A", "B", "C"], "target": ["B", "C", "D"], "weight": [1.0, 0.9, 0.5],
            "probability": 1.0, "share": [0.9, 0.8, 0.3], "direction_support": support,
            "module": pd.Categorical(module, categories=["M1"]), "frequency": [0.9, 0.95, 0.5],
        }
    )  # fmt: skip
    modules = {"M1": ["A", "B", "C"]} if "M1" in module else {}
    model = SimpleNamespace(get_modules=lambda: modules)
    genes = list("ABCD")
    strength = pd.DataFrame({"stands_out": True}, index=genes)
    screen = SimpleNamespace(singles=genes, genes_of={gene: (gene,) for gene in genes})
    return SimpleNamespace(edges=edges, stability={}, latents=None, model=model, strength=strength, screen=screen)


def texts(section):
    return " ".join(block.text for block in section.blocks if isinstance(block, Text))


def cells(section):
    """Rows of the table of edges as they are shown, by title of the column."""
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    values = [[None if cell.missing else cell.text for cell in row] for row in table.rows]
    return pd.DataFrame(values, columns=[column.title for column in table.columns])


def test_edges_without_a_direction_are_warned_of_and_carry_no_share():
    found = findings([0.5, 0.6, 0.95], ["M1", "M1", None])
    section = graph(found)
    assert "The data do not support the direction of 2 of 3 edges" in texts(section)
    assert "M1 is a group that the data cannot order at all: A, B and C." in texts(section)
    shown = cells(section).set_index("from")
    assert list(shown.index) == ["B", "A", "C"]  # the most frequent first
    assert shown["share"].isna().tolist() == [True, True, False]


def test_a_graph_whose_edges_have_a_direction():
    found = findings([0.9, 0.99, 0.8], [None, None, None])
    section = graph(found)
    assert "direction of" not in texts(section)
    assert cells(section)["share"].notna().all()
    old = graph(SimpleNamespace(**{**vars(found), "edges": found.edges.drop(columns=["direction_support", "module"])}))
    assert "direction" not in cells(old)
    assert cells(old)["share"].tolist() == ["80 %", "90 %", "30 %"]


def test_edges_of_perturbations_that_do_not_stand_out_are_in_the_file_alone():
    found = findings([0.9, 0.99, 0.8], [None, None, None])
    found.strength.loc["D", "stands_out"] = False
    section = graph(found)
    assert list(cells(section)["from"]) == ["B", "A"]
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert table.reading.endswith("1 edge of perturbations that do not stand out is in dag.csv alone.")
    found.strength["stands_out"] = False  # as where there are too few control cells to tell
    assert len(cells(graph(found))) == 3
