"""The closure of a small package's function, written here, and of the experiments."""

import shutil
import sys
from pathlib import Path

import pytest

import raptorgraph
from raptorgraph.benchmark import EXPERIMENTS, Settings
from raptorgraph.benchmark._experiments import experiment
from raptorgraph.benchmark._provenance import work_closure
from raptorgraph.benchmark._sources import Closure

ROOT = Path(raptorgraph.__file__).parent
# `start` uses the function `used` of pack/room/_b.py, however it comes by it; pack/room/_a.py has nothing to do with it
FILES = {
    "__init__.py": "",
    "start.py": "",
    "plots.py": "COLOR = 'blue'\n",
    "room/__init__.py": "from pack.room._a import other\nfrom pack.room._b import used\n",
    "room/_a.py": "def other():\n    return 1\n",
    "room/_b.py": "from pack.room._c import constant\n\ndef used():\n    return constant\n",
    "room/_c.py": "constant = 2\n",
}
EAGER = FILES["room/__init__.py"]
LAZY = (
    "import lazy_loader as lazy\n__getattr__, __dir__, __all__ = lazy.attach(\n    __name__,"
    "\n    submod_attrs={'_a': ['other'], '_b': ['used']},\n)\n"
)
STUB = "import lazy_loader\n__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)\n"
SUBMODULES = "import lazy_loader as lazy\n__getattr__, __dir__, __all__ = lazy.attach(__name__, ['room'])\n"
REACHED = {"start.py", "room/_b.py", "room/_c.py"}


def closure(folder, start, **files):
    """Files of the closure of ``pack.start.start``, and its digest; `files` by paths with - for /."""
    root = folder / "pack"
    shutil.rmtree(root, ignore_errors=True)
    texts = FILES | {"start.py": start} | files
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = Closure(root, "pack.start.start")
    return {path.relative_to(root).as_posix() for path in found.files}, found.digest


STARTS = {
    "from a package": "from pack.room import used\ndef start():\n    return used()\n",
    "under another name": "from pack.room import used as u\ndef start():\n    return u()\n",
    "by its package": "from pack import room\ndef start():\n    return room.used()\n",
    "by its full name": "import pack.room\ndef start():\n    return pack.room.used()\n",
    "from its file": "from pack.room._b import used\ndef start():\n    return used()\n",
    "relative": "from .room import used\ndef start():\n    return used()\n",
    "in the function": "def start():\n    from pack.room import used\n    return used()\n",
    "as a package in the function": "def start():\n    import pack.room as r\n    return r.used()\n",
    "through a helper": "from pack.room import used\ndef start():\n    return h()\ndef h():\n    return used()\n",
    "as an alias": "from pack import room\nx, start = 0, room.used\n",
    "in a constant": "from pack.room import used\nTABLE = {'a': used}\ndef start():\n    return TABLE['a']()\n",
    "in a constant that is filled": "from pack.room import used\nT = {}\nT['a'] = used\ndef start():\n    return T\n",
    "as a default": "from pack.room import used\ndef start(f=used):\n    return f()\n",
    "as a decorator": "from pack.room import used\n@used\ndef start():\n    return 1\n",
    "as a base": "from pack.room import used\nclass start(used):\n    pass\n",
    "in a method": "from pack.room import used\nclass start:\n    def f(self):\n        return lambda: used()\n",
    "where it may be missing": "try:\n    from pack.room import used\nexcept ImportError:\n    used = None\n"
    "def start():\n    return used()\n",
}


@pytest.mark.parametrize("init", [EAGER, LAZY, STUB], ids=["eager", "lazy", "stub"])
@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_an_imported_name_leads_to_the_file_that_defines_it(tmp_path, start, init):
    files = {"room/__init__.py": init, "room/__init__.pyi": "from ._a import other\nfrom pack.room._b import used\n"}
    assert closure(tmp_path, start, **files)[0] == REACHED


