"""Files of public screens: each is downloaded once, and its checksum compared on every use.

The checksum of each address is kept in the user's cache, too, and compared when the file is downloaded again, to
whichever folder: most publishers name none.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raptorgraph._files import file_hash, put_text, replaced, scratch

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "RAPTORGRAPH_CACHE"
_KNOWN = "checksums.json"  # in the user's cache
# A web page in place of the file has others; mudata writes its name before the file proper.
_FIRST_BYTES = {".h5ad": (b"\x89HDF",), ".h5mu": (b"MuData", b"\x89HDF"), ".gz": (b"\x1f\x8b",)}


@dataclass(frozen=True)
class Source:
    """One mirror of a file: its `url`, http or https, and the name of the `file` in the cache.

    Mirrors with the same content have the same name. The published checksum is ``"md5:..."`` or ``"sha256:..."``, and
    None where none is published.
    """

    url: str
    file: str
    known_hash: str | None = None


def cache_folder(path: str | os.PathLike[str] | None = None) -> Path:
    """Folder of downloaded files: `path`, else ``$RAPTORGRAPH_CACHE``, else the user's cache folder."""
    if path is not None:
        return Path(path).expanduser()
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder).expanduser()
    return Path(_pooch().os_cache("raptorgraph"))


def fetch(sources: Sequence[Source], folder: Path, *, sha256: str | None = None) -> Path:
    """Return the file from the folder, or download it from the first of the mirrors that has it.

    The SHA-256 of a new file is written beside it (``FILE.sha256``, as ``sha256sum --check`` reads it) and compared
    whenever the file is used again, and with that of an earlier download from the same address. `sha256` is expected in
    place of the published and the earlier checksums.

    Raises
    ------
    ImportError
        If a download is needed and pooch is not installed.
    ConnectionError
        If no mirror has the file; all mirrors are listed with their reasons.
    ValueError
        If a file in the folder does not have the recorded or expected checksum.
    """
    for source in sources:
        if (folder / source.file).is_file():
            return _verified(folder / source.file, source, sha256)
    reasons = []
    for source in sources:
        try:
            path = _download(source, folder, sha256)
        except (OSError, ValueError) as error:  # requests' errors are OSErrors, pooch's mismatches ValueErrors
            reasons.append(f"- {source.url} (to {source.file}): {' '.join(str(error).split())}")
            continue
        _remember(source, checksum(path))
        return path
    listed = "\n".join(reasons)
    raise ConnectionError(
        f"{sources[0].file} could not be downloaded to {str(folder)!r}:\n{listed}\n"
        "Or download it by hand from one of these addresses, and put it there under the name in brackets."
    )


def local_file(path: str | os.PathLike[str], sha256: str | None = None) -> Path:
    """Path of a file that is there already; FileNotFoundError if it is not, ValueError if its SHA-256 differs."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}; name a folder to download to, or nothing.")
    return check_sha256(path, sha256)


def check_sha256(path: Path, sha256: str | None) -> Path:
    """`path`; ValueError if the file does not have the expected SHA-256, None for any."""
    if sha256 is not None and (found := file_hash(path)) != sha256.lower():
        raise ValueError(f"{str(path)!r} has the SHA-256 {found}, not the expected {sha256.lower()}.")
    return path


def _download(source: Source, folder: Path, sha256: str | None) -> Path:
    known_hash = source.known_hash if sha256 is None else f"sha256:{sha256.lower()}"
    pooch = _pooch()
    folder.mkdir(parents=True, exist_ok=True)
    # pooch takes a file that is there for a finished one, and leaves its own behind when it is killed
    with scratch(folder) as place:
        part = Path(pooch.retrieve(source.url, known_hash, fname=source.file, path=place))
        first = _FIRST_BYTES[part.suffix]
        with part.open("rb") as file:
            start = file.read(max(map(len, first)))
        if not start.startswith(first):
            raise ValueError(f"what it sends is no {part.suffix} file (a web page?)")
        if sha256 is None:
            _compare(part, source)
        with replaced(folder / source.file) as whole:
            part.replace(whole)
    _record(folder / source.file)
    return folder / source.file


def _verified(path: Path, source: Source, sha256: str | None) -> Path:
    """`path`; ValueError if the file does not have the expected and the recorded checksum."""
    check_sha256(path, sha256)
    record = _record_of(path)
    if not record.is_file():  # somebody put the file there
        if sha256 is None and source.known_hash is not None:
            algorithm, expected = source.known_hash.split(":")
            if (found := file_hash(path, algorithm)) != expected:
                raise ValueError(
                    f"{str(path)!r} has the {algorithm} {found}, the published file {expected}. Delete it to download "
                    "it again."
                )
        if sha256 is None:
            _compare(path, source)
        _record(path)
        return path
    found, recorded = file_hash(path), record.read_text().split()[0]
    if found != recorded:
        raise ValueError(
            f"{str(path)!r} has changed since it was downloaded: its SHA-256 is {found}, {record.name!r} says "
            f"{recorded}. Delete both files to download it again."
        )
    return path


def checksum(path: Path) -> str:
    """SHA-256 of a file that :func:`fetch` gave, as it is recorded beside it."""
    return _record_of(path).read_text().split()[0]


def _compare(path: Path, source: Source) -> None:
    """ValueError where an earlier download from this address had another checksum."""
    known, found = _known_checksums().get(source.url), file_hash(path)
    if known is not None and found != known:
        raise ValueError(
            f"{source.file} has the SHA-256 {found}, and had {known} when it was downloaded from {source.url} before. "
            f"If its publisher changed it, take that address out of {str(_checksums_file())!r}, or give the new one as "
            "sha256."
        )


def _remember(source: Source, sha256: str) -> None:
    """Keep the checksum of what an address gave, where the user's cache can be written."""
    path = cache_folder() / _KNOWN
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        put_text(path, json.dumps({**_known_checksums(), source.url: sha256}, indent=1) + "\n")
    except PermissionError as error:
        logger.info("The checksum of %s is not kept: %s.", source.file, error)


def _known_checksums() -> dict[str, str]:
    """Checksums of earlier downloads by their addresses; ValueError where their file is damaged."""
    path = _checksums_file()
    if path is None or not path.is_file():
        return {}
    try:
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r}, the checksums of earlier downloads, is damaged: delete it.") from error
    return found


def _checksums_file() -> Path | None:
    """File of these checksums; None without pooch, and then nothing was downloaded."""
    try:
        return cache_folder() / _KNOWN
    except ImportError:
        return None


def _record(path: Path) -> None:
    put_text(_record_of(path), f"{file_hash(path)}  {path.name}\n")


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _pooch() -> Any:
    try:
        import pooch
    except ImportError as error:
        raise ImportError('Downloading a public screen needs pooch: pip install "raptorgraph[datasets]"') from error
    return pooch
