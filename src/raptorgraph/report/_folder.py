"""The folder of a run: which command made what is in it, and who writes to it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import shutil
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from raptorgraph._failures import optional
from raptorgraph._files import file_hash, put, put_table, put_text, remove, replaced, size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import pandas as pd

MANIFEST, INSIDE, TRAINING = "run.json", ".run", "training"
_LOOKS, _PAUSE = 20, 0.1  # for the name of who writes to the folder, and seconds between them
_NEW = "new"  # folder of a whole set that is to replace the one that is there
_ELSE = "choose another --out, or replace them with --overwrite."


class RunFolder:
    """A folder, and its manifest ``run.json``: the command, the state of each stage, the checksum of each product.

    Parameters
    ----------
    path
        The folder, which exists.
    made
        What the products depend on, as JSON holds it. What the manifest says counts only where this is the same.
    command
        The command as typed.
    say
        Called with a line for what could not be made.

    Attributes
    ----------
    path, inside
        The folder, and the one in it for what is no product.
    manifest
        ``command``, ``started``, ``made``, ``stages`` and ``products``. A stage has its ``seconds``, the names of its
        ``products``, of what has ``failed``, and what was ``found`` beside. A product has the checksums that it may
        have: the last one, and until its stage is finished those before it, since a kill may keep it from its place.
    """

    def __init__(self, path: Path, made: Mapping[str, Any], command: str | None, say: Callable[[str], None]) -> None:
        self.path, self.inside, self._say = path, path / INSIDE, say
        found = read_manifest(path)
        if found is None or found["made"] != made:
            remove(self.inside / TRAINING)
            found = None
        self.manifest = found or {
            "command": command,
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "made": made,
            "stages": {},
            "products": {},
        }
        self._stage: dict[str, Any] = {}

    def begin(self, stages: Iterable[str]) -> list[str]:
        """The first stage that is not whole and all after it, which may depend on it: none of these counts now."""
        names = list(stages)
        todo = next((names[k:] for k, name in enumerate(names) if not self._is_whole(name)), [])
        if todo:
            self.manifest["stages"] = {key: kept for key, kept in self.manifest["stages"].items() if key not in todo}
            self._write()
        return todo

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Keep the time and the products of a stage, once it has ended without an error."""
        self._stage = {"seconds": 0.0, "products": [], "failed": [], "found": {}}
        start = time.perf_counter()
        yield
        self._stage["seconds"] = round(time.perf_counter() - start, 3)
        self.manifest["stages"][name] = self._stage
        self.manifest["products"] = {key: known[-1:] for key, known in self.manifest["products"].items()}
        self._write()

    @contextlib.contextmanager
    def product(self, name: str) -> Iterator[Path]:
        """Name to write a product of the stage to, which then takes its place as a whole."""
        with replaced(self.path / name) as part:
            yield part
            self.manifest["products"].setdefault(name, []).append(file_hash(part))
            self._write()
        self._stage["products"].append(name)

    def table(self, name: str, table: pd.DataFrame, *, index: bool = False) -> None:
        """Write a product that is a table."""
        with self.product(name) as part:
            put_table(part, table, index=index)

    @contextlib.contextmanager
    def optional(self, what: str) -> Iterator[None]:
        """Do without what fails inside, and try again when the command is run again."""
        done = False
        with optional(what, self._say):
            yield
            done = True
        if not done:
            self._stage["failed"].append(what)

    def keep(self, **found: Any) -> None:
        """Keep what the stage found, for the stages after it."""
        self._stage["found"].update(found)

    def found(self, stage: str) -> dict[str, Any]:
        """What a finished stage has kept; empty where it was not finished."""
        return dict(self.manifest["stages"].get(stage, {}).get("found", {}))

    def failed(self, stage: str) -> list[str]:
        """The parts of a finished stage that could not be made."""
        return list(self.manifest["stages"].get(stage, {}).get("failed", ()))

    def seconds(self, stage: str) -> float:
        """Seconds that a finished stage took."""
        return float(self.manifest["stages"][stage]["seconds"])

    @property
    def n_bytes(self) -> int:
        """Size of the products that are there."""
        return sum(size_of(self.path / name) for name in self.manifest["products"])

    def _is_whole(self, stage: str) -> bool:
        kept = self.manifest["stages"].get(stage)
        return kept is not None and not kept["failed"] and all(map(self._is_known, kept["products"]))

    def _is_known(self, name: str) -> bool:
        path = self.path / name
        return path.exists() and file_hash(path) in self.manifest["products"].get(name, ())

    def _write(self) -> None:
        put_text(self.path / MANIFEST, json.dumps(self.manifest, indent=1) + "\n")