def test_submodules_of_a_lazy_package_and_imports_that_it_makes_itself(tmp_path):
    start = "import pack as p\ndef start():\n    return p.room.used()\n"
    for init in ("", SUBMODULES, "from pack import room\n"):
        assert closure(tmp_path, start, **{"__init__.py": init, "room/__init__.py": LAZY})[0] == REACHED


@pytest.mark.parametrize(
    "start",
    [
        "from pack.plots import COLOR\ndef draw():\n    return COLOR\ndef start():\n    return 1\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack.plots import COLOR\n"
        "def start(x: COLOR) -> COLOR:\n    y: COLOR = x\n    return y\n",
        "from pack.plots import COLOR\ndef start(COLOR):\n    return [COLOR for _ in COLOR]\n",
        "from pack.plots import COLOR\ndef start(xs):\n    for COLOR in xs:\n        return COLOR\n",
        "from pack.plots import COLOR\ndef start(xs):\n    return {COLOR for COLOR in xs}\n",
        "def start():\n    'See pack.plots.'\n    return 'pack', 'pack.none'\n\nif __name__ == '__main__':\n"
        "    from pack.plots import COLOR\n    start(COLOR)\n",
    ],
)
def test_what_a_file_imports_for_something_else_does_not_count(tmp_path, start):
    assert closure(tmp_path, start)[0] == {"start.py"}


def test_a_name_that_is_local_in_one_place_alone_is_followed(tmp_path):
    start = "from pack.plots import COLOR\ndef start(xs):\n    return [COLOR for COLOR in xs], lambda: COLOR\n"
    assert "plots.py" in closure(tmp_path, start)[0]
    start = "from pack.plots import COLOR\ndef start():\n    global COLOR\n    COLOR += 'er'\n"
    assert "plots.py" in closure(tmp_path, start)[0]


@pytest.mark.parametrize(
    "start",
    [
        "from pack import room\ndef start(name):\n    return getattr(room, name)\n",
        "from importlib import import_module\ndef start(name):\n    return getattr(import_module('pack.room'), name)\n",
        "def start(name):\n    import pack.room\n    return vars(pack.room)[name]\n",
    ],
)
@pytest.mark.parametrize("init", [EAGER, LAZY], ids=["eager", "lazy"])
def test_a_name_that_only_the_run_tells_may_be_any_of_its_module(tmp_path, start, init):
    assert closure(tmp_path, start, **{"room/__init__.py": init})[0] >= {*REACHED, "room/_a.py"}


@pytest.mark.parametrize(
    "code",
    [
        "def __getattr__(name):\n    return __import__('pack.room._' + 'b').room._b.used\n",
        "import lazy_loader as lazy\nNAMES = {'_b': ['used']}\n"
        "__getattr__, __dir__, __all__ = lazy.attach(__name__, submod_attrs=NAMES)\n",
    ],
)
def test_names_that_a_package_makes_by_code_of_its_own_may_come_from_anywhere_in_it(tmp_path, code):
    found, _ = closure(tmp_path, STARTS["from a package"], **{"room/__init__.py": code})
    assert found == {*REACHED, "room/__init__.py", "room/_a.py"}


def test_all_names_of_a_module(tmp_path):
    start = "from pack.room._b import *\ndef start():\n    return len([used()])\n"
    assert closure(tmp_path, start)[0] == REACHED


def test_what_an_import_does_by_itself_counts(tmp_path):
    start = "import pack.plots\ndef start():\n    return 1\n"
    assert closure(tmp_path, start)[0] == {"start.py"}
    for effect in (
        "import pack.room._c as c\nc.constant = 3\n",
        "import numpy\nnumpy.seterr(all='raise')\n",
        "from functools import singledispatch\nf = singledispatch(len)\n@f.register\ndef _(x: int):\n    return x\n",
    ):
        assert "plots.py" in closure(tmp_path, start, **{"plots.py": effect})[0]
        assert "room/__init__.py" in closure(tmp_path, STARTS["from its file"], **{"room/__init__.py": effect})[0]


