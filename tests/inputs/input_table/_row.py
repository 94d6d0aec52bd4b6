"""A row of the table, and the small screen that most rows change in one place."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import raptorgraph as rg

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GENES = ["ACTB", "KLF1", "GAPDH", "BAK1", "SPI1", "CEBPA", "RPL3", "MYC"]
LABELS = np.repeat(["control", "KLF1", "BAK1", "BAK1+KLF1"], [12, 8, 8, 8])
N_CELLS = len(LABELS)
EXTRA = 50  # counts of a cell on genes that are not in the screen


def counts() -> np.ndarray:
    """Counts of the plain screen, cells x genes, float64, from 0 to 60; no cell is empty."""
    found = np.random.default_rng(0).negative_binomial(1.0, 0.08, size=(N_CELLS, len(GENES))).clip(max=60)
    found[:, 0] += 3
    found[12:20, 5] += 20
    return found.astype(float)


def plain() -> ad.AnnData:
    """The screen that rows change."""
    values = counts()
    obs = pd.DataFrame(
        {
            "perturbation": LABELS.astype(object),
            "lane": np.resize(["x", "y"], N_CELLS),
            "total": values.sum(axis=1) + EXTRA,
            "depth": np.linspace(1.0, 2.0, N_CELLS),
        },
        index=[f"cell{i}" for i in range(N_CELLS)],
    )
    return ad.AnnData(sparse.csr_matrix(values.astype(np.float32)), obs=obs, var=pd.DataFrame(index=GENES))


def closed_form(
    values: np.ndarray | None = None, *, labels: Any = LABELS, library: Any = None, log: bool = False
) -> pd.DataFrame:
    """Effects by their definition: differences of means of ``log1p(1e4 * count / library size)`` to the controls."""
    values = counts() if values is None else np.asarray(values, dtype=float)
    if not log:
        library = values.sum(axis=1) if library is None else np.asarray(library, dtype=float)
        values = np.log1p(1e4 * values / library[:, None])
    labels = np.asarray(labels, dtype=object)
    means = pd.DataFrame(values, columns=GENES[: values.shape[1]]).groupby(labels).mean()
    return means.drop(index="control") - means.loc["control"]


@dataclass(frozen=True)
class Case:
    """What a row may use: a folder of its own, and a model of the plain screen, which it leaves as it is."""

    folder: Path
    model: rg.RaptorGraphModel
    monkeypatch: Any

    def effects(self, adata: ad.AnnData, **setup: Any) -> pd.DataFrame:
        """Effects that were measured on a screen, by what a model reads of it once it is set up."""
        rg.RaptorGraphModel.setup_anndata(adata, **setup)
        return rg.RaptorGraphModel(adata, n_hidden=4).screen.effects


def equal(found: pd.DataFrame, expected: pd.DataFrame | None = None) -> None:
    """Raise where effects are not the expected ones; by default those of the plain screen."""
    expected = closed_form() if expected is None else expected
    assert set(found.index) == set(expected.index)
    assert set(found.columns) == set(expected.columns)
    same = found.loc[expected.index, expected.columns].to_numpy(dtype=float)
    np.testing.assert_allclose(same, expected.to_numpy(dtype=float), rtol=1e-4, atol=2e-5)


@dataclass(frozen=True)
class Row:
    """One input.

    Attributes
    ----------
    group, have, happens
        Where it stands in the table, what the user has, and what happens; empty where an error says it.
    act
        Does it, and checks what comes out.
    error, says
        Type of the error that it ends in, and parts of its message; None where it is read.
    warns
        Part of the warning that it gives; empty where it gives none.
    """

    group: str
    have: str
    happens: str
    act: Callable[[Case], None]
    error: type[BaseException] | None = None
    says: tuple[str, ...] = ()
    warns: str = ""

    @property
    def id(self) -> str:
        """Name of the row in the tests."""
        return f"{self.group}: {self.have}"

    @property
    def answer(self) -> str:
        """What happens, for the documentation."""
        name = getattr(self.error, "shown", None) or getattr(self.error, "__name__", "")
        parts = [f"{name}: {' … '.join(self.says)}"] if self.error is not None else []
        parts += [f"warning: {self.warns}"] if self.warns else []
        return "; ".join([*parts, *([self.happens] if self.happens else [])])


def same(
    group: str,
    have: str,
    change: Callable[[ad.AnnData], ad.AnnData | None] = lambda adata: None,
    *,
    happens: str = "the same effects",
    expected: Callable[[], pd.DataFrame] = closed_form,
    warns: str = "",
    **setup: Any,
) -> Row:
    """Row of a screen that is read: its effects are those of the plain screen, or as expected."""

    def act(case: Case) -> None:
        equal(case.effects(_changed(change), **setup), expected())

    return Row(group, have, happens, act, warns=warns)


def refused(
    group: str,
    have: str,
    change: Callable[[ad.AnnData], ad.AnnData | None],
    error: type[BaseException],
    *says: str,
    **setup: Any,
) -> Row:
    """Row of a screen that is not read, and stays as it was."""

    def act(case: Case) -> None:
        adata = _changed(change)
        before = held(adata)
        try:
            rg.RaptorGraphModel.setup_anndata(adata, **setup)
        finally:
            assert held(adata) == before

    return Row(group, have, "", act, error, says)


def labels(values: Any, key: str = "perturbation") -> Callable[[ad.AnnData], None]:
    """Change that replaces a column of ``obs``: by values, or by a function of the column."""

    def change(adata: ad.AnnData) -> None:
        column = adata.obs[key]
        found = values(column) if callable(values) else values
        adata.obs[key] = found.to_numpy() if isinstance(found, pd.Series) and found.dtype == object else found

    return change


def one_label(value: Any, key: str = "perturbation", cell: int = 15) -> Callable[[ad.AnnData], None]:
    """Change that replaces one value of a column."""

    def change(adata: ad.AnnData) -> None:
        values = list(adata.obs[key])
        values[cell] = value
        adata.obs[key] = objects(values, adata.obs_names)

    return change


def objects(values: Any, index: pd.Index) -> pd.Series:
    """Column of any objects, collections among them."""
    found = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        found[i] = value
    return pd.Series(found, index=index)


def _changed(change: Callable[[ad.AnnData], ad.AnnData | None]) -> ad.AnnData:
    adata = plain()
    found = change(adata)
    return adata if found is None else found


def held(adata: Any) -> list[Any]:
    """What a user has, as far as a setup could change it."""
    if not isinstance(adata, ad.AnnData):
        return [type(adata)]
    found: list[Any] = [list(adata.obs.columns), list(map(str, adata.obs.dtypes)), list(adata.var_names)]
    found += [list(adata.obs_names), list(adata.var.columns)]
    found += [sorted(map(str, getattr(adata, slot))) for slot in ("uns", "obsm", "varm", "layers", "obsp")]
    for values in (adata.X, *adata.layers.values()):
        arrays = [values.data, values.indices, values.indptr] if hasattr(values, "indptr") else [values]
        arrays = [array for array in arrays if isinstance(array, np.ndarray) and array.dtype != object]
        found += [hashlib.blake2b(np.ascontiguousarray(array).tobytes()).hexdigest() for array in arrays]
    return found
