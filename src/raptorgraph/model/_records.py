"""Records on the disk: a JSON file that names the file of its tensors by its hash, so that both always fit together."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import safetensors.torch
from safetensors import SafetensorError

from raptorgraph._failures import one_line
from raptorgraph._files import replaced, scratch
from raptorgraph._version import __version__
from raptorgraph.model._encoding import Decoder, Encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

# The first line of the JSON file holds the hash of all others.
_FIRST_LINE = re.compile(rb'\{"sha256": "([0-9a-f]{64})",(?=\n)')
_HASH = re.compile(r"[0-9a-f]{64}")
_PACKAGES = ("anndata", "lightning", "numpy", "pandas", "safetensors", "scvi-tools", "torch")
_DAMAGED = "is damaged, or was changed after it was saved"
_ODD = (ArithmeticError, AttributeError, LookupError, RecursionError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Kind:
    """What a record is: its name, for the file and for errors, and the version of its format."""

    name: str
    version: int


@dataclass(frozen=True)
class Record:
    """What was read: the values, the hash of the record, and of the files that belong to it, by their names."""

    values: dict[str, Any]
    digest: str
    files: Mapping[str, dict[str, Any]]


def write(
    folder: Path,
    stem: str,
    kind: Kind,
    values: Mapping[str, Any],
    files: Mapping[str, Callable[[Path], object]] | None = None,
) -> str:
    """Write ``<stem>.json`` and ``<stem>-<hash>.safetensors`` into a folder, and return the hash of the record.

    The JSON file takes the place of an earlier one when all that it names is there: a process that is killed before
    leaves the earlier record as it was, and one that is killed after it the new one. `files` are others that belong to
    the record: functions that write them to a path, by their names. Until the JSON file is in place they have the hash
    of their content in their names, and :func:`file_of` finds them by either.
    """
    encoder = Encoder()
    content = {name: encoder.encode(value, name) for name, value in values.items()}
    folder.mkdir(parents=True, exist_ok=True)
    tensors = safetensors.torch.save(encoder.tensors)
    digest = hashlib.sha256(tensors).hexdigest()
    name = _name(stem, digest)
    existed = (folder / name).exists()
    with replaced(folder / name) as part:
        part.write_bytes(tensors)
    seals: dict[str, dict[str, Any]] = {}
    added: list[Path] = []
    own = ""
    try:
        for other, put in (files or {}).items():
            with scratch(folder) as place:
                put(place / other)
                seals[other] = seal(place / other)
                path = _with_hash(folder, other, seals[other])
                added += [] if path.exists() else [path]
                with replaced(path) as part:
                    (place / other).replace(part)
        whole = {
            "format": kind.name,
            "format_version": kind.version,
            "raptorgraph": __version__,
            "packages": {package: _version(package) for package in _PACKAGES},
            "tensors": {"sha256": digest, "bytes": len(tensors)},
            "files": seals,
            "content": content,
        }
        text = json.dumps(whole, indent=1, allow_nan=False).encode("ascii")[1:]
        own = hashlib.sha256(text).hexdigest()
        with replaced(folder / f"{stem}.json") as part:
            part.write_bytes(b'{"sha256": "' + own.encode() + b'",' + text)
    except BaseException:
        record = folder / f"{stem}.json"
        if not (own and record.is_file() and own.encode() in record.read_bytes()):  # it is not in place
            for path in (*added, *(() if existed else (folder / name,))):
                path.unlink(missing_ok=True)
        raise
    for other, found in seals.items():
        _with_hash(folder, other, found).replace(folder / other)
        _remove_all(folder, (folder / other).stem, (folder / other).suffix)
    remove(folder, stem, keep=name)
    return own


def file_of(folder: Path, name: str, expected: Mapping[str, Any]) -> Path:
    """Path of a file that belongs to a record, by the :func:`seal` that it has there."""
    pending = _with_hash(folder, name, expected)  # where a process was killed before its last step
    return pending if pending.is_file() else folder / name


def remove(folder: Path, stem: str, *, keep: str | None = None) -> None:
    """Remove the tensors of earlier records by this name, or with nothing to `keep` the record as a whole."""
    if keep is None:
        (folder / f"{stem}.json").unlink(missing_ok=True)
    _remove_all(folder, stem, ".safetensors", keep)


def _remove_all(folder: Path, stem: str, suffix: str, keep: str | None = None) -> None:
    """Remove the files that have a hash in their names, but for one."""
    earlier = re.compile(rf"{re.escape(stem)}-[0-9a-f]{{16}}{re.escape(suffix)}")
    for path in folder.iterdir():
        if earlier.fullmatch(path.name) and path.name != keep:
            path.unlink(missing_ok=True)


def read(folder: Path, stem: str, kind: Kind) -> Record:
    """Read a record; ValueError that names the file that is missing, damaged, of a later format, or something else."""
    path = folder / f"{stem}.json"
    raw = _bytes(path)
    first = _FIRST_LINE.match(raw)
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} {_DAMAGED}: it is no JSON. {one_line(error)[:200]}") from None
    if not isinstance(content, dict) or content.get("format") != kind.name:
        raise ValueError(f"{str(path)!r} is no {kind.name}.")
    found = content.get("format_version")
    if first is None or hashlib.sha256(raw[first.end() :]).hexdigest() != first[1].decode():
        raise ValueError(f"{str(path)!r} {_DAMAGED}: it does not have the SHA-256 that it holds.")
    if not isinstance(found, int) or found > kind.version:
        raise ValueError(
            f"{str(path)!r} has format {found}, which this version of raptorgraph ({__version__}) does not know: "
            f'install the one that wrote it or a later one, pip install "raptorgraph>={content.get("raptorgraph")}".'
        )
    try:
        tensors, files = content["tensors"], dict(content["files"])
        if not _HASH.fullmatch(tensors["sha256"]):
            raise ValueError(f"{str(path)!r} holds {tensors['sha256']!r}, which is no SHA-256.")
        data = check(folder / _name(stem, tensors["sha256"]), tensors)
    except (AttributeError, LookupError, TypeError) as error:
        raise _odd(path, kind, error) from error
    try:
        decoder = Decoder(safetensors.torch.load(data))
        values = {name: decoder.decode(each) for name, each in content["content"].items()}
    except (*_ODD, SafetensorError) as error:
        raise _odd(path, kind, error) from error
    return Record(values, first[1].decode(), files)


def seal(path: Path) -> dict[str, Any]:
    """Hash and size of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}


