from pathlib import Path

import pytest

from raptorgraph.benchmark import Settings, _settings
from raptorgraph.benchmark._settings import chosen


def test_an_option_gives_one_name_several_or_all():
    def names(**options):
        return chosen(Settings(options=options), "kinds", ("a", "b", "c"))

    assert names() == names(kinds=[]) == ["a", "b", "c"]
    assert names(kinds="b") == ["b"] and names(kinds=("c", "a")) == ["c", "a"]
    with pytest.raises(ValueError, match="kinds: 'd' is unknown; there are a, b, c"):
        names(kinds=["a", "d"])
    with pytest.raises(ValueError, match="kinds: 'd' has no graph; there are a"):
        chosen(Settings(options={"kinds": "d"}), "kinds", ["a"], "has no graph")


def test_code_that_experiments_share_is_part_of_the_fingerprint(monkeypatch):
    folder = Path(_settings.__file__).parent
    assert all((folder / name).is_file() for name in _settings._SHARED)
    found = {}
    for shared in (_settings._SHARED, [name for name in _settings._SHARED if name != "_variants.py"]):
        monkeypatch.setattr(_settings, "_SHARED", shared)
        for name in ("capacity", "graph-ablation", "fits"):
            found.setdefault(name, []).append(_settings.code_hash.__wrapped__(name))
    assert all(with_it != without for with_it, without in found.values())
    assert len({with_it for with_it, _ in found.values()}) == 3
