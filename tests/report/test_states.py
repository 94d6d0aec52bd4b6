"""Perturbations that bring cells to a state."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import raptorgraph as rg
from raptorgraph.report._states import N_LISTED, ranked, sentence, states
from raptorgraph.report._tables import Table
from raptorgraph.screen import Screen

pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module")
def screen(adata, setup):
    return Screen(adata, setup)


@pytest.fixture(scope="module")
def model(screen):
    adata = screen.adata.copy()
    rg.RaptorGraphModel.setup_anndata(adata, **screen.setup)
    model = rg.RaptorGraphModel(adata)
    model.train(max_epochs=1, enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def found(model, screen):
    wanted = screen.effects.loc[["P01", "P01+P02"]]
    return wanted, ranked(model, wanted, screen, 0)


def test_the_ranking_is_that_of_reverse_beside_no_change(found, model, screen):
    wanted, table = found
    again = rg.tl.reverse(model, wanted, top=N_LISTED, n_draws=200, seed=0)
    pd.testing.assert_series_equal(table["distance"], again["distance"])
    assert "genes" not in table
    assert (table["n_searched"] == 5 + 10).all()
    assert (table["measured"] == table["perturbation"].isin(screen.conditions)).all()
    others = [gene for gene in wanted.columns if gene not in model.perturbed_genes]
    for query, rows in table.groupby("query"):
        no_change = np.linalg.norm(wanted.loc[query, others])
        np.testing.assert_allclose(rows["of_no_change"], rows["distance"] / no_change)
    first = table.groupby("query", sort=False).first()
    assert first["perturbation"].to_dict() == {"P01": "P01", "P01+P02": "P01+P02"}
    assert (first["of_no_change"] < 1).all()


def test_a_state_without_any_change_is_no_state(model, screen):
    wanted = 0 * screen.effects.loc[["P01"]]
    rows = ranked(model, wanted, screen, 0)
    assert rows["of_no_change"].isna().all()
    assert sentence(rows).endswith("it does not differ from control cells.")


ROWS = pd.DataFrame(
    {
        "query": "q", "perturbation": ["A", "A+B"], "distance": [1.0, 1.5], "of_no_change": [0.5, 0.75],
        "best_probability": [0.95, 0.05], "n_searched": 15,
    }
)  # fmt: skip


def test_what_is_said_of_a_ranking():
    leaves = "It leaves 0.50 of the distance between control cells and that state."
    assert sentence(ROWS) == (
        "A comes nearest to the state “q”, with a probability of 0.95 that none of the other 14 perturbations of one "
        f"or two genes comes nearer. {leaves}"
    )
    assert sentence(ROWS.assign(best_probability=0.4)) == (
        "Which of 15 perturbations comes nearest to the state “q” is not certain: A is ranked first, with a "
        f"probability of 0.40. {leaves}"
    )
    assert sentence(ROWS.assign(of_no_change=1.2)) == (
        "No perturbation is known to bring cells nearer to the state “q” than none at all: the first of 15, A, leaves "
        "1.20 times the distance of control cells."
    )
    only = ROWS[:1].assign(best_probability=1.0, n_searched=1)
    assert sentence(only) == (
        "The only perturbation, A, leaves 0.50 of the distance between control cells and the state “q”."
    )
    assert sentence(ROWS.drop(columns="best_probability")) == (
        f"A is predicted to come nearest to the state “q”. {leaves} How sure that is cannot be said, because this "
        "model has no intervals."
    )


def test_the_section(found):
    section = states(SimpleNamespace(answers=SimpleNamespace(states=found[1])))
    tables = [block for block in section.blocks if isinstance(block, Table)]
    assert [table.name for table in tables] == ["state-0", "state-1"]
    assert all(len(table.rows) == 10 for table in tables)
    assert [column.title for column in tables[0].columns] == [
        "perturbation", "measured", "rank", "probability", "distance left",
    ]  # fmt: skip
    first = [cell.text for cell in tables[0].rows[0]]
    assert first[:2] == ["P01", "yes"]
    assert first[2].startswith("1 [1, ")
    assert states(SimpleNamespace(answers=SimpleNamespace(states=None))) is None
    without = found[1].drop(columns=["rank_low", "rank_high", "best_probability"])
    plain = states(SimpleNamespace(answers=SimpleNamespace(states=without)))
    titles = [column.title for column in next(b for b in plain.blocks if isinstance(b, Table)).columns]
    assert titles == ["perturbation", "measured", "rank", "distance left"]
