"""Where a simulated screen goes: into memory, or to disk in blocks of cells."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anndata as ad
import numpy as np
from scipy import sparse

from raptorgraph._files import replaced
from raptorgraph.screen._room import close_whole, new_file, room_for_bytes, room_for_rows, room_for_tables

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike
    from types import TracebackType

    import pandas as pd


H5AD, ZARR = ".h5ad", ".zarr"
MAX_COLUMNS = 4000  # of a table in an h5ad file: their names lie in the table's header, of at most 64 kB
CHUNK_NUMBERS = 2**18  # in a chunk of an array on disk
LATENTS = "u_true"


def check_destination(out: str | PathLike[str], n_genes: int, n_latent: int) -> Path:
    """Path of a file that does not exist, of a kind that can be written in blocks."""
    path = Path(out)
    if path.suffix not in {H5AD, ZARR}:
        raise ValueError(f"out='{path}' is neither a {H5AD} file nor a {ZARR} store: end it in one of these.")
    if path.exists():
        raise FileExistsError(f"out='{path}' exists: remove it, or give another path.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"out='{path}': there is no folder '{path.parent}'. Make it first.")
    widest = max(n_genes, n_latent)
    if path.suffix == H5AD and widest > MAX_COLUMNS:
        raise ValueError(
            f"out='{path}': the tables of the truth have {widest} columns, and h5ad files hold at most about "
            f"{MAX_COLUMNS}. Write a {ZARR} store, or use fewer genes."
        )
    if path.suffix == ZARR:
        try:
            import zarr  # noqa: F401
        except ImportError as error:
            raise ImportError(f"out='{path}' needs zarr: pip install zarr") from error
    return path


class InMemory:
    """Collects the blocks."""

    def __init__(self) -> None:
        self.counts: list[sparse.csr_matrix] = []
        self.latents: list[np.ndarray] = []

    def add(self, counts: sparse.csr_matrix, latents: np.ndarray) -> None:
        """Keep a block of cells."""
        self.counts.append(counts)
        self.latents.append(latents)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.counts, self.latents = [], []

    def finish(self, obs: pd.DataFrame, var: pd.DataFrame, uns: Mapping[str, Any]) -> ad.AnnData:
        """The screen."""
        counts = self.counts[0] if len(self.counts) == 1 else sparse.vstack(self.counts, format="csr")
        self.counts = []
        return ad.AnnData(X=counts, obs=obs, var=var, obsm={LATENTS: np.concatenate(self.latents)}, uns=dict(uns))


class OnDisk:
    """Writes every block behind the last; the file has its name when it is whole, and is gone after an error."""

    def __init__(self, path: Path, n_genes: int, n_latent: int) -> None:
        self.path, self.n_genes, self.n_latent = path, n_genes, n_latent

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.file = self._open(stack.enter_context(replaced(self.path)), "w")
            stack.push(self._close)
            self._begin()
            self._opened = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)

    def _begin(self) -> None:
        """Write a screen without cells."""
        ad.io.write_elem(self.file, "/", ad.AnnData(shape=(0, self.n_genes)))
        if "raw" in self.file:  # a note that there is none, which backed files are not read with
            del self.file["raw"]
        # places of counts beyond 2^31
        empty = sparse.csr_matrix((0, self.n_genes), dtype=np.float32)
        empty.indptr = empty.indptr.astype(np.int64)
        room_for_bytes(self.file, CHUNK_NUMBERS * empty.indptr.itemsize)  # its one number is written in a whole chunk
        # without chunks of a size, those of an empty array are of one number each
        ad.io.write_elem(self.file, "X", empty, dataset_kwargs={"chunks": (CHUNK_NUMBERS,)})
        rows = max(1, CHUNK_NUMBERS // self.n_latent)
        resizable = {"maxshape": (None, self.n_latent)} if self.path.suffix == H5AD else {}
        ad.io.write_elem(
            self.file,
            f"obsm/{LATENTS}",
            np.empty((0, self.n_latent), dtype=np.float32),
            dataset_kwargs={"chunks": (rows, self.n_latent), **resizable},
        )

    def _open(self, path: Path, mode: str) -> Any:
        if self.path.suffix == H5AD:
            import h5py

            return new_file(path) if mode == "w" else h5py.File(path, mode)
        import zarr

        # the format that every anndata reads
        kind = {"zarr_format": 2} if mode == "w" and not zarr.__version__.startswith("2.") else {}
        opened: Any = zarr.open_group  # whose arguments differ between versions
        return opened(str(path), mode=mode, **kind)

    def _close(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.path.suffix == H5AD:
            if kind is None:
                close_whole(self.file)
            self.file.close()

    def add(self, counts: sparse.csr_matrix, latents: np.ndarray) -> None:
        """Write a block of cells; OSError where the disk does not take it."""
        room_for_rows(self.file, "X", counts)
        ad.io.sparse_dataset(self.file["X"]).append(counts)
        room_for_rows(self.file, f"obsm/{LATENTS}", latents)
        written = self.file[f"obsm/{LATENTS}"]
        before = written.shape[0]
        written.resize((before + len(latents), latents.shape[1]))
        written[before:] = latents

    def finish(self, obs: pd.DataFrame, var: pd.DataFrame, uns: Mapping[str, Any]) -> ad.AnnData:
        """Write the tables, and open the screen with its counts on disk."""
        room_for_tables(self.file, obs, var, dict(uns))
        for name, table in {"obs": obs, "var": var, "uns": dict(uns)}.items():
            ad.io.write_elem(self.file, name, table)
        self._opened.close()  # puts it in place
        if self.path.suffix == H5AD:
            return ad.read_h5ad(self.path, backed="r")
        group = self._open(self.path, "r")
        parts = {name: ad.io.read_elem(group[name]) for name in ("obs", "var", "uns", "obsm")}
        return ad.AnnData(X=ad.io.sparse_dataset(group["X"]), **parts)
