"""Environments of published tools: made by pip from pinned versions in the user's cache, marked when they are whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from raptorgraph._files import file_hash, put_text, remove
from raptorgraph._progress import progress_bar
from raptorgraph.baselines._peer_calls import call
from raptorgraph.baselines._peers import PEERS, Peer
from raptorgraph.datasets._download import CACHE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER_VARIABLE = "RAPTORGRAPH_PEERS"
MARKER = "raptorgraph.json"
_VERSION = "import platform; print(platform.python_version())"
_LIST = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"


@dataclass(frozen=True)
class Environment:
    """An environment that is whole.

    Attributes
    ----------
    python
        Its version of Python.
    pins
        Hash of the file of pinned versions that it was made from.
    versions
        Versions of its packages, by their names in small letters with hyphens.
    """

    python: str
    pins: str
    versions: dict[str, str]


def peer(name: str) -> Peer:
    """The tool of that name; ValueError where there is none."""
    if name not in PEERS:
        raise ValueError(f"There is no peer {name!r}; there are {', '.join(PEERS)}.")
    return PEERS[name]


def peers_folder() -> Path:
    """Folder of all environments: ``$RAPTORGRAPH_PEERS``, else ``peers`` in the folder of downloaded screens."""
    if folder := os.environ.get(FOLDER_VARIABLE):
        return Path(folder).expanduser().absolute()
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder).expanduser().absolute() / "peers"
    return user_cache() / "peers"


def user_cache() -> Path:
    """Cache of this package as the system has it, the same that pooch uses, which need not be installed here."""
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        return Path(local) / "raptorgraph" / "raptorgraph" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "raptorgraph"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raptorgraph"


def environment_folder(tool: Peer) -> Path:
    """Folder of a tool's environment, there or not."""
    return peers_folder() / tool.name


def log_file(name: str) -> Path:
    """File that a log of that name is written to."""
    return peers_folder() / "logs" / f"{name}.log"


def python_in(folder: Path) -> Path:
    """Python of an environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def installed(tool: Peer) -> Environment | None:
    """The environment of a tool; None where there is none, or one that is broken or of other pins."""
    folder = environment_folder(tool)
    try:
        found = Environment(**json.loads((folder / MARKER).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):  # none, not finished, or damaged
        return None
    return found if found.pins == pins_hash(tool) and python_in(folder).exists() else None


def state(tool: Peer) -> str:
    """Whether a tool can be used, in a word or two."""
    if installed(tool) is not None:
        return "installed"
    folder = environment_folder(tool)
    if (folder / MARKER).is_file() and python_in(folder).exists():
        return "other versions"
    return "broken" if folder.exists() else "not installed"


def pins_hash(tool: Peer) -> str:
    """Hash of the file of pinned versions."""
    return file_hash(tool.pins)[:16]


def install(tool: Peer, python: str | Path | None = None) -> Environment:
    """Make the environment of a tool, in place of one that is broken or of other pins; one that is whole stays.

    Parameters
    ----------
    tool
        The tool.
    python
        Python to make it with; default one of the needed version that is found on this machine.

    Returns
    -------
    The environment.

    Raises
    ------
    FileNotFoundError
        If no Python of the needed version is found.
    RuntimeError
        If the environment cannot be made; names the log.
    ValueError
        If `python` is of another version.
    """
    folder, log = environment_folder(tool), log_file(f"install-{tool.name}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{tool.name}.lock")):
        found = installed(tool)
        if found is not None:
            return found
        chosen = find_python(tool, python)
        if folder.exists():
            remove(folder)
        own, pinned = python_in(folder), tool.pinned()
        pip: list[str | Path] = [own, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
        first = [f"{name}=={pinned[name]}" for name in tool.with_dependencies]
        steps: list[tuple[str, list[str | Path]]] = [
            ("making its environment", [chosen, "-m", "venv", folder]),
            # what these depend on differs between systems, so pip is to find it
            *([("pip", [*pip, *first, "-c", tool.pins])] if first else []),
            # the other pins are of a set that runs together, whatever each of them asks for
            ("pip", [*pip, "--no-deps", "-r", tool.pins]),
            ("a first import", [own, "-c", tool.check]),
        ]
        for what, argv in steps:
            with progress_bar(f"{tool.title}: {what}"):
                call(f"{tool.title}: {what}", argv, log)
        found = Environment(_output(own, _VERSION), pins_hash(tool), _versions(own))
        put_text(folder / MARKER, json.dumps(asdict(found), indent=1))
    return found


def uninstall(tool: Peer) -> bool:
    """Remove the environment of a tool, and say whether there was one."""
    folder = environment_folder(tool)
    if not folder.exists():
        return False
    with FileLock(folder.with_name(f"{tool.name}.lock")):
        (folder / MARKER).unlink(missing_ok=True)  # first, so that what is left after a kill is known to be broken
        remove(folder)
    return True


# -- Python ----------------------------------------------------------------------------------------------------------
def find_python(tool: Peer, given: str | Path | None = None) -> Path:
    """A Python of the version that a tool needs; errors as for :func:`install`."""
    needed = " or ".join(tool.python)
    for path in [Path(given)] if given is not None else _candidates(tool.python):
        version = _output(path, _VERSION) if path.is_file() else ""
        if version.rpartition(".")[0] in tool.python:
            return path
        if given is not None:
            is_no = f"Python {version}" if version else "no Python that runs"
            raise ValueError(f"{str(path)!r} is {is_no}; {tool.title} needs Python {needed}.")
    raise FileNotFoundError(
        f"{tool.title} needs Python {needed}, which is not found here. Install it (uv python install {tool.python[0]}, "
        f"or conda create -n python{tool.python[0]} python={tool.python[0]}) and name it: raptorgraph peers install "
        f"{tool.name} --python PATH."
    )


def _candidates(versions: tuple[str, ...]) -> Iterator[Path]:
    """Where a Python of these versions may be: this one, the path, and the folders of pyenv and uv."""
    yield Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local" / "share" / "uv" / "python")
    for version in versions:
        if found := shutil.which(f"python{version}"):
            yield Path(found)
        yield from sorted(pyenv.glob(f"{version}.*/bin/python{version}"), reverse=True)
        yield from sorted(uv.glob(f"cpython-{version}*/bin/python{version}"), reverse=True)


def _output(python: Path, code: str) -> str:
    """What a Python prints; nothing where it does not run."""
    argv = [str(python), "-I", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.stdout.strip() if done.returncode == 0 else ""


def _versions(python: Path) -> dict[str, str]:
    found = json.loads(_output(python, _LIST))
    return {name.lower().replace("_", "-"): version for name, version in sorted(found.items())}
