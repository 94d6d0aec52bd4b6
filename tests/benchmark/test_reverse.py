import pytest

from raptorgraph import pp
from raptorgraph.benchmark import _pairs
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._settings import Settings


@pytest.fixture(scope="module")
def result(quick):
    return quick("reverse", methods=["no change", "additive", "raptorgraph"])


def test_tables_and_figure(result):
    tables, out = result
    assert tables["reverse"]["method"].tolist() == ["chance", "no change", "additive", "raptorgraph"] * 2
    assert tables["reverse_long"]["value_mean"].between(0, 1).all()
    assert (out / "reverse.png").stat().st_size > 0


def test_no_change_scores_chance_and_rates_rise_with_k(result):
    tables, _ = result
    values = tables["reverse_long"].set_index(["by", "method", "metric"])["value_mean"]
    for kind in ("correct", "relevant"):
        for k in (1, 3, 5):
            assert values["effect", "no change", f"{kind} @ {k}"] == pytest.approx(
                values["effect", "chance", f"{kind} @ {k}"]
            )
        rates = [values["effect", "additive", f"{kind} @ {k}"] for k in (1, 3, 5, 10)]
        assert rates == sorted(rates)
    # ten pairs of five genes: the correct one is among the first k by chance in k / 10
    assert values["effect", "chance", "correct @ 3"] == pytest.approx(0.3)


def test_baselines_rank_by_profile_as_by_effect(result):
    tables, _ = result
    values = tables["reverse_long"].set_index(["by", "method", "metric"])["value_mean"]
    for metric in tables["reverse_long"]["metric"].unique():
        assert values["effect", "additive", metric] == pytest.approx(values["profile", "additive", metric])


def test_database_of_all_genes_or_the_published_twenty():
    screen = load_screen(Settings(screen="simulated", quick=True), 0)
    assert _pairs.database_genes(screen) == ["P01", "P02", "P03", "P04", "P05"]
    assert len(_pairs.database(screen)) == 10

    class Norman:
        genes_of = {gene: (gene,) for gene in (*_pairs.NORMAN_GENES, "AHR", "SET")} | {"AHR+SET": ("AHR", "SET")}
        singles = [*_pairs.NORMAN_GENES, "AHR", "SET"]
        combinations = ["AHR+SET"]
        label = staticmethod(pp.format_perturbation)

    assert _pairs.database_genes(Norman()) == list(_pairs.NORMAN_GENES)
    assert len(_pairs.database(Norman())) == 190

    class Large:
        genes_of = {f"g{i:02d}": (f"g{i:02d}",) for i in range(40)} | {"g38+g39": ("g38", "g39")}
        singles = [f"g{i:02d}" for i in range(40)]
        combinations = ["g38+g39"]

    assert _pairs.database_genes(Large()) == [*(f"g{i:02d}" for i in range(28)), "g38", "g39"]
