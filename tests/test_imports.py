"""What is loaded when: neither the package nor the help of the command line loads a library that takes seconds."""

import ast
import copy
import importlib
import importlib.metadata
import inspect
import json
import operator
import os
import pickle
import pkgutil
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import networkx as nx
import pytest

import raptorgraph as rg
from raptorgraph.pp import _screen as pp_screen

ROOT = Path(__file__).parents[1]
PACKAGES = [
    "raptorgraph",
    *(f"raptorgraph.{m.name}" for m in pkgutil.iter_modules(rg.__path__) if not m.name.startswith("_")),
]
HEAVY = {"anndata", "gseapy", "jax", "lightning", "matplotlib", "mudata", "networkx", "numba", "numpy", "ot", "pandas"}
HEAVY |= {"scanpy", "scipy", "scvi", "sklearn", "torch", "tqdm"}
HANDED_ON = {f"raptorgraph.pp._screen.{name}" for name in pp_screen.__all__} | {
    "raptorgraph.nn._structural.acyclic_support"
}
COMMANDS = ["demo", "run", "benchmark", "peers"]


def loaded(code: str, **environment: str) -> set[str]:
    """Names of the modules and libraries that a fresh interpreter has after `code`."""
    code += "\nimport json, sys; sys.stderr.write(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    names = json.loads(done.stderr)
    return {*names, *(name.split(".")[0] for name in names)}


def lazy_names(package: str) -> dict[str, str]:
    """Module in which each public name is defined, as written in the package's ``__init__``."""
    (call,) = (
        node.value
        for node in ast.parse(inspect.getsource(importlib.import_module(package))).body
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("lazy.attach(")
    )
    (attributes,) = (ast.literal_eval(word.value) for word in call.keywords if word.arg == "submod_attrs")
    return {name: f"{package}.{module}" for module, names in attributes.items() for name in names}


@pytest.mark.parametrize(
    "code",
    [
        "import raptorgraph as rg; dir(rg), rg.__version__",
        "\n".join(f"import {package}; dir({package})" for package in PACKAGES),
    ],
)
def test_import_loads_no_large_library(code):
    assert HEAVY & loaded(code) == set()


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], *([c, "--help"] for c in COMMANDS), ["run"], ["gess"]], ids=str
)
def test_help_and_usage_errors_load_no_large_library(argv):
    code = f"""
import contextlib, io
from raptorgraph.cli._commands import main
with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
    main({argv})"""
    assert HEAVY & loaded(code) == set()


def test_simulation_loads_no_library_of_training():
    assert {"lightning", "matplotlib", "scanpy", "scvi", "sklearn"} & loaded(
        "import raptorgraph as rg; rg.datasets.simulate(100, 6, n_control_cells=20, n_cells_per_perturbation=5, seed=0)"
    ) == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_names_are_those_of_their_modules(package):
    module, names = importlib.import_module(package), lazy_names(package)
    rooms = {name.split(".")[-1] for name in PACKAGES[1:]} - {"model"} if package == "raptorgraph" else set()
    assert sorted(module.__all__) == sorted({*names, *rooms})
    assert dir(module) == sorted({*module.__all__, *(["model"] if package == "raptorgraph" else [])})
    for name, owner in names.items():
        assert getattr(module, name) is getattr(importlib.import_module(owner), name), name
        home = inspect.getmodule(getattr(module, name))  # another room, where this one only hands a name on
        assert home in (None, importlib.import_module(owner)) or f"{owner}.{name}" in HANDED_ON, name
    for room in rooms:
        assert getattr(module, room) is importlib.import_module(f"{package}.{room}")
    with pytest.raises(AttributeError, match="gess"):
        module.gess  # noqa: B018


def test_the_room_of_the_model_is_there_without_its_import_and_not_starred():
    code = """
import raptorgraph as rg
assert rg.model.RaptorGraphModel is rg.RaptorGraphModel
from raptorgraph import *
assert "model" not in globals() and "RaptorGraphModel" in globals()"""
    loaded(code)


def test_short_name_is_the_same_class():
    assert rg.RaptorGraph is rg.RaptorGraphModel
    assert rg.RaptorGraphModel.__name__ == "RaptorGraphModel"  # by which a saved model is recognized


@pytest.mark.parametrize("value", [rg.RaptorGraphModel, rg.pp.pair_cells, rg.benchmark.UnitsFailed, rg.nn.Decoder])
def test_names_can_be_pickled_and_copied(value):
    assert pickle.loads(pickle.dumps(value)) is value
    assert copy.deepcopy(value) is value


