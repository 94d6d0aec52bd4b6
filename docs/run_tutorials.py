"""Run the notebooks of ``tutorials/`` from top to bottom: ``make tutorials``.

Outputs are written back, without times of execution, so that a notebook whose results stay the same does not change.
With ``--check`` nothing is written. Names after it choose notebooks: ``python docs/run_tutorials.py --check 02``.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

# Read by the kernel, before any library is imported there.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

# Bars come and go, and would stay in the outputs.
os.environ["TQDM_DISABLE"] = "1"

import nbformat  # noqa: E402
from nbclient import NotebookClient  # noqa: E402
from nbclient.exceptions import CellExecutionError  # noqa: E402

TUTORIALS = Path(__file__).parents[1] / "tutorials"


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
    failed = 0
    for path in paths:
        start = time.perf_counter()
        error = run(path, write="--check" not in sys.argv)
        print(f"{path.name}: {'failed' if error else 'ran'} in {time.perf_counter() - start:.0f} s", flush=True)
        if error:
            failed += 1
            print(error, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