def check(path: Path, expected: Mapping[str, Any]) -> bytes:
    """Content of a file; ValueError where it is missing, or other than its :func:`seal` says."""
    data = _bytes(path)
    _compare(path, expected, {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)})
    return data


def check_seal(path: Path, expected: Mapping[str, Any]) -> None:
    """The same of a file that may be too large to be read at once."""
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is missing: copy the folder as a whole.")
    _compare(path, expected, seal(path))


def _compare(path: Path, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    if found["bytes"] != expected["bytes"]:
        raise ValueError(
            f"{str(path)!r} has {found['bytes']:,} bytes and not the {expected['bytes']:,} that were saved: it was not "
            "copied as a whole, or belongs to another model."
        )
    if found["sha256"] != expected["sha256"]:
        raise ValueError(f"{str(path)!r} {_DAMAGED}: it does not have the SHA-256 that was written down.")


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is missing: copy the folder as a whole.")
    return path.read_bytes()


def _odd(path: Path, kind: Kind, error: Exception) -> ValueError:
    return ValueError(f"{str(path)!r} holds what no {kind.name} does. {one_line(error)[:200]}")


def _name(stem: str, digest: str) -> str:
    return f"{stem}-{digest[:16]}.safetensors"


def _with_hash(folder: Path, name: str, seal: Mapping[str, Any]) -> Path:
    """Path of a file whose name says what it holds."""
    path = folder / name
    return path.with_name(f"{path.stem}-{seal['sha256'][:16]}{path.suffix}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
