import pandas as pd
import pytest

from raptorgraph import benchmark


@pytest.fixture(scope="module")
def tables(quick):
    return quick("losses", seeds=2, screen=None)[0]


def test_twelve_rows_with_published_values_beside(tables):
    table = tables["losses"]
    assert len(table) == 12
    assert set(table["loss"]) == {"MSE", "MK-MMD", "OT"}
    row = table[(table["zeros"] == "99%") & (table["loss"] == "MSE")].iloc[0]
    assert row["paired, published"] == "0.0100"
    assert row["collapsed, published"] == "0.0101"
    assert table[(table["zeros"] == "0%") & (table["loss"] == "OT")]["paired, published"].item() == "-"


def test_optimal_transport_and_mmd_do_not_see_a_permutation(tables):
    table = tables["losses"].set_index(["zeros", "loss"])
    assert (table.xs("OT", level="loss")["preferred"] == "permuted").all()
    assert table.loc[("0%", "MSE"), "preferred"] == "paired"
    assert table.loc[("0%", "MSE"), "wins"] == "2 of 2"


def test_wins_count_the_seeds_with_the_lowest_value(tables):
    rows = tables["losses_long"]
    here = rows[(rows["sparsity"] == 0.99) & (rows["metric"] == "mse")].pivot(
        index="seed", columns="output", values="value"
    )
    row = tables["losses"].query("zeros == '99%' and loss == 'MSE'").iloc[0]
    lowest = (here.idxmin(axis=1) == row["preferred"]).sum()
    assert row["wins"] == f"{lowest} of 2"


def test_other_sparsities(tmp_path):
    options = {"seeds": 1, "quick": True, "n_jobs": 0, "progress": False}
    tables = benchmark.run("losses", out=tmp_path, sparsities=[0.25], **options)
    assert tables["losses"]["zeros"].tolist() == ["25%"] * 3
    assert isinstance(tables["losses_published"], pd.DataFrame)
    assert tables["losses_published"].empty
    with pytest.raises(ValueError, match="sparsities: 1 must"):
        benchmark.run("losses", out=tmp_path, sparsities=[1], **options)
