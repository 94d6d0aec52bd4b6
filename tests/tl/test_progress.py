"""Bars of the tools: what is counted in a terminal, and silence where it is asked for."""

import pytest

import raptorgraph as rg
from raptorgraph.screen._noise import cell_classes, measured_latents


def calls(screen):
    """Name, call and the bars it must show, of every tool with the argument ``progress``."""
    model, adata = screen.model, screen.adata
    genes, names = model.perturbed_genes, list(model.var_names_)
    sets = {f"s{i}": names[12 + 10 * i : 32 + 10 * i] for i in range(3)}
    n_sizes = len(set(cell_classes(measured_latents(model.screen).n_cells)))
    n_classes = len(set(cell_classes(screen.model.screen.moments.n[1:])))
    pairs = [(genes[0], genes[k]) for k in range(1, 6)]
    effects = model.predict_effects(genes)
    return {
        "interactions": (
            lambda **k: rg.tl.interactions(model, pairs, chunk_size=2, n_draws=20, **k),
            {("Draws", 6), ("Noise", n_classes)},
        ),
        "reverse": (
            lambda **k: rg.tl.reverse(model, effects.iloc[:2], max_genes=2, chunk_size=20, **k),
            {("Perturbations", -(-(len(genes) * (len(genes) + 1) // 2) // 20))},
        ),
        "dag_stability": (lambda **k: rg.tl.dag_stability(model, n=2, n_null=1, **k), {("Graphs", 3)}),
        "enrich": (
            lambda **k: rg.tl.enrich(model, sets, n_permutations=10, n_null=20, **k),
            {("Latents", len(model.latent_names)), ("Gene sets", len(model.latent_names)), ("Noise", n_sizes)},
        ),
        "enrich_effects": (
            lambda **k: rg.tl.enrich_effects(effects.iloc[:4], sets, n_permutations=10, **k),
            {("Gene sets", 4)},
        ),
        "program_similarity": (
            lambda **k: rg.tl.program_similarity(model, n_cells=20, n_null=20, **k),
            {("Latents", len(model.latent_names)), ("Noise", n_sizes)},
        ),
        "effects": (lambda **k: rg.tl.effects(model, top=3, **k), {("Effects", 1)}),
        "effect_similarity": (lambda **k: rg.tl.effect_similarity(model, **k), {("Effects", 1)}),
        "predictions": (lambda: model.predict_effects(genes, adata, kind="decoder"), {("Effects", len(genes))}),
    }


TOOLS = ["interactions", "reverse", "dag_stability", "enrich", "enrich_effects", "program_similarity"]
TOOLS += ["effects", "effect_similarity"]


@pytest.mark.parametrize("name", [*TOOLS, "predictions"])
def test_bars_count_what_is_to_be_done(known_screen, in_terminal, name):
    call, bars = calls(known_screen)[name]
    with in_terminal() as terminal:
        call()
    assert bars <= terminal.bars()


@pytest.mark.parametrize("name", TOOLS)
def test_without_bars_nothing_is_written(known_screen, in_terminal, capsys, name):
    call, _ = calls(known_screen)[name]
    with in_terminal() as terminal:
        call(progress=False)
    assert terminal.getvalue() == ""
    call()  # no terminal
    assert capsys.readouterr() == ("", "")
