"""Predictions of another tool, read from a table of effects or from cells, and checked."""

from __future__ import annotations

import zlib
from lzma import LZMAError
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from raptorgraph.screen._files import read_cells
from raptorgraph.screen._labels import format_perturbation, parse_perturbation
from raptorgraph.screen._names import gene_names, strip_gene_names, stripped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_UNREADABLE = (EOFError, LZMAError, BadZipFile, zlib.error)  # of compressed files
_NO_NUMBER = ("", "nan", "NaN", "NA")  # in a column of numbers; a perturbation may be called so


class Predictions:
    """Predictions of another tool.

    Parameters
    ----------
    given
        Predicted cells (AnnData or h5ad file; on the expression scale, labels in ``obs["perturbation"]``, control cells
        among them if the tool predicts its own), or effects, perturbations x genes (DataFrame, CSV or Parquet file).
    spelling
        How labels are spelled: ``control`` and ``delimiter``.
    var_names
        Genes of the screen; the file must hold all of them.
    control_mean
        Mean of the screen's control cells, shape (n_genes,): what cells are compared with where the file has none.

    Attributes
    ----------
    effects
        Predicted effects, canonical labels x genes of the screen.
    cells
        Predicted cells, where these were given, else None.
    control
        Mean of the predicted control cells where there are any, else `control_mean`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is of another kind, empty or damaged, genes are missing, a label is there twice, or a value is no
        finite number.

    Examples
    --------
    >>> screen = rg.screen.Screen(adata, {"library_size_key": "total_counts"})
    >>> effects = screen.effects.rename({"P01+P03": "P03+P01"})  # labels in any order, genes too
    >>> found = rg.evaluation.Predictions(effects, screen.spelling, adata.var_names, screen.control_mean)
    >>> found.missing(["P01+P03", "P05+P06"])
    ['P05+P06']
    """

    def __init__(
        self,
        given: str | Path | pd.DataFrame | ad.AnnData,
        spelling: Mapping[str, Any],
        var_names: pd.Index,
        control_mean: np.ndarray,
    ):
        self._spelling = spelling
        name = repr(str(given)) if isinstance(given, str | Path) else f"The {type(given).__name__} of predictions"
        given = _read(Path(given)) if isinstance(given, str | Path) else given
        self.cells: ad.AnnData | None = None
        self.control = control_mean
        if isinstance(given, ad.AnnData):
            found = gene_names(given)
            _check_genes(name, found, var_names)
            if "perturbation" not in given.obs:
                raise ValueError(f"{name} has no obs['perturbation'] with the label of each predicted cell.")
            if given.X is None or not given.n_obs:
                raise ValueError(f"{name} has no cells with values in X.")
            self.cells = given[:, found.get_indexer(var_names)].copy()
            strip_gene_names(self.cells)
            _check_values(name, self.cells.X)
            labels = [self._canonical(label) for label in self.cells.obs["perturbation"]]
            self.cells.obs["perturbation"] = labels
            means = self.cells.to_df().groupby(np.array(labels)).mean().astype(float)
            control = self._label(())
            self.control = means.loc[control].to_numpy() if control in means.index else control_mean
            self.effects = pd.DataFrame(means.to_numpy() - self.control, index=means.index, columns=var_names)
        else:
            given = given.set_axis(stripped(given.columns, f"Genes of {name}"), axis=1)
            _check_genes(name, given.columns, var_names)
            if given.empty:
                raise ValueError(f"{name} has no row: one for each perturbation, with its effect on every gene.")
            text = [gene for gene in var_names if not pd.api.types.is_numeric_dtype(given[gene])]
            if text:
                raise ValueError(
                    f"{name} holds text, not numbers, for {len(text)} genes: {given[text[0]].iloc[0]!r} for {text[0]}."
                )
            self.effects = given[var_names].astype(float)
            _check_values(name, self.effects.to_numpy())
            self.effects.index = [self._canonical(label) for label in given.index]
            if not self.effects.index.is_unique:
                twice = self.effects.index[self.effects.index.duplicated()][0]
                raise ValueError(f"{name} has the perturbation {twice!r} twice.")

    def missing(self, conditions: Sequence[str]) -> list[str]:
        """Conditions that the file does not predict."""
        return [label for label in conditions if label not in self.effects.index]

    def _canonical(self, label: Any) -> str:
        return self._label(parse_perturbation(str(label), **self._spelling))

    def _label(self, genes: Sequence[str]) -> str:
        return format_perturbation(genes, **self._spelling)


def _read(path: Path) -> pd.DataFrame | ad.AnnData:
    if not path.exists():
        raise FileNotFoundError(f"There is no file of predictions {str(path)!r}.")
    if path.is_dir() or h5py.is_hdf5(path) or path.suffix in (".h5ad", ".zarr"):
        return read_cells(path)
    try:
        if path.suffix in (".parquet", ".pq"):
            return pd.read_parquet(path)
        table = pd.read_csv(path, index_col=0, keep_default_na=False, na_values=_NO_NUMBER)
        # as they are in the file, since pandas gives a name that is there twice a number
        names = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0]
        return table.set_axis(pd.Index(names[1:]), axis=1)
    except ImportError as error:
        raise ImportError(f"{str(path)!r} is a Parquet file: reading it needs pyarrow: pip install pyarrow") from error
    except (*_UNREADABLE, OSError, ValueError) as error:  # pandas' and pyarrow's own are ValueErrors
        raise ValueError(
            f"{str(path)!r} cannot be read as predictions: CSV or Parquet with a row for each perturbation and a "
            f"column for each gene, or an h5ad file of cells. {' '.join(str(error).split())}"
        ) from error


def _check_values(name: str, values: np.ndarray | sparse.spmatrix) -> None:
    """ValueError where one is missing or infinite."""
    values = np.asarray(values.data if sparse.issparse(values) else values)
    wrong = int(values.size - np.isfinite(values).sum())
    if wrong:
        raise ValueError(f"{name} has {wrong} missing or infinite values among the {values.size} it holds.")


def _check_genes(name: str, found: pd.Index, wanted: pd.Index) -> None:
    if not found.is_unique:
        raise ValueError(f"{name} has gene {found[found.duplicated()][0]!r} twice.")
    missing = wanted.difference(found)
    if len(missing):
        raise ValueError(
            f"{name} lacks {len(missing)} of the screen's {len(wanted)} genes, for example "
            f"{', '.join(map(str, missing[:5]))}: predict all of them (an effect of 0 where the tool has none)."
        )
