import numpy as np
import pytest

from raptorgraph import metrics, pp
from raptorgraph.benchmark import _pairs
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._settings import Settings


@pytest.fixture(scope="module")
def result(quick):
    return quick("reverse", methods=["no change", "additive", "raptorgraph"])


def test_tables_and_figure(result):
    tables, out = result
    assert tables["reverse"]["method"].tolist() == ["chance", "no change", "additive", "raptorgraph"] * 3
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


def test_the_published_query_is_a_mean_profile_on_all_genes(quick):
    """Eq. S16 to Eq. S18 on the split of section E.5: all measured pairs are asked."""
    tables, out = quick("reverse", methods=["no change", "additive"], regimes=["paper"])
    values = tables["reverse_long"].set_index(["by", "method", "metric"])["value_mean"]
    assert set(tables["reverse_long"]["regime"]) == {"paper"}
    found = {"correct": [], "relevant": []}
    for seed in (0, 1):
        screen = load_screen(Settings(screen="simulated", quick=True), seed)
        cells, labels = screen.expression.toarray().astype(float), screen.adata.obs["perturbation"].astype(str)
        profiles = {label: cells[(labels == label).to_numpy()].mean(0) for label in labels.unique()}
        pairs = _pairs.database(screen)
        assert len(pairs) == 10
        control = profiles["control"]
        predicted = np.array([sum(profiles[g] - control for g in pair.split("+")) + control for pair in pairs])
        queries = [label for label in screen.combinations if label in pairs]
        assert len(queries) == 8
        distances = np.array([np.sqrt(((profiles[q] - predicted) ** 2).sum(1)) for q in queries])
        rates = metrics.hit_rates(distances, [p.split("+") for p in pairs], [q.split("+") for q in queries], k=(1, 3))
        for kind, each in rates.items():
            found[kind].append(each)
    for kind, each in found.items():
        for k, value in zip((1, 3), np.mean(each, axis=0), strict=True):
            assert values["published", "additive", f"{kind} @ {k}"] == pytest.approx(value)
    assert values["published", "no change", "correct @ 3"] == pytest.approx(
        values["published", "chance", "correct @ 3"]
    )


def test_regimes_that_fit_combinations_are_refused(quick):
    for name, options in (("reverse", {}), ("interactions", {})):
        with pytest.raises(ValueError, match="regimes: 'doubles' is none of singles, paper"):
            quick(name, methods=["additive"], regimes=["doubles"], **options)
