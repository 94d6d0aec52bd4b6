import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from raptorgraph import pl
from raptorgraph.pl._set_names import readable


def shown(ax):
    """Scores as they stand in the heat map, sets x latents."""
    rows, columns = ([tick.get_text() for tick in ticks] for ticks in (ax.get_yticklabels(), ax.get_xticklabels()))
    return pd.DataFrame(np.ma.filled(ax.images[0].get_array(), np.nan), rows, columns)


def test_heat_map_has_the_scores_and_marks_the_significant_ones(enrichment_table):
    ax = pl.enrichment(enrichment_table)
    found = shown(ax)
    for row in enrichment_table.itertuples():
        assert found.loc[readable(row.gene_set), row.latent] == pytest.approx(row.NES)
    dots = np.asarray(ax.collections[-1].get_offsets(), dtype=int)
    marked = {(found.index[y], found.columns[x]) for x, y in dots}
    low = enrichment_table[enrichment_table["FDR"] < 0.05]
    assert marked == {(readable(s), latent) for s, latent in zip(low["gene_set"], low["latent"], strict=True)}
    opacity = pd.DataFrame(ax.images[0].get_alpha(), found.index, found.columns)
    for row in enrichment_table.itertuples():
        assert opacity.loc[readable(row.gene_set), row.latent] == (1.0 if row.FDR < 0.05 else 0.3)


def test_colors_mean_the_same_in_every_figure(enrichment_table):
    larger = enrichment_table.assign(NES=2 * enrichment_table["NES"])
    for table in (enrichment_table, larger):
        for kind in ("heatmap", "dots"):
            ax = pl.enrichment(table, kind=kind)
            norm = (ax.images or ax.collections)[0].norm
            assert (norm.vmin, norm.vmax) == (-3, 3)
    assert pl.enrichment(larger, limit=5).images[0].norm.vmax == 5
    other = pl.enrichment(enrichment_table.rename(columns={"NES": "score"}), value="score").images[0].norm
    assert other.vmax == -other.vmin == enrichment_table["NES"].abs().max()


def test_latents_that_do_not_stand_out_are_gray(enrichment_table):
    ax = pl.enrichment(enrichment_table)
    colors = {tick.get_text(): to_hex(tick.get_color()) for tick in ax.get_xticklabels()}
    assert {name for name, color in colors.items() if color != "#000000"} == {"D"}
    assert any("stand out" in text.get_text() for text in ax.get_legend().get_texts())
    assert {to_hex(tick.get_color()) for tick in pl.enrichment(
        enrichment_table.drop(columns="stands_out")).get_xticklabels()} == {"#000000"}  # fmt: skip


def test_dots_have_the_size_of_the_rate_and_a_ring_below_it(enrichment_table):
    ax = pl.enrichment(enrichment_table, kind="dots")
    dots, rings = ax.collections[:2]
    sizes = dots.get_sizes()
    assert len(sizes) == 20
    assert len(np.unique(sizes)) == 2
    assert (dots.get_alpha()[sizes == sizes.max()] >= 0.3).all()
    assert (dots.get_alpha()[sizes == sizes.min()] <= 0.3).all()
    assert len(rings.get_offsets()) == (enrichment_table["FDR"] < 0.05).sum()
    assert rings.get_sizes().min() == sizes.max()


def test_both_rates_count_where_there_are_two(enrichment_table):
    first = enrichment_table["FDR"].idxmin()
    enrichment_table["FDR_null"] = np.nan
    before = len(pl.enrichment(enrichment_table).collections[-1].get_offsets())
    enrichment_table.loc[first, "FDR_null"] = 0.5
    assert len(pl.enrichment(enrichment_table).collections[-1].get_offsets()) == before - 1


def test_top_sets_and_latents(enrichment_table):
    ax = pl.enrichment(enrichment_table, n_sets=2, n_latents=3)
    found = shown(ax)
    assert found.shape == (2, 3)
    assert "D" not in found
    assert ax.get_xlabel() == "latent (3 of 4)"
    clear = enrichment_table[enrichment_table["stands_out"]]
    best = clear.groupby("gene_set").agg(FDR=("FDR", "min"), size=("NES", lambda x: -x.abs().max()))
    assert set(found.index) == {readable(name) for name in best.sort_values(["FDR", "size"]).index[:2]}


def test_similar_rows_and_columns_stand_side_by_side():
    rng = np.random.default_rng(0)
    table = pd.MultiIndex.from_product([range(8), range(8)], names=["latent", "gene_set"]).to_frame(index=False)
    same = table["latent"] % 2 == table["gene_set"] % 2
    table["NES"] = np.where(same, 2.0, -2.0) + rng.normal(scale=0.1, size=64)
    table["FDR"] = 0.01
    ax = pl.enrichment(table.astype({"latent": str, "gene_set": str}))
    for ticks in (ax.get_xticklabels(), ax.get_yticklabels()):
        parity = [int(tick.get_text()) % 2 for tick in ticks]
        assert parity in ([0] * 4 + [1] * 4, [1] * 4 + [0] * 4)


def test_missing_scores_are_left_blank(enrichment_table):
    enrichment_table.loc[0, ["NES", "FDR"]] = np.nan
    found = shown(pl.enrichment(enrichment_table))
    assert np.isnan(found.loc["TNFA signaling via NFKB", "A"])
    assert found.notna().to_numpy().sum() == 19
    assert len(pl.enrichment(enrichment_table, kind="dots").collections[0].get_offsets()) == 19


def test_table_of_effects_has_perturbations(enrichment_table):
    table = enrichment_table.rename(columns={"latent": "perturbation"})
    assert pl.enrichment(table).get_xlabel() == "perturbation"


def test_bad_input(enrichment_table):
    with pytest.raises(ValueError, match="kind='bars'"):
        pl.enrichment(enrichment_table, kind="bars")
    with pytest.raises(ValueError, match="n_sets=0"):
        pl.enrichment(enrichment_table, n_sets=0)
    with pytest.raises(ValueError, match="limit=0"):
        pl.enrichment(enrichment_table, limit=0)
    with pytest.raises(KeyError, match="'latent' nor 'perturbation'"):
        pl.enrichment(enrichment_table.drop(columns="latent"))
    with pytest.raises(KeyError, match="'NES'"):
        pl.enrichment(enrichment_table.drop(columns="NES"))
    with pytest.raises(ValueError, match="are there twice"):
        pl.enrichment(pd.concat([enrichment_table] * 2))
    with pytest.raises(ValueError, match="no score"):
        pl.enrichment(enrichment_table.assign(NES=np.nan))
