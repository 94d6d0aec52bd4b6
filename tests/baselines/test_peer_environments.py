"""Environments that are made, marked, found broken, and made again; pip itself is tried where the network may be."""

import json
import sys
from pathlib import Path

import pytest

from raptorgraph.baselines import _peer_environments as environments
from raptorgraph.baselines._peers import FOLDER, PEERS


@pytest.fixture
def calls(monkeypatch, as_python):
    """What is called, and a list of the parts of arguments at which a call fails."""
    made, failing = [], []

    def call(what, argv, log, **arguments):
        argv = [str(part) for part in argv]
        made.append(argv)
        if any(part in argv for part in failing):
            raise RuntimeError(f"{what} ended with exit code 1")
        if "venv" in argv:
            as_python(environments.python_in(Path(argv[-1])))

    monkeypatch.setattr(environments, "call", call)
    return made, failing


@pytest.fixture
def tool(fake_peer):
    running = "{}.{}".format(*sys.version_info)
    return fake_peer(installed=False, python=(running,), with_dependencies=("fake-tool",))


def test_an_environment_is_made_once(tool, calls):
    made, _ = calls
    assert environments.state(tool) == "not installed"
    assert environments.installed(tool) is None
    found = environments.install(tool)
    own = str(environments.python_in(environments.environment_folder(tool)))
    venv, first, rest, check = made
    assert venv[1:3] == ["-m", "venv"]
    assert first[0] == rest[0] == check[0] == own
    assert first[-3:] == ["fake-tool==1.2", "-c", str(tool.pins)]
    assert rest[-3:] == ["--no-deps", "-r", str(tool.pins)]
    assert found.python == "{}.{}.{}".format(*sys.version_info)
    assert "pandas" in found.versions
    assert environments.state(tool) == "installed"
    assert environments.install(tool) == environments.installed(tool) == found
    assert len(made) == 4


@pytest.mark.parametrize("step", ["venv", "fake-tool==1.2", "--no-deps", "-c"])
def test_what_is_not_whole_is_made_again(tool, calls, step):
    made, failing = calls
    failing.append(step)
    with pytest.raises(RuntimeError, match="Fake: .* exit code 1"):
        environments.install(tool)
    assert environments.installed(tool) is None
    assert environments.state(tool) == ("not installed" if step == "venv" else "broken")
    failing.clear()
    made.clear()
    environments.install(tool)
    assert len(made) == 4
    assert environments.state(tool) == "installed"


def test_other_pins_and_damaged_marks(tool, calls):
    made, _ = calls
    environments.install(tool)
    mark = environments.environment_folder(tool) / environments.MARKER
    left = mark.with_name("left")
    left.touch()
    tool.pins.write_text("fake-tool==1.3\n")
    assert environments.state(tool) == "other versions"
    environments.install(tool)
    assert not left.exists()
    for text in ("", "[]", "{}", json.dumps({**json.loads(mark.read_text()), "more": 1})):
        mark.write_text(text)
        assert environments.installed(tool) is None
    environments.install(tool)
    assert len(made) == 12
    environments.python_in(mark.parent).unlink()
    assert environments.state(tool) == "broken"


def test_removed(tool, calls):
    environments.install(tool)
    assert environments.uninstall(tool)
    assert not environments.environment_folder(tool).exists()
    assert environments.state(tool) == "not installed"
    assert not environments.uninstall(tool)


def test_a_python_of_the_needed_version(fake_peer, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    running = "{}.{}".format(*sys.version_info)
    assert environments.find_python(fake_peer(python=("3.6", running))) == Path(sys.executable)
    none = fake_peer(python=("3.6",))
    with pytest.raises(FileNotFoundError, match=r"Fake needs Python 3\.6, .* peers install fake --python PATH\."):
        environments.find_python(none)
    with pytest.raises(ValueError, match=rf"is Python {running}\.\d+; Fake needs Python 3\.6\."):
        environments.find_python(none, sys.executable)
    with pytest.raises(ValueError, match=r"'.*nothing' is no Python that runs; Fake needs"):
        environments.find_python(none, tmp_path / "nothing")
    says = '#!/bin/sh\nif [ "$1" = -I ]; then echo 3.6.9; fi\n'
    broken, found = tmp_path / "python3.6", tmp_path / "pyenv" / "versions" / "3.6.9" / "bin" / "python3.6"
    found.parent.mkdir(parents=True)
    for path, text in ((broken, "#!/bin/sh\nexit 127\n"), (found, says)):  # a shim of pyenv without its version
        path.write_text(text)
        path.chmod(0o755)
    assert environments.find_python(none) == found


def test_where_environments_are(tmp_path, monkeypatch):
    monkeypatch.delenv(environments.FOLDER_VARIABLE, raising=False)
    monkeypatch.delenv("RAPTORGRAPH_CACHE", raising=False)
    pooch = pytest.importorskip("pooch")
    assert environments.peers_folder() == Path(pooch.os_cache("raptorgraph")) / "peers"
    monkeypatch.setenv("RAPTORGRAPH_CACHE", str(tmp_path / "cache"))
    assert environments.peers_folder() == tmp_path / "cache" / "peers"
    monkeypatch.setenv(environments.FOLDER_VARIABLE, str(tmp_path / "own"))
    assert environments.peers_folder() == tmp_path / "own"


def test_names():
    assert environments.peer("gears").title == "GEARS"
    with pytest.raises(ValueError, match=r"no peer 'gear'; there are gears, cpa"):
        environments.peer("gear")


@pytest.mark.parametrize("name", PEERS)
def test_what_is_pinned(name):
    """Every package of an environment to one version, the tool and what comes with its dependencies among them."""
    tool = PEERS[name]
    assert tool.folder == FOLDER
    assert tool.adapter.is_file()
    pinned = tool.pinned()
    assert {tool.package, *tool.with_dependencies} <= set(pinned)
    assert all(version[0].isdigit() and "*" not in version for version in pinned.values())


def test_labels_name_what_is_not_a_tools_own(fake_peer):
    tool = fake_peer()
    assert tool.label(5, {"width": 3}) == "Fake"
    assert tool.label(1, {"width": 3}) == "Fake (1 epoch)"
    assert tool.label(2, {"width": 4}) == "Fake (2 epochs, width=4)"
