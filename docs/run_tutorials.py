"""Run the notebooks of ``tutorials/`` from top to bottom: ``make tutorials``.

Outputs are written back, without times of execution, so that a notebook whose results stay the same does not change.
With ``--check`` nothing is written. Names after it choose notebooks: ``python docs/run_tutorials.py --check 02``.

A notebook that reads a real screen names its files in its metadata, ``{"raptorgraph": {"data": ["screen.h5ad"]}}``.
They are looked for in ``$RAPTORGRAPH_DATA``, by default ``../shared/data`` beside the repository; where one is missing
the notebook is skipped, and keeps the outputs that it has.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"

# Read by the kernel, before any library is imported there.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ.setdefault("RAPTORGRAPH_DATA", str(TUTORIALS.parents[1] / "shared" / "data"))

# Bars come and go, and would stay in the outputs.
os.environ["TQDM_DISABLE"] = "1"

import nbformat  # noqa: E402
from nbclient import NotebookClient  # noqa: E402
from nbclient.exceptions import CellExecutionError  # noqa: E402


def missing(notebook: nbformat.NotebookNode, folder: Path) -> list[str]:
    """Files that the notebook reads and the folder lacks."""
    return [name for name in notebook.metadata.get("raptorgraph", {}).get("data", []) if not (folder / name).is_file()]


def run(path: Path, *, write: bool) -> str | None:
    """Run one notebook in its folder; the error it stopped with, if any."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    client = NotebookClient(
        notebook, timeout=900, kernel_name="python3", record_timing=False, resources={"metadata": {"path": path.parent}}
    )
    try:
        client.execute()
    except CellExecutionError as error:
        return str(error)
    # What names the machine, and not the results.
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    if write:
        nbformat.write(notebook, path)
    return None


def main() -> int:
    """Run all, or those whose name begins with one of the words given."""
    words = [word for word in sys.argv[1:] if word != "--check"]
    paths = [path for path in sorted(TUTORIALS.glob("[0-9]*.ipynb")) if not words or path.name.startswith(tuple(words))]
    if not paths:
        print(f"There is no such notebook in {TUTORIALS}.", file=sys.stderr)
        return 1
    failed, folder = 0, Path(os.environ["RAPTORGRAPH_DATA"])
    for path in paths:
        absent = missing(nbformat.read(path, as_version=4), folder)
        if absent:
            print(f"{path.name}: skipped, {', '.join(absent)} not in {folder} (RAPTORGRAPH_DATA)", flush=True)
            continue
        start = time.perf_counter()
        error = run(path, write="--check" not in sys.argv)
        print(f"{path.name}: {'failed' if error else 'ran'} in {time.perf_counter() - start:.0f} s", flush=True)
        if error:
            failed += 1
            print(error, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
