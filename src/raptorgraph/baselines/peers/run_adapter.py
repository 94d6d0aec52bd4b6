"""Ask a tool within its own environment: ``python run_adapter.py ADAPTER FOLDER PARENT``.

The folder has ``screen.h5ad`` (training cells, labels like ``control``, ``A`` and ``A+B`` in ``obs["perturbation"]``,
library sizes in ``obs["library"]`` where ``X`` has counts) and ``task.json``. The adapter is a Python file with a
function ``run(cells, task)``, which gives tables and cells by the name of the file that each is written to
(``effects.csv``, ``cells.h5ad``), and its times by name under ``"seconds"``. ``made.json``, with times and memory, is
written last. The process ends soon after its parent.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

_WATCH = 0.5  # seconds between two looks at whether the parent is there


def main(adapter: str, folder: str, parent: str) -> None:
    """Run the adapter, and write what it gives."""
    end_with(int(parent))
    sys.path.pop(0)  # this folder, whose files are no modules of the environment
    place = Path(folder)
    task = json.loads((place / "task.json").read_text(encoding="utf-8"))
    import anndata as ad
    import numpy as np

    random.seed(task["seed"])
    np.random.seed(task["seed"])  # noqa: NPY002  the tools draw from it
    before = megabytes("VmRSS")
    cells = ad.read_h5ad(place / "screen.h5ad")
    found: dict[str, Any] = load(adapter).run(cells, task)
    made = {
        "seconds": {name: float(value) for name, value in found.pop("seconds", {}).items()},
        "megabytes": megabytes("VmHWM") - before,
    }
    for name, value in found.items():
        if name.endswith(".csv"):
            if not np.isfinite(value.to_numpy(dtype=float)).all():
                raise ValueError(f"{name} has values that are missing or infinite.")
            value.to_csv(place / name)
        else:
            value.write_h5ad(place / name)
    (place / "made.json").write_text(json.dumps(made), encoding="utf-8")


def load(path: str) -> Any:
    """The adapter, as a module."""
    spec = importlib.util.spec_from_file_location("adapter", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def end_with(parent: int) -> None:
    """Have this process end soon after its parent has, however that ended: nobody would take what it finds."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def megabytes(what: str) -> float:
    """Memory of this process, now (``VmRSS``) or at the highest (``VmHWM``); 0 on systems but Linux.

    The usage that the system adds up would count what the parent had before this process began.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{what}:"))


if __name__ == "__main__":
    main(*sys.argv[1:])