def test_data_beside_the_code_count(tmp_path):
    start = STARTS["from its file"]
    data = {"room/genes.csv": "a", "room/more/sets.gmt": "b", "room/.hidden": "", "room/py.typed": ""}
    data |= {"hall/__init__.py": "", "hall/names.csv": "c"}
    found, digest = closure(tmp_path, start, **data)
    assert found == {*REACHED, "room/genes.csv", "room/more/sets.gmt"}
    assert closure(tmp_path, start, **data | {"room/more/sets.gmt": "B"})[1] != digest
    assert closure(tmp_path, start, **data | {"hall/names.csv": "C"})[1] == digest


def test_the_digest_follows_the_code_and_what_names_stand_for(tmp_path):
    start = "from pack.room import other, used\ndef start():\n    return used() - other()\n"
    found, digest = closure(tmp_path, start)
    assert found == {*REACHED, "room/_a.py"}
    for name in found:
        text = (FILES | {"start.py": start})[name] + "# edited\n"
        assert closure(tmp_path, start, **{name: text})[1] != digest
    assert closure(tmp_path, start, **{"plots.py": "COLOR = 'red'\n"})[1] == digest
    assert closure(tmp_path, start, **{"room/__init__.py": '"""A room."""\n' + EAGER})[1] == digest
    exchanged = "from pack.room._a import other as used\nfrom pack.room._b import used as other\n"
    assert closure(tmp_path, start, **{"room/__init__.py": exchanged})[1] != digest


def test_a_package_without_sources(tmp_path):
    closure(tmp_path, "start = 1\n")
    (tmp_path / "pack" / "start.py").unlink()
    with pytest.raises(FileNotFoundError, match=r"no source of pack\.start"):
        Closure(tmp_path / "pack", "pack.start.start")


def test_modules_of_other_packages(tmp_path):
    start = "import numpy as np\nimport pandas\ndef start():\n    import ot.lp\n    return np.ones(2), ot.emd\n"
    closure(tmp_path, start)
    assert Closure(tmp_path / "pack", "pack.start.start").external == {"numpy", "ot"}


# -- experiments -----------------------------------------------------------------------------------------------------
WORK = {one.parts: one.work for one in map(experiment, EXPERIMENTS)}
METHODS = {"benchmark/_methods.py", "evaluation/_methods.py"}
SCREEN = {"benchmark/_load.py", "screen/_screen.py"}
SCORES = {"evaluation/_scores.py", "evaluation/_splits.py"}
VARIANTS = METHODS | SCREEN | SCORES | {"benchmark/_variants.py"}
MEMBERS = {
    "fits": METHODS | SCREEN | SCORES | {"benchmark/_measure.py", "benchmark/_pairs.py"},
    "losses": {"benchmark/_losses_study.py", "metrics/_distribution.py"},
    "intervals": {
        "datasets/_simulate.py",
        "benchmark/_intervals_questions.py",
        "tl/_pair_scores.py",
        "inference/_draws.py",
    },
    "calls": {"datasets/_simulate.py", "tl/_interactions.py", "tl/_pair_scores.py", "screen/_strength.py"},
    "design": SCREEN
    | {"benchmark/_design_rules.py", "datasets/_simulate.py", "evaluation/_methods.py"}
    | {"tl/_next_pairs.py", "inference/_gain.py"},
    "unseen-genes": SCREEN | {"inference/_effects.py", "inference/_gene_kernel.py", "model/_gene_embedding.py"},
    "statistics": {"benchmark/_cost.py", "inference/_effects.py", "inference/_graph.py"},
    "stream": {"benchmark/_cost.py", "benchmark/_measured_training.py", "datasets/_simulate.py"},
    "scale": {
        "benchmark/_cost.py",
        "benchmark/_measured_training.py",
        "datasets/_simulate.py",
        "model/_model.py",
        "tl/_interactions.py",
    },
    "pairing-cost": {"benchmark/_cost.py", "pp/_couplings.py", "pp/_pairing.py"},
    "graph": METHODS | SCREEN | {"benchmark/_measure.py", "benchmark/_graph_screens.py", "inference/_graph.py"},
    "speed": METHODS | SCREEN | {"benchmark/_speed_clock.py", "baselines/_dvae.py"},
    "spillover": METHODS | SCREEN,
    "profile": METHODS | SCREEN | {"evaluation/_scores.py", "pp/_pairing.py"},
    "responders": METHODS | SCREEN | {"benchmark/_responders_methods.py", "datasets/_simulate.py"},
    "latents": METHODS | SCREEN | {"benchmark/_embeddings.py", "benchmark/_measure.py", "metrics/_latents.py"},
    "states": METHODS | {"benchmark/_states_methods.py", "datasets/_states.py"},
    "stability": METHODS | SCREEN | {"benchmark/_measure.py"},
    "ablation": VARIANTS
    | {f"benchmark/_ablation_{part}.py" for part in ("cells", "network", "posterior")}
    | {"benchmark/_embeddings.py", "metrics/_latents.py", "tl/_pair_scores.py"},
    **dict.fromkeys(("capacity", "graph-ablation", "pairing", "sensitivity"), VARIANTS | {"benchmark/_measure.py"}),
}
MODEL = {"model/_module.py", "model/_training.py", "nn/_encoder.py", "screen/_labels.py"}


