"""The combinatorial Perturb-seq screen of Replogle et al. 2020: gene repression in K562 cells, alone and in pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import pandas as pd
import scanpy as sc

from raptorgraph.datasets import _public
from raptorgraph.datasets._converted import converted
from raptorgraph.datasets._download import Source, cache_folder, fetch, local_file
from raptorgraph.screen._files import read_cells
from raptorgraph.screen._matrix import as_matrix

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

PREFIX = "GSM4367984_exp6."
_MATRIX = ("barcodes.tsv.gz", "features.tsv.gz", "matrix.mtx.gz")
_CELLS = "cell_identities.csv.gz"
_FOLDER = "https://ftp.ncbi.nlm.nih.gov/geo/samples/GSM4367nnn/GSM4367984/suppl/"
SOURCES = {name: (Source(f"{_FOLDER}{PREFIX}{name}", f"{PREFIX}{name}"),) for name in (*_MATRIX, _CELLS)}

SECOND_GUIDES = {"HUS1_2": "HUS1", "FDPS_2": "FDPS"}  # further guides of genes that have one already
MIN_GENES, MAX_MITOCHONDRIAL, MIN_CELLS = 200, 10.0, 30
# Cells are not compared: PerturBase goes on to drop those in which Mixscape sees no effect.
PUBLISHED = {"conditions": 82, "singles": 44, "doubles": 37}
PUBLISHED_IN = "PerturBase, PRJNA609688 exp6"


def replogle2020(
    path: str | os.PathLike[str] | None = None,
    *,
    n_top_genes: int | None = 5000,
    sha256: Mapping[str, str] | str | None = None,
    check: bool = True,
) -> ad.AnnData:
    """Gene repression (CRISPRi) of genes of cholesterol synthesis and DNA repair in K562 cells (Replogle et al. 2020).

    Experiment 6 of the study: direct capture of two guides in each cell. Labels and quality control are those of
    PerturBase: second guides of a gene count as that gene, cells have 200 genes or more and less than 10 % of their
    counts from mitochondrial genes (15 % if else half of the cells would go), conditions have 30 cells or more.

    Parameters
    ----------
    path
        Folder to keep the download in and, beside it, the converted screen; default ``$RAPTORGRAPH_CACHE`` or the
        user's cache folder. Or an existing h5ad file of this screen: PerturBase's (``obs["gene"]``, ``"CTRL"`` for
        control) or scPerturBench's (``obs["perturbation"]``), whose cells are taken as they are.
    n_top_genes
        Number of highly variable genes; None for all genes. A file of fewer than 15,000 genes is taken as it is.
    sha256
        Expected SHA-256 of the downloaded files, by their names; of an h5ad file, a string.
    check
        Whether to compare the screen with the published numbers.

    Returns
    -------
    anndata.AnnData
        Cells x genes, with

        - ``X``: ``log1p(1e4 * count / library size)``, CSR float32, the library being the counts of all genes;
        - ``layers["counts"]``: counts, where the file has them;
        - ``obs["perturbation"]``: categorical, ``"control"``, ``"A"``, ``"A+B"``;
        - ``obs["total_counts"]``: library size, where the file has counts of all genes;
        - ``obs["gene_A"]``, ``obs["gene_B"]`` (targets of the two guides) and further columns of the file;
        - ``var["highly_variable"]``, ``var["perturbation_target"]``: bool, where genes were chosen;
        - ``uns["target_aliases"]``: empty.

    Raises
    ------
    ImportError
        If a download is needed and pooch is not installed: ``pip install "raptorgraph[datasets]"``.
    ConnectionError
        If a file cannot be downloaded.
    FileNotFoundError
        If `path` is an h5ad file that does not exist.
    KeyError
        If a column of labels or barcodes is missing.
    ValueError
        If a file has changed since it was downloaded, its checksum is not the expected one, or cells of the labels are
        not in the matrix.

    Warns
    -----
    UserWarning
        If numbers of conditions differ from the published ones.

    Notes
    -----
    PerturBase counts 22,740 cells after it has dropped, with Mixscape, perturbed cells that look like control. That
    choice by the outcome is not repeated here, so there are more cells.

    References
    ----------
    Replogle, J. M. et al. Combinatorial single-cell CRISPR screens by direct guide RNA capture and targeted sequencing.
    Nature Biotechnology 38, 954-961 (2020); GEO GSM4367984. Wei, Z. et al. PerturBase: a comprehensive database for
    single-cell perturbation data analysis and visualization. Nucleic Acids Research 53, D1099-D1111 (2025).

    Examples
    --------
    >>> import raptorgraph as rg
    >>> adata = rg.datasets.replogle2020()  # doctest: +SKIP
    """
    adata = _load(path, SOURCES, n_top_genes, sha256)
    if check:
        _public.check_published(_public.numbers(adata), PUBLISHED, PUBLISHED_IN)
    return adata


def _load(
    path: str | os.PathLike[str] | None,
    sources: Mapping[str, Sequence[Source]],
    n_top_genes: int | None,
    sha256: Mapping[str, str] | str | None,
) -> ad.AnnData:
    if path is not None and Path(path).suffix == ".h5ad":
        return _labeled(*_read_h5ad(Path(path), sha256), n_top_genes)
    hashes = _hashes(sha256, sources)
    folder = cache_folder(path)
    files = {name: fetch(mirrors, folder, sha256=hashes.get(f"{PREFIX}{name}")) for name, mirrors in sources.items()}
    return converted(
        "replogle2020",
        list(files.values()),
        {"n_top_genes": n_top_genes},
        lambda: _labeled(*_read_geo(folder, files[_CELLS]), n_top_genes),
    )


def _labeled(adata: ad.AnnData, labels: pd.Series, n_top_genes: int | None) -> ad.AnnData:
    _public.set_labels(adata, labels)
    return _public.to_screen(adata, n_top_genes)


def _hashes(sha256: Mapping[str, str] | str | None, sources: Mapping[str, Sequence[Source]]) -> Mapping[str, str]:
    names = [f"{PREFIX}{name}" for name in sources]
    if isinstance(sha256, str):
        raise ValueError(f"sha256 must be a dict here, one value for each of the files {', '.join(names)}.")
    unknown = [name for name in sha256 or {} if name not in names]
    if unknown:
        raise ValueError(f"sha256 names {unknown[0]!r}, which is none of the files {', '.join(names)}.")
    return sha256 or {}


def _read_h5ad(path: Path, sha256: Mapping[str, str] | str | None) -> tuple[ad.AnnData, pd.Series]:
    adata = read_cells(local_file(path, sha256 if isinstance(sha256, str) else (sha256 or {}).get(path.name)))
    _public.use_symbols(adata)
    column = next((name for name in ("perturbation", "gene") if name in adata.obs), None)
    if column is None:
        raise KeyError(
            f"{str(path)!r} has neither 'perturbation' nor 'gene' in obs, but {', '.join(map(str, adata.obs.columns))}."
        )
    return adata, adata.obs[column].astype(object).replace("CTRL", _public.CONTROL)


def _read_geo(folder: Path, cells_file: Path) -> tuple[ad.AnnData, pd.Series]:
    """Cells of good quality with two identified guides, and their labels."""
    cells = pd.read_csv(cells_file)
    needed = ("cell_barcode", "gene_A", "gene_B")
    missing = [column for column in needed if column not in cells]
    if missing:
        raise KeyError(f"{cells_file.name!r} has no column {missing[0]!r}, but {', '.join(map(str, cells.columns))}.")
    # a cell whose guides were not both identified has no label, and is no cell of a gene called "nan"
    cells = cells.dropna(subset=list(needed)).drop_duplicates("cell_barcode").set_index("cell_barcode")
    for name in cells.select_dtypes("object").columns:  # of texts and numbers, which no file holds
        cells[name] = cells[name].where(cells[name].isna(), cells[name].astype(str))
    adata = sc.read_10x_mtx(folder, prefix=PREFIX, gex_only=True)
    unknown = cells.index.difference(adata.obs_names)
    if len(unknown):
        raise ValueError(f"{len(unknown)} cells of {cells_file.name!r} are not in the matrix (first: {unknown[0]!r}).")
    adata = adata[cells.index, ~adata.var["gene_ids"].str.startswith("sg")].copy()
    adata.obs = cells
    first, second = (cells[column].astype(str).replace(SECOND_GUIDES) for column in ("gene_A", "gene_B"))
    labels = (first + "+" + second).rename("gene_A+gene_B")
    keep = _good_quality(adata, labels)
    return adata[keep.to_numpy()].copy(), labels[keep]


def _good_quality(adata: ad.AnnData, labels: pd.Series) -> pd.Series:
    """Mask of the cells that PerturBase's quality control keeps."""
    metrics, _ = sc.pp.calculate_qc_metrics(
        ad.AnnData(
            as_matrix(adata.X), var=pd.DataFrame({"mt": adata.var_names.str.startswith("MT-")}, index=adata.var_names)
        ),
        qc_vars=["mt"],
        percent_top=None,
        log1p=False,
    )
    enough = metrics["n_genes_by_counts"].to_numpy() >= MIN_GENES
    mitochondrial = metrics["pct_counts_mt"].to_numpy()
    limit = MAX_MITOCHONDRIAL
    if (mitochondrial[enough] < limit).mean() <= 0.5:
        limit += 5.0
    keep = pd.Series(enough & (mitochondrial < limit), index=labels.index)
    condition = labels.map(lambda label: "+".join(sorted(set(_public.genes_of_label(label)))))  # "" is control
    rare = condition.map(condition[keep].value_counts()) < MIN_CELLS
    return keep & ~(rare & (condition != ""))
