import numpy as np
import pandas as pd
import pytest

from raptorgraph import pl


def test_score_above_and_type_below_the_diagonal(interaction_table):
    ax = pl.interactions(interaction_table, order="name")
    score, kind = (image.get_array() for image in ax.images)
    assert score[0, 1] == 1.5
    assert score[0, 2] == 0.8
    assert score.mask[np.tril_indices(4)].all()
    assert kind.mask[np.triu_indices(4)].all()
    assert kind.mask[3, 2]
    assert not kind.mask[1, 0]
    assert ax.images[0].norm.vmin == pytest.approx(1 / ax.images[0].norm.vmax)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "synergy (1)" in texts
    assert "undetermined (2)" in texts
    assert "measured" in texts
    assert [tick.get_text() for tick in ax.get_xticklabels()] == list("ABCD")
    dots = {tuple(point) for point in np.asarray(dots_of(ax).get_offsets())}
    assert dots == {(1.0, 0.0), (2.0, 1.0)}  # A+B and B+C, above the diagonal


def dots_of(ax):
    return next(part for part in ax.collections if part.get_label() == "measured")


@pytest.mark.parametrize("types", [True, False])
def test_what_is_undetermined_is_hatched_in_both_halves(interaction_table, types):
    ax = pl.interactions(interaction_table, types=types, order="name")
    (hatched,) = (part for part in ax.collections if part.get_hatch())
    squares = {tuple(path.vertices[:4].mean(axis=0)) for path in hatched.get_paths()}
    assert squares == {(3, 0), (0, 3), (2, 1), (1, 2)}  # A+D and B+C
    assert all(np.ptp(path.vertices, axis=0).tolist() == [1, 1] for path in hatched.get_paths())
    certain = interaction_table.assign(interaction="synergy")
    assert not [part for part in pl.interactions(certain, types=types).collections if part.get_hatch()]


def bar_of(ax):
    return next(other for other in ax.child_axes if "synergy" in other.get_ylabel())


@pytest.mark.parametrize(("largest", "limit"), [(1.02, 2), (1.9, 2), (2.4, 3), (0.15, 10), (500.0, 500)])
def test_colors_of_ratios_reach_from_a_half_to_two_at_least(interaction_table, largest, limit):
    table = interaction_table.assign(synergy=[largest, 1.0, 1.0, 1.0, 1.0])
    ax = pl.interactions(table, order="name")
    norm = ax.images[0].norm
    assert norm.vmax == pytest.approx(limit, rel=0.25 if limit == 500 else 1e-9)
    assert norm.vmin == pytest.approx(1 / norm.vmax)
    ax.figure.draw_without_rendering()
    ticks = bar_of(ax).get_yticks()
    np.testing.assert_allclose(ticks, [norm.vmin, 1, norm.vmax])
    assert [label.get_text() for label in bar_of(ax).get_yticklabels()][1] == "1"


def test_tables_of_older_versions_are_drawn(interaction_table):
    old = interaction_table.assign(interaction=["synergy", "suppression", "additive", "undefined", "epistasis"])
    ax = pl.interactions(old)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert {"additive (1)", "undefined (1)"} <= set(texts)


def test_without_types_both_halves_show_the_score(interaction_table):
    ax = pl.interactions(interaction_table, "redundancy", types=False, order="name")
    (image,) = ax.images
    values = image.get_array()
    assert values[0, 1] == values[1, 0] == 0.1
    assert values.mask[2, 3]
    assert values.mask.diagonal().all()
    assert image.norm.vmin == 0.1
    assert len(dots_of(ax).get_offsets()) == 4
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["undetermined", "measured"]
    plain = pl.interactions(interaction_table.drop(columns=["interaction", "measured"]))
    assert plain.get_legend() is None
    assert len(plain.images) == 1


def test_genes_with_similar_scores_stand_side_by_side():
    genes = [f"{kind}{k}" for k in range(4) for kind in "xy"]
    pairs = [(a, b) for k, a in enumerate(sorted(genes)) for b in sorted(genes)[k + 1 :]]
    table = pd.DataFrame(pairs, columns=["gene_a", "gene_b"])
    table["synergy"] = [2.0 if a[0] == b[0] == "x" else 0.5 if a[0] == b[0] else 1.0 for a, b in pairs]
    ax = pl.interactions(table.sample(frac=1, random_state=0))
    order = "".join(tick.get_text()[0] for tick in ax.get_yticklabels())
    assert order in ("xxxxyyyy", "yyyyxxxx")


def test_many_genes_are_counted_instead_of_named():
    genes = [f"g{k:03d}" for k in range(130)]
    table = pd.DataFrame({"gene_a": genes[:-1], "gene_b": genes[1:], "synergy": np.linspace(0.5, 2, 129)})
    ax = pl.interactions(table)
    assert ax.get_xlabel() == "130 genes"
    assert len(ax.get_xticks()) == 0


def test_bad_input(interaction_table):
    with pytest.raises(KeyError, match="'other' is not a column"):
        pl.interactions(interaction_table, "other")
    with pytest.raises(KeyError, match="'interaction' is not a column"):
        pl.interactions(interaction_table.drop(columns="interaction"), types=True)
    with pytest.raises(ValueError, match="numbers"):
        pl.interactions(interaction_table, "interaction")
    with pytest.raises(ValueError, match="no pairs"):
        pl.interactions(interaction_table.iloc[:0])
    with pytest.raises(ValueError, match="order='size'"):
        pl.interactions(interaction_table, order="size")
    with pytest.raises(ValueError, match="'odd' is none of"):
        pl.interactions(interaction_table.assign(interaction="odd"))