@pytest.fixture(scope="module")
def files():
    """Files of the closure of each experiment's work."""
    found = {name: work_closure(work, ROOT).files for name, work in WORK.items()}
    return {name: {path.relative_to(ROOT).as_posix() for path in paths} for name, paths in found.items()}


@pytest.mark.parametrize("name", WORK)
def test_the_closure_of_an_experiment(files, name):
    own = {f"_{name.replace('-', '_')}.py", "_parts.py", "_settings.py"}
    assert files[name] >= {f"benchmark/{file}" for file in own} | MEMBERS[name]
    if name in ("losses", "pairing-cost"):
        assert not files[name] & MODEL
    elif name in ("unseen-genes", "statistics"):  # the posterior answers alone
        assert not files[name] & {"model/_module.py", "model/_training.py", "nn/_encoder.py"}
    else:
        assert files[name] >= MODEL
    reports = ("pl/", "report/", "cli/", "benchmark/_experiments.py", "benchmark/_report.py", "benchmark/_runner.py")
    assert not [file for file in files[name] if file.startswith(reports)]
    others = {f"benchmark/_{other.replace('-', '_')}.py" for other in WORK if other != name}
    assert not files[name] & others


@pytest.mark.parametrize("name", ["losses", "graph"])
def test_no_code_outside_the_closure_runs(files, name):
    """Every function that is called is written down, and its file compared."""
    settings = Settings(quick=True, options={"toy": "only"} if name == "graph" else {})
    asked, called = experiment(name), set()
    [unit] = [unit for unit in asked.units(settings) if unit.seed == 0]
    sys.setprofile(lambda frame, event, _: called.add(frame.f_code.co_filename) if event == "call" else None)
    try:
        asked.work(unit, settings)
    finally:
        sys.setprofile(None)
    ran = {Path(path).relative_to(ROOT).as_posix() for path in called if path.startswith(f"{ROOT}/")}
    assert len(ran) > 2
    assert ran <= files[name]


def test_editing_any_file_of_the_closure_is_other_work(files, tmp_path):
    root = tmp_path / "raptorgraph"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns("__pycache__"))

    def digest(name):
        return work_closure(WORK[name], root).digest

    def edited(name, file):
        text = (root / file).read_text()
        (root / file).write_text(text + "\n# edited\n")
        found = digest(name)
        (root / file).write_text(text)
        return found

    before = digest("losses")
    assert before == work_closure(WORK["losses"], ROOT).digest  # wherever the package lies
    assert all(edited("losses", file) != before for file in files["losses"])
    assert all(edited("losses", file) == before for file in ("pl/_figure.py", "nn/_encoder.py", "benchmark/_report.py"))
    before = digest("capacity")
    assert all(edited("capacity", file) != before for file in ("benchmark/_measure.py", "nn/_encoder.py"))
    assert all(edited("capacity", file) == before for file in ("tl/_enrich.py",))
