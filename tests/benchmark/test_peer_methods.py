"""What is asked of tools in environments of their own, and what is refused before any work."""

import json

import numpy as np
import pytest

from raptorgraph.benchmark import Settings, load_screen
from raptorgraph.benchmark._peer_methods import asked_peers, facts_of, label_of, peers_for, timeout_of, tuned_on
from raptorgraph.evaluation import doubles_folds, singles_only
from raptorgraph.screen import Screen


@pytest.fixture(scope="module")
def screen():
    return load_screen(Settings("simulated", quick=True))


def settings(**options):
    return Settings("simulated", options={"methods": ["additive", "fake"], **options})


def test_which_tools_are_asked_for(fake_peer):
    fake_peer()
    fake_peer(name="other", experiment="responders")
    assert peers_for("prediction") == ["gears", "cpa", "fake"]
    assert asked_peers(settings(), "prediction") == ["fake"]
    assert asked_peers(settings(methods="other"), "responders") == ["other"]
    assert asked_peers(settings(methods="Other"), "responders") == ["other"]
    assert asked_peers(settings(methods="other"), "prediction") == []
    assert asked_peers(Settings(), "prediction") == []  # all methods are those of this package


@pytest.mark.parametrize(
    ("options", "quick", "label"),
    [
        ({}, False, "Fake"),
        ({}, True, "Fake (2 epochs)"),
        ({"max_epochs": 7}, True, "Fake (7 epochs)"),
        ({"max_epochs": 7, "peer_epochs": 5}, True, "Fake"),
        ({"peer_epochs": {"fake": 1, "cpa": 3}}, False, "Fake (1 epoch)"),
        ({"peer_epochs": {"cpa": 3}, "peer_options": {"fake": {"width": 8}}}, False, "Fake (width=8)"),
    ],
)
def test_a_changed_run_is_named_so(fake_peer, screen, options, quick, label):
    fake_peer()
    asked = Settings("simulated", quick=quick, options=options)
    assert label_of("fake", asked) == label
    facts = facts_of("fake", asked, screen)
    assert facts == json.loads(json.dumps(facts))
    assert facts["versions"] == {"python": "3.11.0", "fake-tool": "1.2"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"peer_epochs": 0}, ValueError, "peer_epochs=0 is too small"),
        ({"peer_epochs": {"fakes": 2}}, ValueError, "peer_epochs: there is no peer 'fakes'; there are gears, cpa"),
        ({"peer_options": {"fakes": {}}}, ValueError, "peer_options: there is no peer 'fakes'"),
        ({"peer_options": {"fake": {"depth": 2}}}, ValueError, "'depth' is no option of 'fake', which has width"),
        ({"peer_options": {"fake": {"width": 0.5}}}, TypeError, "width=0.5 is not an integer"),
        ({"peer_options": 3}, TypeError, "peer_options=3 must be a dict"),
        ({"peer_timeout": 0}, ValueError, "peer_timeout=0"),
    ],
)
def test_wrong_options(fake_peer, screen, options, error, message):
    fake_peer()
    with pytest.raises(error, match=message):
        facts_of("fake", settings(**options), screen)


def test_files_that_a_tool_needs(fake_peer, screen, tmp_path):
    fake_peer(files={"gene2go": "the GO terms of each gene"})
    with pytest.raises(ValueError, match="methods: 'fake' needs the GO terms of each gene: --gene2go FILE"):
        facts_of("fake", settings(), screen)
    path = tmp_path / "terms.json"
    with pytest.raises(FileNotFoundError, match=r"gene2go: there is no file '.*terms\.json'"):
        facts_of("fake", settings(gene2go=str(path)), screen)
    for text, message in [
        ("{", "cannot be read as JSON"),
        ("[1]", "no JSON object of lists"),
        ('{"P01": "GO:1"}', "no JSON object of lists"),
        ('{"TP53": ["GO:1"]}', r"has no terms of any perturbed gene, such as 'P01': its genes are like TP53"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            facts_of("fake", settings(gene2go=str(path)), screen)
    found = []
    for term in ("GO:1", "GO:2"):
        path.write_text(json.dumps({"P01": [term]}))
        found.append(facts_of("fake", settings(gene2go=str(path)), screen))
    assert found[0]["files"] == {"gene2go": str(path)}
    assert found[0]["made of"] != found[1]["made of"]  # another file is other work


def test_screens_that_a_tool_cannot_read(fake_peer, screen):
    fake_peer(reads="counts")
    facts_of("fake", settings(), screen)
    adata = screen.adata.copy()
    adata.X = screen.expression
    with pytest.raises(ValueError, match="'fake' reads counts, and the screen has log-normalized values"):
        facts_of("fake", settings(), Screen(adata))
    adata = screen.adata.copy()
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).str.replace("+", "_").replace("P01", "P+01")
    with pytest.raises(ValueError, match=r"gene 'P\+01' has a '\+'"):
        facts_of("fake", settings(), Screen(adata, {"delimiter": "_", "library_size_key": "total_counts"}))


def test_a_tool_that_is_not_installed(fake_peer, screen):
    fake_peer(installed=False)
    with pytest.raises(ValueError, match="Fake is not installed: raptorgraph peers install fake"):
        facts_of("fake", settings(), screen)


def test_time_limit():
    assert timeout_of(Settings()) is None
    assert timeout_of(settings(peer_timeout=30)) == 30


def test_what_is_tuned_on_is_never_what_is_scored(screen):
    [fold, *_] = doubles_folds(screen.conditions, n_folds=2)
    assert tuned_on(fold, fold.refit, screen, 0) == list(fold.validation)
    drawn = [tuned_on(fold, fold.train, screen, seed) for seed in range(4)]  # where the validation part is scored
    combined = [label for label in fold.train if "+" in label]
    for found in drawn:
        assert len(found) == max(1, round(len(combined) / 4))
        assert set(found) <= set(combined)
    assert tuned_on(fold, fold.train, screen, 0) == drawn[0]
    alone = singles_only(screen.conditions)
    assert tuned_on(alone, alone.refit, screen, 0) == []
    assert np.unique([len(found) for found in drawn]).size == 1
