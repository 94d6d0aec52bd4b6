import os
import platform
import re
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from raptorgraph.benchmark import Settings
from raptorgraph.benchmark._experiments import experiment
from raptorgraph.benchmark._provenance import files_of
from raptorgraph.benchmark._settings import Unit, chosen, fingerprint


def mark(name="losses", *, threads="1", **settings):
    return fingerprint(experiment(name), Unit("a", 0), Settings(**settings), threads=threads)


def test_an_option_gives_one_name_several_or_all():
    def names(**options):
        return chosen(Settings(options=options), "kinds", ("a", "b", "c"))

    assert names() == names(kinds=[]) == ["a", "b", "c"]
    assert names(kinds="b") == ["b"]
    assert names(kinds=("c", "a")) == ["c", "a"]
    with pytest.raises(ValueError, match="kinds: 'd' is unknown; there are a, b, c"):
        names(kinds=["a", "d"])
    with pytest.raises(ValueError, match="kinds: 'd' has no graph; there are a"):
        chosen(Settings(options={"kinds": "d"}), "kinds", ["a"], "has no graph")


DECLARED = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["dependencies"]
CORE = sorted({re.split(r"[^\w.-]", line, maxsplit=1)[0].lower().replace("_", "-") for line in DECLARED})


def test_the_core_is_found():
    assert {"anndata", "numpy", "scvi-tools", "torch"} < set(CORE)
    assert {"python", *CORE} <= mark()["versions"].keys()


@pytest.mark.parametrize("package", CORE)
def test_a_fingerprint_holds_the_version_of_every_core_dependency(package, monkeypatch):
    before = mark()
    assert before["versions"][package] == metadata.version(package)
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.1" if name == package else version(name))
    assert mark() != before
    assert mark()["versions"] == before["versions"] | {package: "0.0.1"}


def test_versions_follow_from_what_is_declared_and_from_what_is_used(monkeypatch):
    assert "dagma" in mark("graph")["versions"]
    assert "dagma" not in mark("losses")["versions"]
    assert not {"pytest", "sphinx", "raptorgraph"} & mark("graph")["versions"].keys()
    required = [
        "numpy>=1.26",
        "SciPy",
        'rich; sys_platform != "x"',
        'no-such; python_version < "3"',
        'pip; extra == "a"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda _: required)
    assert mark()["versions"].keys() == {
        "python",
        "numpy",
        "scipy",
        "rich",
        "pandas",
        "pot",
        "tqdm",
        "lazy-loader",
        "docrep",
    }

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)  # a source tree on the path
    assert mark()["versions"].keys() >= {"python", "numpy", "scipy", "pot"}


def test_python_device_and_threads_are_part_of_a_fingerprint(monkeypatch):
    before = mark()
    assert before["versions"]["python"] == platform.python_version()
    assert mark(threads="2") != before
    monkeypatch.setattr(platform, "python_version", lambda: "3.99.0")
    assert mark()["versions"] == before["versions"] | {"python": "3.99.0"}
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert mark() == before | {"device": "cuda"}


def test_a_screen_with_a_name_is_its_file(tmp_path, monkeypatch):
    monkeypatch.setenv("RAPTORGRAPH_DATA", str(tmp_path))
    path = tmp_path / "mine.h5ad"
    path.write_bytes(b"one")
    before = mark(screen="mine")
    assert before == mark(screen=str(path))
    assert mark(screen="simulated")["screen"] == "simulated"
    path.write_bytes(b"another")
    assert mark(screen="mine") != before


def test_a_store_is_all_of_its_files(tmp_path):
    chunk = tmp_path / "mine.zarr" / "X" / "0.0"
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(b"one")
    (tmp_path / "mine.zarr" / "zarr.json").write_text("{}")
    before = mark(screen=str(tmp_path / "mine.zarr"))
    assert before == mark(screen=str(tmp_path / "mine.zarr"))
    chunk.write_bytes(b"two")
    os.utime(chunk, ns=(0, 0))
    assert mark(screen=str(tmp_path / "mine.zarr")) != before


def test_files_among_the_options_are_found_at_any_depth(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text("A\tna\tG1\n")
    options = {"gene_sets": path, "more": {"tools": [str(path), "GEARS"]}, "n": 3, "x": np.zeros(2)}
    assert list(files_of(options)) == [(":gene_sets", path), (":more:tools:0", path)]
    before = mark("prediction", options=options)
    assert before["options"].keys() == {"gene_sets"}  # the others are no options of its work
    path.write_text("A\tna\tG1\tG2\n")
    assert mark("prediction", options=options) != before
