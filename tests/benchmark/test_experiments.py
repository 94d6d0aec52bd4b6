"""The table of experiments."""

import re
from pathlib import Path

import pytest

from raptorgraph.benchmark import EXPERIMENTS, _experiments
from raptorgraph.benchmark._experiments import experiment


def test_the_table_leads_to_each_experiment_by_its_name():
    found = {name: experiment(name) for name in EXPERIMENTS}
    assert [one.name for one in found.values()] == list(EXPERIMENTS)
    assert len({one.title for one in found.values()}) == len(EXPERIMENTS)
    with pytest.raises(ValueError, match="no experiment 'guess'; there are prediction, interactions,"):
        experiment("guess")
    with pytest.raises(ValueError, match=r"no experiment \['graph'\]"):
        experiment(["graph"])


def test_options_of_the_work_and_finished_units_are_shared_by_experiments_of_the_same_work():
    shared = {name: experiment(name) for name in ("prediction", "interactions", "reverse", "enrichment")}
    assert {one.parts for one in shared.values()} == {"fits"}
    assert len({one.work for one in shared.values()}) == len({one.work_options for one in shared.values()}) == 1
    others = [experiment(name) for name in EXPERIMENTS if name not in shared]
    assert [one.parts for one in others] == [one.name for one in others]
    # the axes of a figure of costs are measured apart; of a profile the genes that are shown are chosen afterwards
    found = {one.name: one.work_options for one in others if one.work_options}
    assert found == {"scale": ("axes",), "stream": ("cells",), "profile": ("gene_sets", "max_epochs", "n_repeats")}


def test_every_module_with_an_experiment_is_in_the_table():
    folder = Path(_experiments.__file__).parent
    defined = {
        f"{path.stem}:{match[1]}"
        for path in folder.glob("_*.py")
        for match in re.finditer(r"^(\w+) = Experiment\(", path.read_text(), re.MULTILINE)
    }
    assert defined == set(_experiments._TABLE.values())
