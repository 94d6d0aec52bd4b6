import numpy as np
import pandas as pd
import pytest

from raptorgraph.benchmark import Settings, _profile, load_screen
from raptorgraph.evaluation._scores import CEILING, FLOOR

METHODS = ["additive", "raptorgraph paper", _profile.RANDOM]


@pytest.fixture(scope="module")
def screen():
    return load_screen(Settings(screen="simulated", quick=True), 0)


@pytest.fixture(scope="module")
def result(quick):
    return quick("profile", methods=METHODS, n_genes=7)


def test_genes_are_those_of_the_clearest_effect(result, screen):
    tables, out = result
    long = tables["profile_long"]
    (pair,) = long["pair"].unique()
    assert pair == max(screen.combinations, key=lambda label: np.linalg.norm(screen.effects.loc[label]))
    code = screen.labels.index(pair)
    t = screen.moments.effect[code] / np.sqrt(screen.moments.variance[code])
    expected = screen.adata.var_names[np.argsort(-np.abs(t))[:7]]
    assert tables["profile"]["gene"].tolist() == list(expected)
    values = long.set_index(["method", "gene"])["value_mean"]
    a, b = pair.split("+")
    for gene in expected:
        assert values["measured", gene] == pytest.approx(screen.effects.at[pair, gene])
        assert values["additive", gene] == pytest.approx(
            screen.effects.at[a, gene] + screen.effects.at[b, gene], abs=1e-5
        )
    assert list(tables["profile"].columns[2:]) == METHODS
    assert (out / "profile.png").stat().st_size > 0


def test_cells_stand_between_floor_and_ceiling(result, screen):
    tables, _ = result
    table = tables["profile_cells"].set_index("method")
    assert list(table.index) == [*METHODS, FLOOR, CEILING]
    assert float(table.loc["additive", "variance ratio"].split()[0]) == pytest.approx(1, abs=0.3)
    # the published networks predict cells without noise: a collapse that the ratio shows
    assert float(table.loc[_profile.RANDOM, "variance ratio"].split()[0]) < 0.5
    floor, ceiling = (float(table.loc[name, "MK-MMD"].split()[0]) for name in (FLOOR, CEILING))
    assert floor < float(table.loc["additive", "MK-MMD"].split()[0]) < ceiling


def test_coordinates_are_principal_components_of_real_cells(result, screen):
    places = result[0]["profile_coordinates"]
    assert list(dict.fromkeys(places["cells"])) == ["control", "measured", *METHODS]
    pair = result[0]["profile_cells"]["pair"].iloc[0]
    cells = np.concatenate([screen.expression_of("control"), screen.expression_of(pair)]).astype(float)
    values = np.linalg.svd(cells - cells.mean(0), compute_uv=False)
    real = places[places["cells"].isin(["control", "measured"])]
    assert len(real) == len(cells)
    np.testing.assert_allclose((real[["PC1", "PC2"]] ** 2).sum(), values[:2] ** 2, rtol=1e-4)


def test_pairs_are_named_in_any_order_and_random_pairs_are_random(result, screen):
    other = next(label for label in screen.combinations if label != result[0]["profile_long"]["pair"].iloc[0])
    settings = Settings(screen="simulated", quick=True, options={"pair": "+".join(reversed(other.split("+")))})
    assert _profile.pair_of(settings, screen) == other
    method = _profile._method(_profile.RANDOM, settings, screen, 0)
    assert (method.preset, method.model_kwargs) == ("paper", {"pairing": "random"})
    effects = result[0]["profile_long"].pivot(index="gene", columns="method", values="value_mean")
    assert not np.allclose(effects[_profile.RANDOM], effects["raptorgraph paper"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pair": "P01"}, "'P01' is no measured combination"),
        ({"pair": "P01+NO"}, "'P01.NO' is no measured combination"),
        ({"methods": ["mean double"]}, "'mean double' is unknown"),
        ({"methods": ["SENA"]}, "needs gene sets"),
    ],
)
def test_bad_requests(quick, options, message):
    with pytest.raises(ValueError, match=message):
        quick("profile", **options)


def test_a_screen_without_combinations_has_no_profile(tmp_path, quick, screen):
    singles = screen.cells(screen.singles)
    singles.write_h5ad(tmp_path / "singles.h5ad")
    with pytest.raises(ValueError, match="no combination of genes that were perturbed alone"):
        quick("profile", screen=str(tmp_path / "singles.h5ad"), library_size_key="total_counts")
    few = screen.cells([*screen.singles, screen.combinations[0]])
    rows = np.flatnonzero(few.obs["perturbation"] == screen.combinations[0])[6:]
    few = few[np.setdiff1d(np.arange(few.n_obs), rows)].copy()
    few.write_h5ad(tmp_path / "few.h5ad")
    with pytest.raises(ValueError, match="has 6 cells, too few to compare"):
        quick("profile", screen=str(tmp_path / "few.h5ad"), library_size_key="total_counts")


def test_values_to_read():
    rows = [("measured", "G1", 1.0), ("standard error", "G1", 0.25), ("m", "G1", 0.5)]
    by_gene = pd.DataFrame(rows, columns=["method", "gene", "value_mean"]).assign(value_sd=[np.nan, np.nan, 0.1])
    table = _profile._to_read(by_gene, "A+B")
    assert table.columns.tolist() == ["gene", "A+B, measured +- standard error", "m"]
    assert table.iloc[0].tolist() == ["G1", "1.000 +- 0.250", "0.500 +- 0.100"]
