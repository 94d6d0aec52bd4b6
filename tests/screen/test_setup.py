import numpy as np
import pytest

from raptorgraph.screen import Setup

GIVEN = {"perturbation_key": "p", "control": ["NT", "safe"], "delimiter": "_", "batch_key": "day"}


def test_a_setup_is_a_mapping_of_its_arguments():
    setup = Setup.of(GIVEN)
    assert dict(**setup) == {**GIVEN, "layer": None, "library_size_key": None}
    assert Setup.of(dict(setup)) == setup == Setup.of(setup)
    assert {setup: 1}[Setup(**GIVEN)] == 1
    more = Setup.of({**GIVEN, "categorical_covariate_keys": np.array(["donor"]), "continuous_covariate_keys": None})
    assert more["categorical_covariate_keys"] == ["donor"]
    assert "continuous_covariate_keys" not in set(more)
    with pytest.raises(KeyError):
        setup["asked"]


def test_guides_are_in_the_mapping_where_they_are_named():
    setup = Setup.of({**GIVEN, "guide_key": "guide"})
    assert dict(setup) == {**Setup.of(GIVEN), "guide_key": "guide"}
    assert setup.without_guides() == dict(Setup.of(GIVEN))
    assert "guide_key" not in list(Setup.of({**GIVEN, "guide_key": None}))
    assert Setup.of(dict(setup)) == setup != Setup.of(GIVEN)


def test_labels_are_those_of_the_spelling():
    setup = Setup.of(GIVEN)
    assert setup.label({"B", "A", "safe"}) == "A_B"
    assert setup.label([]) == "NT"
    assert setup.genes("B_safe_A") == ("A", "B")
    assert setup.asked([("B", "A"), "safe"], ["A", "B"]) == [("A", "B"), ()]
    with pytest.raises(ValueError, match="training data"):
        setup.asked("C", ["A", "B"], "training data")


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ("perturbation", TypeError, "setup='perturbation' must be a Setup"),
        ({"batch": "day"}, TypeError, "has 'batch', which is none of its arguments: perturbation_key, control"),
        ({"perturbation_key": None}, TypeError, "perturbation_key=None"),
        ({"perturbation_key": ""}, ValueError, "perturbation_key=''"),
        ({"control": []}, ValueError, r"control=\[\]"),
        ({"delimiter": ""}, ValueError, "delimiter=''"),
        ({"layer": 1}, TypeError, "layer=1 must be the name of a layer"),
        ({"library_size_key": 1}, TypeError, "library_size_key=1 must be the name of a column"),
        ({"batch_key": "perturbation"}, ValueError, "batch_key='perturbation' is the perturbation_key"),
        ({"categorical_covariate_keys": "donor"}, TypeError, "must be a list"),
        ({"batch_key": "day", "categorical_covariate_keys": ["day"]}, ValueError, "'day' is the batch_key"),
        ({"guide_key": 1}, TypeError, "guide_key=1 must be the name of a column"),
        ({"guide_key": "perturbation"}, ValueError, "guide_key='perturbation' is the perturbation_key already"),
        ({"guide_key": "d", "continuous_covariate_keys": ["d"]}, ValueError, "'d' is among continuous_covariate_keys"),
        (
            {"categorical_covariate_keys": ["day"], "continuous_covariate_keys": ["day"]},
            ValueError,
            "'day' is among categorical_covariate_keys",
        ),
    ],
)
def test_wrong_arguments_are_named(wrong, error, match):
    with pytest.raises(error, match=match):
        Setup.of(wrong)
