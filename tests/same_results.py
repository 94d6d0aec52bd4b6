"""Compare a fixed set of fits with those of another version of the package, on the same machine.

``python tests/same_results.py --against 8239728`` checks that commit (or tag) out beside this one, runs the fits with
both and lists what differs. Only public names are used, so that versions of different structure compare. Options:

``--against REV``
    Commit or tag of this repository to compare with.
``--only NAME [NAME ...]``
    Some of the fits; by default all.
``--tolerance X``
    Largest difference that passes, relative to the largest absolute value of the table; default 1e-6.

The exit status is 1 where something differs by more, or is missing.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[1]
Found = Iterator[tuple[str, object]]
_COST = "seconds|memory"  # which no two runs share


def _screen(seed: int = 0, **kwargs):
    import raptorgraph as rg

    size = {"n_doubles": 6, "n_control_cells": 300, "n_cells_per_perturbation": 60, "expected_degree": 2.0}
    return rg.datasets.simulate(80, 8, **{**size, **kwargs}, seed=seed)


def _fit(adata, preset: str = "default", setup: dict | None = None, max_epochs: int = 3, **kwargs):
    import scvi

    import raptorgraph as rg

    scvi.settings.seed = 0
    rg.RaptorGraphModel.setup_anndata(adata, **(setup or {"library_size_key": "total_counts"}))
    model = rg.RaptorGraphModel.from_preset(adata, preset, n_hidden=16, **kwargs)
    model.train(max_epochs=max_epochs, accelerator="cpu", enable_progress_bar=False)
    return model


def _answers(model, *, posterior: bool = True) -> Found:
    """What every model is asked."""
    adata, asked = model.adata, ["P01", "P02", "P01+P02", "P03+P05"]
    if posterior:
        mean, sd = model.predict_effects(asked, return_sd=True)
        yield from (("mean", mean), ("sd", sd))
        yield "draws", model.sample_effects(asked, n_draws=3, seed=1)
    yield "decoded", model.predict_effects(asked, kind="decoder")
    yield "cells", model.predict(asked, n_cells=40, seed=2).X
    yield "new cells", model.predict(asked, n_cells=40, seed=2, noise="new").X
    yield "counterfactual", model.get_counterfactual("P01+P02", adata[:50].copy())
    yield "causal", model.get_latent_representation()
    yield "exogenous", model.get_latent_representation(kind="exogenous")
    yield "dag", model.get_dag()
    yield "history", model.history["train_loss"]


def default_model() -> Found:
    """Counts, default preset, and the tables of `tl`."""
    import raptorgraph as rg

    model = _fit(_screen())
    yield from _answers(model)
    yield "edges", model.get_edges()
    yield "measured", model.measured_effects()
    yield "interactions", rg.tl.interactions(model, n_draws=20)
    names = list(model.adata.var_names[8:])
    sets = {f"set {i}": names[12 * i : 12 * i + 12] for i in range(4)}
    yield "enrich", rg.tl.enrich(model, sets, activation="learned", n_permutations=100, n_null=100)
    yield "reverse", rg.tl.reverse(model, model.predict_effects(["P01+P02", "P04"]))
    yield "spillover", rg.tl.spillover(model)
    yield "programs", rg.tl.program_similarity(model, activation="learned", n_null=100)
    yield "stability", rg.tl.dag_stability(model, n=3, n_null=2, seed=0)
    yield "total effects", rg.tl.total_effects(model)
    model.annotate(counterfactuals=["P01"])
    yield "annotated", model.adata.obsm["counterfactual_P01"]
    yield "normalized", model.get_normalized_expression(indices=[0, 1, 2])


def batches() -> Found:
    """Two batches, a category and a continuous covariate."""
    adata = _screen(seed=1)
    rng = np.random.default_rng(0)
    adata.obs["batch"] = rng.choice(["one", "two"], adata.n_obs)
    adata.obs["donor"] = rng.choice(["a", "b", "c"], adata.n_obs)
    adata.obs["score"] = rng.normal(5, 2, adata.n_obs)
    setup = {"library_size_key": "total_counts", "batch_key": "batch"}
    covariates = {"categorical_covariate_keys": ["donor"], "continuous_covariate_keys": ["score"]}
    model = _fit(adata, setup={**setup, **covariates})
    yield from _answers(model)
    yield "in one batch", model.predict_effects(["P01"], transform_batch="one")
    yield "measured", model.measured_effects()


def log_values() -> Found:
    """Log-normalized values, likelihood "normal"."""
    import scanpy as sc

    adata = _screen(seed=2)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    yield from _answers(_fit(adata, setup={"perturbation_key": "perturbation"}))


def paper() -> Found:
    """The published configuration."""
    yield from _answers(_fit(_screen(seed=3), "paper"), posterior=False)


def baselines() -> Found:
    """All baselines, dVAE and SENA among them."""
    import raptorgraph as rg

    adata = _screen(seed=4)
    for name, cls in rg.baselines.ladder().items():
        fitted = cls(library_size_key="total_counts").fit(adata)
        yield name, fitted.predict_effects(["P01", "P01+P02"])
        yield f"{name}, cells", fitted.predict("P01+P02", n_cells=20).X
    dvae = rg.baselines.DiscrepancyVAE(library_size_key="total_counts", max_epochs=2).fit(adata)
    yield "dVAE", dvae.predict_effects(["P01", "P01+P02"])
    names = list(adata.var_names)
    sets = {f"set {i}": names[5 * i : 5 * i + 10] for i in range(14)}
    sena = rg.baselines.SENA(sets, library_size_key="total_counts", max_epochs=2).fit(adata)
    yield "SENA", sena.predict_effects(["P01", "P01+P02"])


def preprocessing() -> Found:
    """Functions of `pp`."""
    import raptorgraph as rg

    adata = _screen(seed=5)
    adata.obs["batch"] = np.random.default_rng(0).choice(["one", "two"], adata.n_obs)
    for batch_key in (None, "batch"):
        yield f"measured, {batch_key}", rg.pp.measured_effects(adata, batch_key=batch_key)
    for method in ("emd", "sinkhorn", "nearest", "random"):
        paired = adata.copy()
        rg.pp.pair_cells(paired, perturbation_key="perturbation", method=method, seed=0)
        yield method, next(iter(paired.obsp.values())) if paired.obsp else paired.obs
    rg.pp.select_genes(adata, 40, perturbation_key="perturbation")
    yield "selected genes", pd.DataFrame({"gene": list(adata.var_names)})


def experiments() -> Found:
    """Small forms of experiments."""
    import raptorgraph as rg

    plans = {
        "prediction": {"methods": ["raptorgraph", "additive", "main-effects ridge"], "regimes": ["singles", "doubles"]},
        "interactions": {},
        "graph": {},
        "intervals": {},
    }
    for name, options in plans.items():
        with tempfile.TemporaryDirectory() as out:
            screen = {} if name in ("graph", "intervals") else {"screen": "simulated"}
            tables = rg.benchmark.run(name, **screen, out=out, seeds=1, quick=True, n_jobs=0, progress=False, **options)
        for key, table in tables.items():
            if "metric" in table:
                table = table[~table["metric"].str.contains(_COST)]
            yield f"{name}, {key}", table.drop(columns=[c for c in table.columns if re.search(_COST, c)])


def report() -> Found:
    """The tables of ``raptorgraph run``."""
    from raptorgraph.__main__ import main

    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "screen.h5ad", Path(folder) / "out"
        _screen(seed=6, n_doubles=12).write_h5ad(file)
        command = ["run", str(file), "--out", str(out), "--library-size-key", "total_counts", "--seed", "0"]
        code = main([*command, "--max-epochs", "2", "--report", "--resamples", "2"])
        yield "exit", [code or 0]
        for name in ("effects", "dag", "interactions", "perturbations", "heldout"):
            yield name, pd.read_csv(out / f"{name}.csv")


FITS: tuple[Callable[[], Found], ...] = (
    default_model, batches, log_values, paper, baselines, preprocessing, experiments, report,
)  # fmt: skip


def _arrays(value: object) -> dict[str, np.ndarray]:
    """Numbers and texts of a table or an array, by column."""
    if hasattr(value, "toarray"):
        value = value.toarray()
    if not isinstance(value, pd.DataFrame):
        return {"": np.asarray(value)}
    found = {"index": value.index.to_numpy().astype(str)}
    for column in value.columns:
        data = value[column]
        plain = pd.api.types.is_numeric_dtype(data) or pd.api.types.is_bool_dtype(data)
        found[str(column)] = data.to_numpy(dtype=float) if plain else data.map(str).to_numpy(dtype=str)
    return found


def record(folder: Path, only: list[str]) -> None:
    """Run the fits with the package that is imported, and keep what they give."""
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    for fit in FITS:
        if only and fit.__name__ not in only:
            continue
        found = {f"{name} / {column}": array for name, value in fit() for column, array in _arrays(value).items()}
        np.savez_compressed(folder / f"{fit.__name__}.npz", **{key.replace("/", "|"): v for key, v in found.items()})
        print(f"{fit.__name__}: {len(found)} arrays", flush=True)


def compare(old: Path, new: Path, tolerance: float, only: list[str]) -> int:
    """Print what differs; number of arrays that differ by more than the tolerance."""
    n_bad = 0
    for path in sorted(old.glob("*.npz")):
        if only and path.stem not in only:
            continue
        before, after = np.load(path), np.load(new / path.name)
        listed: list[tuple[float, str]] = []
        for key in before.files:
            if key not in after.files:
                listed.append((np.inf, f"{key} is missing"))
                continue
            a, b = before[key], after[key]
            if a.shape != b.shape:
                listed.append((np.inf, f"{key} has shape {b.shape}, was {a.shape}"))
            elif a.dtype.kind in "US" or b.dtype.kind in "US":
                if not np.array_equal(a.astype(str), b.astype(str)):
                    listed.append((np.inf, f"{key} has other texts"))
            elif not np.array_equal(a, b, equal_nan=True):
                a, b = a.astype(float), b.astype(float)
                scale = np.nanmax(np.abs(a), initial=0.0) or 1.0
                off = np.inf if (np.isnan(a) != np.isnan(b)).any() else np.nanmax(np.abs(a - b)) / scale
                listed.append((off, f"{key} differs by {off:.1e} of its largest value"))
        bad = [text for off, text in listed if not off <= tolerance]
        n_bad += len(bad)
        same = len(before.files) - len(listed)
        print(
            f"{path.stem}: {same} of {len(before.files)} arrays equal to the last bit, {len(bad)} beyond the tolerance"
        )
        for off, text in sorted(listed, reverse=True):
            print(f"  {'!' if not off <= tolerance else ' '} {text}")
    return n_bad


def _run(source: Path, folder: Path, only: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(source / "src"), "PYTHONSAFEPATH": "1"}
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        environment[variable] = "1"
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(Path(__file__).resolve()), "--record", str(folder)]
    subprocess.run([*command, *(["--only", *only] if only else [])], check=True, env=environment)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="REV")
    parser.add_argument("--only", nargs="+", default=[], choices=[fit.__name__ for fit in FITS])
    parser.add_argument("--tolerance", type=float, default=1e-6)
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--reference", type=Path, help="folder with the arrays of the other version, kept for the next call"
    )
    options = parser.parse_args()
    if options.record is not None:
        record(options.record, options.only)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        old, new = options.reference or Path(scratch) / "old", Path(scratch) / "new"
        if not (old.is_dir() and any(old.iterdir())):
            if options.against is None:
                parser.error("name a version: --against REV")
            tree = Path(scratch) / "tree"
            subprocess.run(["git", "-C", ROOT, "worktree", "add", "--detach", tree, options.against], check=True)
            try:
                _run(tree, old, options.only)
            finally:
                subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=True)
        _run(ROOT, new, options.only)
        return int(compare(old, new, options.tolerance, options.only) > 0)


if __name__ == "__main__":
    sys.exit(main())
