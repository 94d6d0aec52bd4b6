"""Ask a published tool: cells and a task go to a process of its own environment, and files come back."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raptorgraph._files import file_hash, put_text, scratch, write_h5ad
from raptorgraph.baselines._peer_calls import THREADS, call
from raptorgraph.baselines._peer_environments import environment_folder, installed, log_file, peers_folder, python_in
from raptorgraph.baselines._peers import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import anndata as ad

    from raptorgraph.baselines._peer_environments import Environment
    from raptorgraph.baselines._peers import Peer

CONTROL, DELIMITER = "control", "+"  # of the labels that tools are given


@dataclass(frozen=True)
class Answer:
    """What a tool gave.

    Attributes
    ----------
    folder
        Folder of its files, until the end of the context.
    seconds
        Its times, such as of ``fit`` and ``predict``.
    megabytes
        Memory above what it had at the start, at the highest; 0 on systems but Linux.
    """

    folder: Path
    seconds: dict[str, float]
    megabytes: float


def environment(tool: Peer) -> Environment:
    """Environment of a tool; ValueError, with the command that mends it, where it is not installed."""
    found = installed(tool)
    if found is None:
        raise ValueError(f"{tool.title} is not installed: raptorgraph peers install {tool.name}")
    return found


def made_of(tool: Peer, files: Mapping[str, str]) -> dict[str, Any]:
    """Name and versions of a tool that is installed, and hashes of what its answers depend on, as JSON holds them."""
    found = environment(tool)
    versions = {"python": found.python, tool.package: found.versions.get(tool.package, "unknown")}
    return {"name": tool.name, "versions": versions, "made of": f"{found.pins} {stamp(tool, files)}"}


def stamp(tool: Peer, files: Mapping[str, str]) -> str:
    """Hash of what its answers depend on beside data and settings: driver, adapter, pins, and the files it is given."""
    paths = [DRIVER, tool.adapter, tool.pins, *(Path(files[name]) for name in sorted(files))]
    return " ".join(file_hash(path)[:16] for path in paths)


@contextlib.contextmanager
def answered(
    tool: Peer,
    cells: ad.AnnData,
    task: Mapping[str, Any],
    *,
    log: str,
    threads: int = 1,
    timeout: float | None = None,
) -> Iterator[Answer]:
    """Have a tool do a task, and give what it has found.

    Parameters
    ----------
    tool
        A tool that is installed.
    cells
        Cells that it may see, with canonical labels (``control``, ``A``, ``A+B``) in ``obs["perturbation"]`` and
        library sizes in ``obs["library"]`` where ``X`` has counts.
    task
        What its adapter reads, with a ``seed``; as JSON holds it.
    log
        Name of the log, which is kept where the tool fails.
    threads
        Threads that it may use.
    timeout
        Seconds after which it is stopped.

    Raises
    ------
    RuntimeError
        If it fails; with its last line, and the name of the log.
    TimeoutError
        If it takes too long.
    ValueError
        If it is not installed.
    """
    environment(tool)
    kept = log_file(log)
    folder = peers_folder() / "work"
    folder.mkdir(parents=True, exist_ok=True)
    variables = {**dict.fromkeys(THREADS, str(threads)), "PYTHONHASHSEED": str(task["seed"] % 2**32)}
    argv = [python_in(environment_folder(tool)), DRIVER, tool.adapter]
    with scratch(folder) as place:
        write_h5ad(place / "screen.h5ad", cells)
        put_text(place / "task.json", json.dumps({**task, "threads": threads}))
        call(tool.title, [*argv, place, str(os.getpid())], kept, folder=place, variables=variables, timeout=timeout)
        if not (place / "made.json").is_file():
            raise RuntimeError(f"{tool.title} ended without an answer; its log is {kept}.")
        made = json.loads((place / "made.json").read_text(encoding="utf-8"))
        yield Answer(place, made["seconds"], made["megabytes"])
    kept.unlink(missing_ok=True)


def labels_for(conditions: Sequence[Sequence[str]]) -> list[str]:
    """Labels of gene sets as tools are given them; ValueError for a gene that would be taken apart."""
    for genes in conditions:
        for gene in genes:
            if DELIMITER in gene:
                raise ValueError(
                    f"The name of the gene {gene!r} has a {DELIMITER!r}, at which tools take labels apart."
                )
    return [DELIMITER.join(genes) or CONTROL for genes in conditions]
