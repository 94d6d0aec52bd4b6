"""Settings of an experiment."""

import pytest

from raptorgraph.benchmark import Settings
from raptorgraph.benchmark._settings import chosen


def test_an_option_gives_one_name_several_or_all():
    def names(**options):
        return chosen(Settings(options=options), "kinds", ("a", "b", "c"))

    assert names() == names(kinds=[]) == ["a", "b", "c"]
    assert names(kinds="b") == ["b"]
    assert names(kinds=("c", "a")) == ["c", "a"]
    assert names(kinds="B") == ["b"]
    assert chosen(Settings(options={"kinds": "dvae"}), "kinds", ["dVAE"]) == ["dVAE"]
    with pytest.raises(ValueError, match="kinds: 'd' is unknown; there are a, b, c"):
        names(kinds=["a", "d"])
    with pytest.raises(ValueError, match="kinds: 'd' has no graph; there are a"):
        chosen(Settings(options={"kinds": "d"}), "kinds", ["a"], "has no graph")
