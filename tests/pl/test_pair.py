import numpy as np
import pandas as pd
import pytest

from raptorgraph import pl, tl


def rows(ax):
    first = ax.figure.axes[0]  # the others share its names
    return dict(zip([tick.get_text() for tick in first.get_yticklabels()], first.get_yticks(), strict=True))


def bars(ax):
    """Ends of the gray bars by gene: the effects."""
    return {name: bar.get_width() for name, bar in by_gene(ax, 0).items()}


def by_gene(ax, container):
    at = {round(y, 6): name for name, y in rows(ax).items()}
    return {at[round(bar.get_y() + bar.get_height() / 2, 6)]: bar for bar in ax.containers[container]}


def test_five_panels_show_their_effects_on_one_scale(fixed):
    axes = pl.pair(fixed, "B+A", n_genes=12)
    assert len(axes) == 5
    titles = [ax.get_title().split("\n")[0] for ax in axes]
    assert titles == ["A", "B", "sum of the two", "predicted A+B", "measured A+B"]
    assert len({ax.get_xlim() for ax in axes}) == 1
    assert len({ax.get_ylim() for ax in axes}) == 1
    predicted = fixed.predict_effects(["A", "B", "A+B"])
    expected = [predicted.loc["A"], predicted.loc["B"], predicted.loc["A"] + predicted.loc["B"], predicted.loc["A+B"]]
    for ax, effect in zip(axes, expected, strict=False):
        shown = bars(ax)
        assert len(shown) == 12
        assert shown == pytest.approx(effect[list(shown)].to_dict())
    means = fixed.adata.to_df().groupby(fixed.adata.obs["perturbation"]).mean()
    measured = bars(axes[4])
    assert measured == pytest.approx((means.loc["A+B"] - means.loc["control"])[list(measured)].to_dict())


def test_departures_come_first_and_are_colored_by_their_sign(fixed):
    axes = pl.pair(fixed, "A+B", n_genes=12)
    place = rows(axes[0])
    headings = place["departs most from the sum"], place["other large effects"]
    departing = {name for name, y in place.items() if headings[0] < y < headings[1]}
    assert departing >= {f"gene{k:02d}" for k in range(5, 10)}  # where the numbers depart (conftest)
    predicted = fixed.predict_effects(["A", "B", "A+B"])
    gap = predicted.loc["A+B"] - predicted.loc["A"] - predicted.loc["B"]
    order = sorted(departing, key=place.get)
    assert list(gap[order]) == sorted(gap[order], reverse=True)
    for name, bar in by_gene(axes[3], 1).items():
        assert bar.get_width() == pytest.approx(gap[name])
        if abs(gap[name]) > 1e-9:
            assert (bar.get_facecolor()[0] > 0.5) == (gap[name] > 0)  # orange above the sum, blue below


def test_titles_have_the_scores_of_the_pair(fixed):
    axes = pl.pair(fixed, "A+B")
    row = tl.interactions(fixed, ["A+B"], seed=0).iloc[0]
    lines = axes[3].get_title().split("\n")
    assert lines[1] == f"synergy {row['synergy']:.2f} [{row['synergy_low']:.2f}, {row['synergy_high']:.2f}]"
    assert lines[2].startswith(f"neomorphism {row['neomorphism']:.2f} [")
    assert lines[3] == row["interaction"]
    assert "synergy" in axes[4].get_title()


def test_unmeasured_pair_has_four_panels_and_given_cells_or_effects_add_the_fifth(fixed):
    fixed.effects.loc["B+C"] = fixed.effects.loc["B"] + fixed.effects.loc["C"]
    assert len(pl.pair(fixed, ("C", "B"))) == 4
    given = fixed.effects.loc["A"] * 3
    axes = pl.pair(fixed, "B+C", measured=given)
    shown = bars(axes[4])
    assert shown == pytest.approx(given[list(shown)].to_dict())
    cells = fixed.adata[fixed.adata.obs["perturbation"].isin(["control", "A"])].copy()
    cells.obs["perturbation"] = cells.obs["perturbation"].replace({"A": "C+B"})
    assert len(pl.pair(fixed, "B+C", measured=cells)) == 5
    with pytest.raises(ValueError, match="no 'B\\+C'"):
        pl.pair(fixed, "B+C", measured=fixed.adata)
    with pytest.raises(ValueError, match="lacks 39 genes"):
        pl.pair(fixed, "B+C", measured=given.iloc[:1])


def test_whiskers_are_ninety_percent_intervals(fixed):
    axes = pl.pair(fixed, "A+B", genes=["gene05", "gene20"])
    assert list(rows(axes[0])) == ["gene05", "gene20"]
    mean, sd = fixed.predict_effects(["A+B"], return_sd=True)
    (_, _, (segments,)) = axes[3].containers[2]
    ends = np.array([segment[:, 0] for segment in segments.get_segments()])
    expected = np.column_stack([mean.iloc[0] - 1.645 * sd.iloc[0], mean.iloc[0] + 1.645 * sd.iloc[0]])
    chosen = [mean.columns.get_loc(name) for name in ("gene05", "gene20")]
    np.testing.assert_allclose(ends, expected[chosen])
    fixed.has_posterior = False
    assert len(pl.pair(fixed, "A+B", genes=["gene05"])[3].containers) == 2


def test_bars_that_leave_no_room_are_cut_and_their_value_is_written(fixed):
    fixed.effects.loc[["A", "A+B"], "A"] = 40.0
    axes = pl.pair(fixed, "A+B", n_genes=10)
    assert axes[0].get_xlim()[1] < 5
    assert [text.get_text() for text in axes[0].texts] == ["36.0"]
    assert [tick.get_text() for tick in axes[0].get_yticklabels() if tick.get_fontweight() == "bold"][0] in "AB"


def test_of_a_trained_model(trained):
    pairs = [label for label in trained.conditions if "+" in label]
    before = trained.adata.obs.copy()
    axes = pl.pair(trained, pairs[0], n_genes=8)
    assert len(axes) == 5
    pd.testing.assert_frame_equal(trained.adata.obs, before)


def test_bad_input(fixed):
    with pytest.raises(ValueError, match="has 1 genes"):
        pl.pair(fixed, "A")
    with pytest.raises(ValueError, match="n_genes=1"):
        pl.pair(fixed, "A+B", n_genes=1)
    with pytest.raises(KeyError, match="'other'"):
        pl.pair(fixed, "A+B", genes=["other"])
