"""Run an experiment: its units in processes of their own, what is finished kept, tables and a figure at the end."""

from __future__ import annotations

import os
import warnings
from concurrent.futures import as_completed
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raptorgraph._progress import progress_argument, progress_bar, progress_default
from raptorgraph.baselines._peer_calls import THREADS
from raptorgraph.benchmark._executors import check_executor, pool
from raptorgraph.benchmark._experiments import Experiment, UnitsFailed, experiment
from raptorgraph.benchmark._parts import is_finished, mark_finished, read_part, write_part
from raptorgraph.benchmark._provenance import fingerprints
from raptorgraph.benchmark._report import write_report
from raptorgraph.benchmark._settings import Part, Settings, Unit
from raptorgraph.screen._files import check_folder

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import pandas as pd


@progress_argument()
def run(
    name: str,
    *,
    screen: str | Path | None = None,
    out: str | Path,
    seeds: int | Sequence[int] | None = None,
    quick: bool = False,
    n_jobs: int | None = None,
    n_threads: int = 1,
    executor: str = "processes",
    perturbation_key: str = "perturbation",
    control: str | Sequence[str] = "control",
    delimiter: str = "+",
    layer: str | None = None,
    library_size_key: str | None = None,
    batch_key: str | None = None,
    n_top_genes: int | None = None,
    progress: bool | None = None,
    **options: Any,
) -> dict[str, pd.DataFrame]:
    """Run an experiment and write its tables and figure.

    The work is cut into units, each of one seed and in a process of its own. A finished unit is kept in
    ``DIR/parts/NAME`` and used again in a later call where data, settings, the code that the work uses, the versions of
    its dependencies, device and threads are the same, so that a run can be broken off and resumed. Tables and figures
    are made anew. Units that fail are reported at the end, after the others are done.

    Parameters
    ----------
    name
        One of :data:`EXPERIMENTS`.
    screen
        Path of an h5ad file or a zarr store, or a name: see :func:`load_screen`. Not used by ``"losses"`` and
        ``"intervals"``; ``"graph"`` and ``"ablation"`` simulate screens without one.
    out
        Directory of the results.
    seeds
        Number of repetitions (seeds 0, 1, ...), or the seeds themselves; default 3, of ``"ablation"`` and ``"design"``
        5, of ``"speed"`` 1.
    quick
        Whether to run a small version, which shows in minutes that everything works; its numbers mean nothing.
    n_jobs
        Number of processes at a time; default one for each `n_threads` processor cores. 0 does everything in this
        process.
    n_threads
        Threads of each process. The results of more than one thread may differ in the last digits.
    executor
        ``"processes"`` of this machine, ``"dask"`` (``pip install distributed``) or ``"ray"`` (``pip install ray``):
        the cluster whose address ``DASK_SCHEDULER_ADDRESS`` or ``RAY_ADDRESS`` has, or one that is started here. Its
        workers read the screen and write to `out`, so they need the same folders and package.
    perturbation_key, control, delimiter, layer, library_size_key, batch_key
        As in ``RaptorGraphModel.setup_anndata``.
    n_top_genes
        Number of highly variable genes to keep, beside the perturbed ones; default all.
    progress
        Whether to show a progress bar; by default in a terminal or a notebook.
    **options
        Options of the experiment, see its documentation.

    Returns
    -------
    dict of str to pandas.DataFrame
        The tables; each is written as ``DIR/<table>.csv`` and ``.md``, figures as ``DIR/<name>.png``.

    Raises
    ------
    KeyError
        If a column or layer is not there.
    ImportError
        If the package of the executor is not installed.
    UnitsFailed
        If units failed; the tables are then not written, and finished units are kept.
    ValueError
        If the experiment, an option or the data do not suit; before any unit starts.

    Examples
    --------
    The command line does the same: ``raptorgraph benchmark prediction --screen simulated --quick``.

    >>> tables = rg.benchmark.run(
    ...     "prediction",
    ...     screen="simulated",
    ...     out="benchmark",
    ...     seeds=1,
    ...     quick=True,
    ...     n_jobs=0,
    ...     progress=False,
    ...     methods=["no change", "additive"],
    ...     regimes=["singles"],
    ... )
    >>> sorted(tables)
    ['prediction', 'prediction_conditions', 'prediction_long']
    >>> tables["prediction"]["method"].tolist()[:2]
    ['no change', 'additive']
    """
    asked = experiment(name)
    check_executor(executor, n_jobs)
    options = {key: value for key, value in options.items() if value is not None}
    seeds = asked.n_seeds if seeds is None else seeds
    seeds = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds={seeds!r} must be at least one seed, each different.")
    unknown = sorted(set(options) - set(asked.options))
    if unknown:
        known = sorted(asked.options) or "none"
        raise ValueError(f"{unknown[0]!r} is not an option of the experiment {name!r}, which has {known}.")
    setup = {
        "perturbation_key": perturbation_key,
        "control": control if isinstance(control, str) else list(control),
        "delimiter": delimiter,
        "layer": layer,
        "library_size_key": library_size_key,
        "batch_key": batch_key,
    }
    settings = Settings(
        screen=None if screen is None else str(screen),
        setup=setup,
        seeds=seeds,
        quick=quick,
        n_top_genes=n_top_genes,
        options=options,
    )
    out = Path(out)
    check_folder(out, None if screen is None else Path(screen))
    units = asked.units(settings)
    folder = out / "parts" / asked.parts
    folder.mkdir(parents=True, exist_ok=True)
    parts = _finish(asked, units, settings, folder.resolve(), n_jobs, n_threads, executor, progress)
    tables = asked.tables(parts, settings)
    write_report(out, asked, tables, settings)
    return tables


