"""Each thing to know is said where it holds, and not where it does not."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from raptorgraph.evaluation._held_out_scores import HALF, MODEL, SINGLES, UNSEEN, HeldOut, Scores
from raptorgraph.model._network_checks import edges_of_few_cells
from raptorgraph.report._blocks import IMPORTANT
from raptorgraph.report._notes import notes
from raptorgraph.screen import Screen
from raptorgraph.screen._checks import checked
from raptorgraph.screen._screen_checks import check_screen
from raptorgraph.screen._strength import strengths

EDGES = pd.DataFrame(
    {"source": ["P01", "P02"], "target": ["P02", "P03"], "weight": [0.5, 0.2], "probability": [0.99, 0.7]}
)


def scores(ours, theirs, *, se=0.01):
    table = pd.DataFrame({"method": [MODEL, "additive", HALF], "relative_mse": [ours, theirs, 0.4]})
    return Scores(["P01+P02"] * 10, table, "additive", ours - theirs, se, 0.9)


@pytest.fixture
def said(screen):
    """All notes on a screen, by title; everything in order but for what is given."""

    def say(given=None, **changes):
        given = given or screen
        options = {"singles_only": False, "max_epochs": None, "preset": "default", **changes.pop("options", {})}
        edges = changes.pop("edges", EDGES)
        run = {"control": {"drift": 0.0, "variance_ratio": 1.0}}
        held = changes.pop("held", HeldOut(scores={UNSEEN: scores(0.5, 0.8), SINGLES: scores(0.3, 0.5)}))
        strength = changes.pop("strength", strengths(given).assign(stands_out=True))
        model = SimpleNamespace(has_posterior=changes.pop("has_posterior", True))
        run = SimpleNamespace(screen=given, model=model, options=options, **{**run, **changes})
        checks = check_screen(given, strength, singles_only=options["singles_only"])
        checks.append(checked("graph", "", lambda: edges_of_few_cells(edges)))
        found = notes(run, checks, held)
        assert [note.level for note in found] == sorted(note.level for note in found)
        assert all(note.title and note.text.endswith(".") for note in found)
        return {note.title: note for note in found}

    return say


def with_labels(screen, change):
    adata = screen.adata.copy()
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).map(change)
    return Screen(adata, screen.setup)


def test_nothing_is_said_of_a_good_screen(said):
    assert said() == {}


def test_few_control_cells(said, screen):
    rows = np.r_[screen.rows("control")[:30], np.flatnonzero(screen.codes)]
    found = said(Screen(screen.adata[rows].copy(), screen.setup))
    assert found["Only 30 control cells"].level == IMPORTANT


def test_few_cells_of_a_perturbation(said, screen):
    rows = np.setdiff1d(np.arange(screen.adata.n_obs), screen.rows("P01")[5:])
    note = said(Screen(screen.adata[rows].copy(), screen.setup))["1 perturbation with fewer than 30 cells"]
    assert "P01 (5)" in note.text


def test_controls_that_were_read_as_genes(said, screen):
    adata = screen.adata.copy()
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    labels[screen.rows("control")[:40]] = "non-targeting"
    adata.obs["perturbation"] = labels
    note = said(Screen(adata, screen.setup))["Labels that look like controls were read as perturbed genes"]
    assert "non-targeting" in note.text
    assert "--control" in note.text
    assert note.level == IMPORTANT


def test_values(said, screen):
    log = screen.adata.copy()
    log.X = np.log1p(log.X.toarray() / log.obs["total_counts"].to_numpy()[:, None] * 1e4)
    assert "The values are log-normalized, not counts" in said(Screen(log, screen.setup))
    setup = {**screen.setup, "library_size_key": None}
    title = "The file seems to hold a part of the genes only: use --library-size-key total_counts"
    assert said(Screen(screen.adata, setup))[title].level == IMPORTANT
    adata = screen.adata.copy()
    del adata.obs["total_counts"]
    found = said(Screen(adata, setup))
    assert "Library sizes are sums over the 60 genes in the file" in found
    assert title not in found


def test_batches(said, screen):
    adata = screen.adata.copy()
    adata.obs["gem_group"] = np.where(np.arange(adata.n_obs) % 2, "1", "2")
    assert "gem_group" in said(Screen(adata, screen.setup))["Batches were not taken into account"].text
    adata.obs["gem_group"] = np.where(screen.codes == 0, "1", "2")
    found = said(Screen(adata, {**screen.setup, "batch_key": "gem_group"}))
    assert found["1 batch without control cells"].level == IMPORTANT


def test_targets_without_a_gene(said, screen):
    adata = screen.adata.copy()
    adata.var_names = ["p-01" if name == "P01" else name for name in adata.var_names]
    note = said(Screen(adata, screen.setup))["1 perturbed gene of 5 not among the genes of the file"]
    assert "P01 -> p-01" in note.text


def test_what_the_setup_warned_of_is_not_warned_of_again(said, screen):
    note = said(with_labels(screen, lambda label: label.replace("P01", "P01_g2")))
    assert "P01_g2 -> P01" in note["1 perturbed gene of 5 not among the genes of the file"].text


def test_targets_that_do_not_answer(said, screen):
    strength = strengths(screen)
    strength.loc["P01", "own_gene"], strength.loc["P02", "own_gene"] = 0.01, 1.5
    found = said(strength=strength)
    assert found["1 perturbation whose own gene does not visibly change"].text.startswith("P01. ")
    assert found["1 perturbation whose own gene goes up"].text.startswith("P02. With most perturbations")
    strength["own_gene"] *= -1
    found = said(strength=strength)
    assert found["1 perturbation whose own gene goes down"].text.startswith("P02. With most perturbations")


def test_weak_perturbations(said, screen):
    strength = strengths(screen)
    strength.loc[["P01", "P01+P02"], "stands_out"] = False
    assert "P01" in said(strength=strength)["2 perturbations of 14 not told from noise"].text
    strength["p"] = np.nan
    assert "Too few control cells to say which perturbations stand out" in said(strength=strength)


def test_combinations(said, screen):
    rows = np.setdiff1d(np.arange(screen.adata.n_obs), screen.rows("P02"))
    found = said(Screen(screen.adata[rows].copy(), screen.setup))
    (title,) = (title for title in found if title.endswith("with a gene that was not perturbed alone"))
    assert "P02" in found[title].text
    learned = "How pairs depart from sums was not learned from this screen"
    left_out = said(options={"singles_only": True})[learned]
    assert left_out.text.startswith("The combinations of this screen were left out of the training.")
    alone = Screen(screen.cells(screen.singles), screen.setup)
    assert said(alone)[learned].text.startswith("This screen has no combinations.")
    pair = screen.combinations[0]
    missing = screen.genes_of[pair][0]
    apart = Screen(screen.cells([label for label in screen.singles if label != missing] + [pair]), screen.setup)
    assert said(apart)[learned].text.startswith("No pair of this screen has two genes that were also perturbed alone.")
    assert learned not in said()
    larger = with_labels(screen, {x: "P01+P02+P03" if x == "P01+P02" else x for x in screen.labels})
    assert "P01+P02+P03" in said(larger)["1 combination of more than two genes"].text


def test_quality(said):
    found = said(held=HeldOut(scores={UNSEEN: scores(0.9, 0.8)}))
    note = found["A simpler method predicts combinations that the fit had not seen better"]
    assert "“sum of singles” is 0.80" in note.text
    assert note.level == IMPORTANT
    assert not any("simpler" in title for title in said(held=HeldOut(scores={UNSEEN: scores(0.9, 0.8, se=0.2)})))
    found = said(held=HeldOut(scores={UNSEEN: scores(1.1, 0.8)}))
    assert any(title.endswith("are no better than predicting no change") for title in found)
    assert "The predictions were not tested" in said(held=HeldOut(reason="there must be more"))
    found = said(held=HeldOut(scores={SINGLES: scores(0.3, 0.5)}))
    assert "No combination could be left out to test predictions of combinations" in found


def test_order_of_pairs(said):
    ranks = pd.DataFrame(
        {"type": ["synergy", "epistasis", "redundancy"], "raptorgraph": [0.1, 0.2, 0.9], "half": [0.9, 0.1, 0.9]}
    ).assign(n_pairs=40)
    held = HeldOut(scores={UNSEEN: scores(0.5, 0.8)}, ranks=ranks)
    assert held.chance == pytest.approx(2 / np.sqrt(39))
    note = said(held=held)["The order of pairs by synergy and epistasis could not be told from chance"]
    assert "For epistasis, two measurements do not agree either" in note.text
    assert not said(held=HeldOut(scores=held.scores, ranks=ranks.assign(raptorgraph=0.9)))


def test_network_and_graph(said):
    found = said(control={"drift": 0.12, "variance_ratio": 0.5}, options={"max_epochs": 2})
    assert "12 %" in found["Predicted control cells differ from the measured ones"].text
    assert "0.50 times" in found["Predicted control cells vary less than measured ones"].text
    more = said(control={"drift": 0.0, "variance_ratio": 1.5})
    assert "1.50 times" in more["Predicted control cells vary more than measured ones"].text
    assert "The network was trained for 2 epochs, as asked" in found
    assert "The preset “paper” has no intervals" in said(has_posterior=False, options={"preset": "paper"})
    assert "The graph has no edge" in said(edges=EDGES.iloc[:0])
    note = said(edges=EDGES.assign(frequency=[0.3, 0.3]))["1 edge of the graph with support from a few cells only"]
    assert note.text.startswith("P01 → P02. ")
    assert note.level == IMPORTANT
    assert not said(edges=EDGES.assign(frequency=[0.9, 0.3]))


def test_genes_that_cannot_be_ordered(said):
    modules = pd.Categorical(["M1", None])
    note = said(edges=EDGES.assign(module=modules))["2 genes that the data cannot order"]
    assert note.text.startswith("P01 and P02 (M1). ")
    assert note.level == IMPORTANT
    assert not said(edges=EDGES.assign(module=pd.Categorical([None, None], categories=[])))