@contextlib.contextmanager
def run_folder(
    out: Path,
    made: Mapping[str, Any],
    products: Iterable[str],
    *,
    command: str | None,
    overwrite: bool,
    say: Callable[[str], None],
) -> Iterator[RunFolder]:
    """The folder of a run, made if it is not there, for this process alone.

    With `overwrite`, other results that are there stay until the new ones are complete, and are then replaced, all of
    them; a run that is broken off before goes on there when it is started again.

    Parameters
    ----------
    out
        The folder.
    made
        What the products depend on.
    products
        Names of all products that any run may have.
    command
        The command as typed.
    overwrite
        Whether to replace other results.
    say
        Called with a line for what could not be made.

    Raises
    ------
    FileExistsError
        If there are other results, unless `overwrite`.
    RuntimeError
        If another process writes to the folder.
    """
    with _locked(out, command):
        new = out / INSIDE / _NEW
        _finish_replacing(out, new, products)
        if not overwrite:
            _check_same(out, made, products)
        place = new if overwrite and any((out / name).exists() for name in products) else out
        if place == new and (read_manifest(new) or {}).get("made") != _plain(made):
            remove(new)
        place.mkdir(exist_ok=True)
        folder = RunFolder(place, _plain(made), command, say)
        yield folder
        if place == new:
            folder.manifest["complete"] = True
            folder._write()
            _finish_replacing(out, new, products)


def check_used(out: Path, made: Mapping[str, Any], products: Iterable[str], *, overwrite: bool) -> None:
    """Raise where a folder may not be written to: another process does, or there are other results.

    The errors are those of :func:`run_folder`; nothing is written.
    """
    if (out / INSIDE / "lock").exists():
        with _lock(out):
            pass
    if not overwrite:
        _check_same(out, made, products)


def _check_same(out: Path, made: Mapping[str, Any], products: Iterable[str]) -> None:
    """FileExistsError where there are results of another run, or of which nothing is known."""
    found = read_manifest(out)
    if found is None or not found["products"]:
        there = [name for name in products if (out / name).exists()]
        if there:
            raise FileExistsError(f"{str(out)!r} has {there[0]}, and no {MANIFEST} that says of what: {_ELSE}")
        return
    before, now = _flat(found["made"]), _flat(_plain(made))
    for key in {**before, **now}:
        if before.get(key) != now.get(key):
            raise FileExistsError(
                f"{str(out)!r} has the results of another run, with {key} {_shown(before.get(key))} and not "
                f"{_shown(now.get(key))}: {_ELSE}"
            )


def check_room(out: Path, n_bytes: float) -> None:
    """OSError where the disk of a folder has less room than so many bytes."""
    free = shutil.disk_usage(out).free
    if free < n_bytes:
        raise OSError(
            errno.ENOSPC,
            f"The results take about {n_bytes / 1e6:,.0f} MB, and there are {free / 1e6:,.0f} MB: free some, or choose "
            "another --out",
            str(out),
        )


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder; None where there is none that can be read."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    whole = isinstance(found, dict) and {"made", "started", "stages", "products"} <= set(found)
    return found if whole else None


@contextlib.contextmanager
def _locked(out: Path, command: str | None) -> Iterator[None]:
    """Keep others from writing to a folder, and tell them who does."""
    (out / INSIDE).mkdir(parents=True, exist_ok=True)
    holder = out / INSIDE / "holder.json"
    with _lock(out):
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        about = {"pid": os.getpid(), "host": platform.node(), "since": now, "command": command}
        put_text(holder, json.dumps(about) + "\n")
        try:
            yield
        finally:
            remove(holder)


@contextlib.contextmanager
def _lock(out: Path) -> Iterator[None]:
    lock = FileLock(out / INSIDE / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RuntimeError(
            f"{str(out)!r} is written to by {_holder(out)}: wait for it, or choose another --out."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _holder(out: Path) -> str:
    about = None
    for _ in range(_LOOKS):  # it writes its name as soon as it has the lock
        with contextlib.suppress(FileNotFoundError, ValueError):
            about = json.loads((out / INSIDE / "holder.json").read_text(encoding="utf-8"))
            break
        time.sleep(_PAUSE)
    if about is None:
        return "another process"
    command = f" ({about['command']})" if about["command"] else ""
    return f"process {about['pid']} on {about['host']} since {about['since']}{command}"


def _finish_replacing(out: Path, new: Path, products: Iterable[str]) -> None:
    """Put a whole set of results in the place of an earlier one, its manifest last; also if that was begun before."""
    manifest = read_manifest(new)
    if manifest is None or not manifest.pop("complete", False):
        return
    for name in products:
        if name not in manifest["products"]:
            remove(out / name)
        elif (new / name).exists():
            put(new / name, out / name)
    put_text(out / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    remove(new)


def _plain(made: Mapping[str, Any]) -> dict[str, Any]:
    """The same as it reads back from a file."""
    found: dict[str, Any] = json.loads(json.dumps(made, default=str))
    return found


def _flat(made: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Values of nested dicts by the names on the way to them."""
    found: dict[str, Any] = {}
    for key, value in made.items():
        name = f"{start}{key}".replace("_", " ")
        found |= _flat(value, f"{name} of ") if isinstance(value, Mapping) else {name: value}
    return found


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)
