"""What is known of genes before the screen: a row of numbers for each, from a table, a file or gene sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from raptorgraph.pp import read_gene_sets

if TYPE_CHECKING:
    from anndata import AnnData

GeneEmbeddingLike: TypeAlias = pd.DataFrame | Mapping[str, Iterable[str]] | str | Path

FEWEST = 3  # perturbed genes with a row that were perturbed alone: the least that a weight is learned from
_N_COMPONENTS = 64  # of gene sets
_FORMS = (
    "a table genes x features, a key of adata.varm, gene sets (a dict from name to genes), or the path of a .csv, .npz "
    "or .gmt file"
)


@dataclass(frozen=True)
class GeneEmbedding:
    """Rows of numbers that say which genes are alike.

    Parameters
    ----------
    genes
        Names, each once.
    values
        Genes x features, float32, finite; no row is all zero.
    """

    genes: tuple[str, ...]
    values: np.ndarray

    @classmethod
    def of(cls, given: GeneEmbeddingLike, adata: AnnData | None = None) -> GeneEmbedding:
        """Read an embedding of any of its forms; TypeError and ValueError for what is none, KeyError for a key."""
        if isinstance(given, pd.DataFrame):
            table = given
        elif isinstance(given, str) and adata is not None and given in adata.varm:
            rows = adata.varm[given]
            rows = rows.toarray() if sparse.issparse(rows) else np.asarray(rows)
            table = pd.DataFrame(rows, index=adata.var_names.str.strip())
        elif isinstance(given, str | Path):
            table = _read(Path(given), adata)
        elif isinstance(given, Mapping):
            table = of_gene_sets(read_gene_sets(given))
        else:
            raise TypeError(f"gene_embedding is of type {type(given).__name__}: give {_FORMS}.")
        return cls.of_table(table)

    @classmethod
    def of_table(cls, table: pd.DataFrame) -> GeneEmbedding:
        """Check a table genes x features; rows that are all zero are left out, since nothing is known of these."""
        if any(np.issubdtype(kind, np.complexfloating) for kind in table.dtypes if isinstance(kind, np.dtype)):
            raise ValueError("gene_embedding has complex numbers: give real ones.")
        try:
            values = table.to_numpy(dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(f"gene_embedding has features that are no numbers ({error}): leave them out.") from None
        names = pd.Index([str(name).strip() for name in table.index])
        if not values.size:
            raise ValueError(f"gene_embedding has {table.shape[0]} genes and {table.shape[1]} features: it is empty.")
        if not names.is_unique:
            raise ValueError(
                f"gene_embedding has {names[names.duplicated()][0]!r} more than once: keep one row a gene."
            )
        finite = np.isfinite(values).all(1)
        if not finite.all():
            raise ValueError(
                f"gene_embedding has values that are not finite, first of {names[~finite][0]!r}: drop or fill them."
            )
        some = (values != 0).any(1)
        if not some.any():
            raise ValueError("gene_embedding is zero in all rows, so it says nothing: leave it out.")
        return cls(tuple(names[some]), values[some])

    def __contains__(self, gene: object) -> bool:
        return gene in self._row

    @cached_property
    def _row(self) -> dict[str, int]:
        return {gene: i for i, gene in enumerate(self.genes)}

    def rows(self, genes: Iterable[str]) -> np.ndarray:
        """Genes x features, float32; NaN for genes without a row."""
        found = [self._row.get(gene, -1) for gene in genes]
        missing = np.full((1, self.values.shape[1]), np.nan, dtype=np.float32)
        return np.concatenate([self.values, missing])[found]

    def check(self, conditions: Iterable[tuple[str, ...]]) -> None:
        """ValueError where it has too few of the genes that were perturbed alone."""
        alone = sorted({genes[0] for genes in conditions if len(genes) == 1})
        found = [gene for gene in alone if gene in self]
        if len(found) < FEWEST:
            raise ValueError(
                f"gene_embedding has {len(found)} of the {len(alone)} genes that were perturbed alone "
                f"({', '.join(alone[:3])}, ...), and {FEWEST} are needed to learn what it says; its names are like "
                f"{', '.join(self.genes[:3])}. Bring both to the same names."
            )

    def table(self) -> pd.DataFrame:
        """Genes x features."""
        return pd.DataFrame(self.values, index=list(self.genes))

    def to_dict(self) -> dict[str, Any]:
        """What is saved with a model."""
        return {"genes": list(self.genes), "values": self.values}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any] | None) -> GeneEmbedding | None:
        """Inverse of :meth:`to_dict`; None for None."""
        return None if saved is None else cls(tuple(saved["genes"]), np.asarray(saved["values"]))


def of_gene_sets(gene_sets: Mapping[str, Iterable[str]]) -> pd.DataFrame:
    """Genes x components from gene sets: TF-IDF of memberships, and its first 64 singular directions.

    A set counts the more the fewer genes it has. Up to 64 sets stay as they are.
    """
    sets = {name: list(genes) for name, genes in gene_sets.items()}
    genes = sorted({gene for members in sets.values() for gene in members})
    row = {gene: i for i, gene in enumerate(genes)}
    member = np.zeros((len(genes), len(sets)), dtype=np.float32)
    for j, members in enumerate(sets.values()):
        member[[row[gene] for gene in members], j] = 1.0
    values = TfidfTransformer(norm=None).fit_transform(member)
    if len(sets) > _N_COMPONENTS < len(genes):
        found = TruncatedSVD(_N_COMPONENTS, random_state=0).fit_transform(values)
    else:
        found = values.toarray()
    return pd.DataFrame(found.astype(np.float32), index=genes)


def _read(path: Path, adata: AnnData | None) -> pd.DataFrame:
    kind = path.suffix.lower()
    if kind not in (".csv", ".npz", ".gmt"):
        keys = f" ({', '.join(map(str, adata.varm)) or 'it has none'})" if adata is not None else ""
        raise KeyError(f"gene_embedding={str(path)!r} is no key of adata.varm{keys}, and no path: give {_FORMS}.")
    if not path.is_file():
        raise FileNotFoundError(f"gene_embedding={str(path)!r}: there is no such file.")
    if kind == ".gmt":
        return of_gene_sets(read_gene_sets(path))
    try:
        return pd.read_csv(path, index_col=0) if kind == ".csv" else _read_arrays(path)
    except (ValueError, OSError) as error:  # pandas' and numpy's own are of these
        form = "genes x features with a header" if kind == ".csv" else "'genes' (text) and 'embedding' (one row a gene)"
        raise ValueError(f"gene_embedding={str(path)!r} cannot be read ({error}): a {kind} holds {form}.") from None


def _read_arrays(path: Path) -> pd.DataFrame:
    with np.load(path, allow_pickle=False) as arrays:
        missing = [name for name in ("genes", "embedding") if name not in arrays]
        if missing:
            raise KeyError(
                f"gene_embedding={str(path)!r} has no array {missing[0]!r}: it needs 'genes' and 'embedding'."
            )
        return pd.DataFrame(np.asarray(arrays["embedding"], dtype=np.float32), index=arrays["genes"].astype(str))
