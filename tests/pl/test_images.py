"""Every plot looks as its committed baseline does, and a picture that changed materially is noticed.

How to write the baselines anew: see conftest.py.
"""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from raptorgraph import pl


def axes(width, height):
    return Figure(figsize=(width, height), layout="constrained").subplots()


def dag(e, changed):
    if changed:
        e.edges.loc[1, "weight"] *= -1
    return pl.dag(e.edges, ax=axes(4, 4), weights=True)


def dag_annotated(e, changed):
    label = e.enrichment.drop_duplicates("latent").set_index("latent")["gene_set"].rename("program")
    label["B"] = "HALLMARK_E2F_TARGETS"
    if changed:
        label["C"] = "HALLMARK_E2F_TARGETS"
    return pl.dag(e.edges, genes="D", color=label, label=label, ax=axes(5, 4))


def dag_numbers(e, changed):
    size = e.enrichment.groupby("latent")["NES"].max().rename("size")
    size["A"] = 0.0 if changed else 5.0
    return pl.dag(e.edges, color=size, ax=axes(5, 4), title="by size")


def interactions(e, changed):
    if changed:
        e.interactions.loc[2, "synergy"] = 1.4
    return pl.interactions(e.interactions, ax=axes(5, 4))


def interactions_plain(e, changed):
    e.interactions.loc[0, "measured"] = not changed
    return pl.interactions(e.interactions, "redundancy", types=False, order="name", ax=axes(5, 4))


def pair(e, changed):
    if changed:
        e.model.effects.loc["A+B", "gene05"] += 1.0
    return pl.pair(e.model, "A+B", n_genes=12, ax=axes(11, 4))


def pair_unmeasured(e, changed):
    e.model.effects.loc["B+C"] = e.model.effects.loc["B"] + e.model.effects.loc["C"] * (0.5 if changed else 1.0)
    return pl.pair(e.model, "B+C", n_genes=10, ax=axes(9, 3.5))


def enrichment_heatmap(e, changed):
    if changed:
        e.enrichment.loc[12, "NES"] *= -1
    return pl.enrichment(e.enrichment, ax=axes(6, 3))


def enrichment_dots(e, changed):
    if changed:
        e.enrichment.loc[12, "FDR"] = 0.9
    return pl.enrichment(e.enrichment, kind="dots", ax=axes(6, 3))


def effect(e, changed):
    measured = e.model.effects.loc["A"]
    predicted = measured * (0.6 if changed else 0.9)
    return pl.effect(predicted, measured, n_labels=6, title="A", ax=axes(4, 4))


def effect_of_model(e, changed):
    if changed:
        e.model.effects.loc["B", "gene05"] = -1.5
    return pl.effect(e.model, perturbation="B", error_bars=True, n_labels=6, ax=axes(4, 4))


def training(e, changed):
    if changed:
        e.model.history["kl_validation"] *= 1.1
    return pl.training(e.model, ax=axes(8, 2.5))


def latents(e, changed):
    if changed:
        e.model.adata.obs["perturbation"] = e.model.adata.obs["perturbation"].replace({"A": "C"})
    return pl.latents(e.model, basis="X_map", ax=axes(5, 4))


def latents_numbers(e, changed):
    if changed:
        e.model.adata.obs["depth"] = e.model.adata.obs["depth"].to_numpy()[::-1]
    return pl.latents(e.model, color="depth", basis="X_map", ax=axes(5, 4))


def uncertainty(e, changed):
    if changed:
        e.model.effects.loc["A"] *= 1.15
    return pl.uncertainty(e.model, "A", n_genes=12, ax=axes(5, 3.5))


def calibration(e, changed):
    if changed:
        e.model.effects.loc["A"] *= 1.5
    return pl.uncertainty(e.model, kind="calibration", ax=axes(4, 4))


def counterfactual(e, changed):
    if changed:
        e.model.effects.loc["A+B"] = 0.0
    return pl.counterfactual(e.model, "A+B", basis="X_map", ax=axes(5, 4))


def counterfactual_cells(e, changed):
    if changed:
        e.model.effects.loc["A"] = 0.0
    return pl.counterfactual(e.model, "A", kind="cells", basis="X_map", ax=axes(5, 4))


def reverse(e, changed):
    if changed:
        e.reverse.loc[0, "distance"] = 3.5
    return pl.reverse(e.reverse, truth=["A", "B"], ax=axes(4.5, 2.5))


def next_pairs(e, changed):
    if changed:
        e.next_pairs.loc["C+D", "gain"] = 0.06
    return pl.next_pairs(e.next_pairs, ax=axes(5.5, 2.2))


def power(e, changed):
    if changed:
        e.power.iloc[1, 1] = 0.3
    return pl.power(e.power, ax=axes(5.5, 3))


def guides(e, changed):
    if changed:
        e.guides.loc[5, "size"] = 0.2
    return pl.guides(e.guides, ax=axes(8, 3.2))


def state_effects(e, changed):
    if changed:
        e.states.loc[3, "scale_late"] = 1.6
    return pl.state_effects(e.states, ax=axes(5, 3))


def volcano(e, changed):
    if changed:
        e.model.effects.loc["A", "gene05"] = -0.9
    return pl.volcano(e.model, "A", n_labels=6, ax=axes(6, 4))


def effects_map(e, changed):
    if changed:
        e.model.effects.loc["A", "gene05"] *= -1
    return pl.effects_map(e.model, n_genes=20, ax=axes(7, 3))


def similarity(e, changed):
    if changed:
        e.model.effects.loc["C"] *= -1
    return pl.similarity(e.model, ax=axes(5.5, 4))


CASES = {
    case.__name__: case
    for case in (
        dag,
        dag_annotated,
        dag_numbers,
        interactions,
        interactions_plain,
        pair,
        pair_unmeasured,
        enrichment_heatmap,
        enrichment_dots,
        effect,
        effect_of_model,
        training,
        latents,
        latents_numbers,
        uncertainty,
        calibration,
        counterfactual,
        counterfactual_cells,
        reverse,
        next_pairs,
        power,
        state_effects,
        volcano,
        effects_map,
        similarity,
        guides,
    )
}


def figure_of(drawn):
    return (drawn if hasattr(drawn, "figure") else drawn[0]).figure


@pytest.mark.parametrize("name", CASES)
def test_picture_is_as_the_baseline(name, example, differs):
    assert differs(figure_of(CASES[name](example, changed=False)), name) == 0


@pytest.mark.parametrize("name", CASES)
def test_changed_picture_is_noticed(name, example, differs, monkeypatch):
    monkeypatch.delenv("RAPTORGRAPH_REGENERATE", raising=False)
    found = differs(figure_of(CASES[name](example, changed=True)), name)
    assert found > 0


def test_every_plot_has_a_picture_and_baselines_stay_small():
    assert {name for name in pl.__all__ if not any(case.startswith(name) for case in CASES)} == set()
    files = list((Path(__file__).parent / "baseline").iterdir())
    assert {file.stem for file in files} == set(CASES)
    assert sum(file.stat().st_size for file in files) < 600_000