def test_a_fresh_process_finds_what_was_pickled():
    data = pickle.dumps(rg.pp.format_perturbation)
    code = f"import pickle, sys; print(pickle.loads({data!r})(['B', 'A']), file=sys.stdout)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "A+B"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nn.EffectPosterior", "inference.EffectPosterior"),
        ("nn.infer_graph", "inference.infer_graph"),
        ("benchmark.Screen", "screen.Screen"),
        ("benchmark.doubles_folds", "evaluation.doubles_folds"),
    ],
)
def test_old_names_work_and_say_the_new_one(old, new):
    with pytest.warns(FutureWarning, match=f"raptorgraph.{new}"):
        found = operator.attrgetter(old)(rg)
    assert found is operator.attrgetter(new)(rg)


def linted(folder: Path) -> str:
    """What import-linter says of the package in a folder, by the contracts of pyproject.toml."""
    code = "import importlinter.cli as cli; cli.lint_imports_command()"
    argv = [sys.executable, "-c", code, "--no-cache", "--no-logo", str(ROOT / "pyproject.toml")]
    path = {"PYTHONPATH": str(folder), "NO_COLOR": "1", "COLUMNS": "200"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, **path})
    assert done.returncode == ("0 broken" not in done.stdout), done.stdout + done.stderr
    return done.stdout


def test_rooms_import_only_rooms_below_them_and_nothing_in_a_circle():
    pytest.importorskip("importlinter")
    assert "0 broken" in linted(ROOT / "src")


def test_an_import_from_above_or_in_a_circle_is_found(tmp_path):
    pytest.importorskip("importlinter")
    shutil.copytree(ROOT / "src", tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    package = tmp_path / "raptorgraph"
    (package / "nn" / "_sibling.py").write_text("from raptorgraph.metrics._graph import edge_scores\n")
    (package / "pp" / "_late.py").write_text("def f():\n    from raptorgraph.tl import enrich\n")
    (package / "pl" / "_one.py").write_text("from raptorgraph.pl import _two\n")
    (package / "pl" / "_two.py").write_text("def f():\n    from raptorgraph.pl import _one\n")
    types = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from raptorgraph.cli import main\n"
    (package / "nn" / "_types.py").write_text(types)
    said = linted(tmp_path)
    assert "2 broken" in said
    assert "raptorgraph.nn._sibling -> raptorgraph.metrics._graph" in said
    assert "raptorgraph.pp._late -> raptorgraph.tl" in said
    assert "No cycles are allowed in raptorgraph.pl." in said
    assert "_types" not in said


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_imports_by_the_way_of_its_own_package(package):
    """There the names are loaded late, so that an import from above or in a circle would not be found."""
    graph = pytest.importorskip("grimp").build_graph("raptorgraph", exclude_type_checking_imports=True, cache_dir=None)
    importers = graph.find_modules_that_directly_import(package)
    assert [name for name in importers if name.startswith(f"{package}.")] == []


def test_no_circle_comes_from_imports_for_types():
    """Those do not count for import-linter, but two files that need each other's types have one subject."""
    graph = pytest.importorskip("grimp").build_graph("raptorgraph", exclude_type_checking_imports=False, cache_dir=None)
    imports = nx.DiGraph((m, other) for m in graph.modules for other in graph.find_modules_directly_imported_by(m))
    assert [sorted(found) for found in nx.strongly_connected_components(imports) if len(found) > 1] == []


_WATCHED = """
import os, sys

def watch(event, args, allowed=("/dev/", *{allowed!r})):
    path = None
    if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "urllib.Request"):
        raise RuntimeError(f"network: {{event}} {{args}}")
    if event == "open" and not isinstance(args[0], int):
        mode, flags = args[1], args[2] or 0
        if set(mode or "") & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            path = args[0]
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"):
        in_open_folder = event in ("os.remove", "os.rmdir") and args[1] not in (None, -1)
        path = None if in_open_folder else args[0]
    if path is not None and not os.path.abspath(os.fsdecode(path)).startswith(allowed):
        raise RuntimeError(f"writing: {{event}} {{path}}")

sys.addaudithook(watch)
"""


@pytest.mark.parametrize("eager", [False, True])
def test_an_import_reads_no_network_and_writes_nothing(eager, tmp_path):
    """In a home that cannot be written."""
    temporary, here = tmp_path / "tmp", tmp_path / "here"
    temporary.mkdir()
    here.mkdir()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("XDG_", "MPL", "NUMBA_CACHE", "TORCH"))
    }
    environment = {
        **kept,
        "HOME": "/dev/null/home",
        "TMPDIR": str(temporary),
        "PYTHONDONTWRITEBYTECODE": "1",
        **({"EAGER_IMPORT": "1"} if eager else {}),
    }
    # of all modules, libraries among them, of which numba compiles functions and keeps them beside their source
    allowed = [str(temporary), sysconfig.get_path("purelib")] if eager else []
    code = _WATCHED.format(allowed=allowed) + f"import {', '.join(PACKAGES)}\ndir(raptorgraph)\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, cwd=here
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(here.iterdir()) == []
    if eager:  # all names can be loaded at once
        assert {module for package in PACKAGES for module in lazy_names(package).values()} <= {*done.stdout.split()}