def _finish(
    asked: Experiment,
    units: Sequence[Unit],
    settings: Settings,
    folder: Path,
    n_jobs: int | None,
    n_threads: int,
    executor: str,
    progress: bool | None,
) -> list[tuple[Unit, Part]]:
    """Parts of all units, finished earlier or now."""
    name = asked.name
    marks = fingerprints(asked, units, settings, threads=_own_threads() if n_jobs == 0 else str(n_threads))
    if len(marks) != len(units):
        raise ValueError(f"The units of {name!r} do not have names of their own.")
    todo = [unit for unit in units if not is_finished(folder, unit, marks[unit.key])]
    failures: dict[str, str] = {}
    works = _work_all(name, todo, settings, folder, n_jobs, n_threads, executor)
    with progress_bar(name, len(todo)) as advance, closing(works):
        for unit, error in works:
            if error is None:
                mark_finished(folder, unit, marks[unit.key])
            else:
                failures[unit.key] = error
            advance()
    if failures:
        key, error = next(iter(failures.items()))
        raise UnitsFailed(
            f"{len(failures)} of {len(units)} units of {name!r} failed; the first is {key}: {error} "
            "The finished ones are kept, and the same command goes on from there."
        )
    return [(unit, read_part(folder, unit)) for unit in units]


def _work_all(
    name: str,
    units: Sequence[Unit],
    settings: Settings,
    folder: Path,
    n_jobs: int | None,
    n_threads: int,
    executor: str = "processes",
) -> Generator[tuple[Unit, str | None], None, None]:
    """Each unit as it ends, with the message of its error if it failed."""
    if n_jobs == 0:
        for unit in units:
            yield unit, _work(name, unit, settings, folder, None)
        return
    if not units:
        return
    n_jobs = n_jobs or max(1, (os.cpu_count() or 1) // n_threads)
    with pool(executor, min(n_jobs, len(units)), n_threads) as submit:
        futures = {submit(_work, name, unit, settings, folder, n_threads): unit for unit in units}
        for future in as_completed(futures):
            error = future.exception()
            yield futures[future], future.result() if error is None else f"{type(error).__name__}: {error}"


def _work(name: str, unit: Unit, settings: Settings, folder: Path, n_threads: int | None) -> str | None:
    """Do a unit and write its part; returns the message of an error that is the unit's own."""
    import logging

    import torch

    # The progress of trainings would tear up the bar of the experiment.
    logging.disable(logging.INFO)
    if n_threads is not None:
        torch.set_num_threads(n_threads)
    try:
        with progress_default(False), warnings.catch_warnings():
            if n_threads is not None:  # a process of its own, whose notes on stderr would tear up the bar
                warnings.simplefilter("ignore")
            part = experiment(name).work(unit, settings)
    except (ArithmeticError, KeyError, MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        logging.disable(logging.NOTSET)
    write_part(folder, unit, part)
    return None


def _own_threads() -> str:
    """Threads of this process: one number where torch and all numerical libraries have the same."""
    import torch

    found = {str(torch.get_num_threads()), *(os.environ.get(name, "default") for name in THREADS)}
    return ", ".join(sorted(found))
