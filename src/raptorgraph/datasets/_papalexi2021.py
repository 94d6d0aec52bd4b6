"""The ECCITE-seq screen of Papalexi et al. 2021: gene knock-out in stimulated THP-1 cells."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from raptorgraph.datasets import _public
from raptorgraph.datasets._converted import converted
from raptorgraph.datasets._download import Source, cache_folder, fetch, local_file
from raptorgraph.screen._files import read_cells

if TYPE_CHECKING:
    import os

    import anndata as ad

SOURCES = (
    # scPerturb (Peidli et al. 2024), version 1.4: counts of all genes
    Source(
        "https://zenodo.org/records/13350497/files/PapalexiSatija2021_eccite_RNA.h5ad?download=1",
        "PapalexiSatija2021_eccite_RNA.h5ad",
        "md5:d9e8bfe20b0e7b0919be042e8fcf6d03",
    ),
    # pertpy's papalexi_2021(): a MuData with counts of the guides, too
    Source("https://exampledata.scverse.org/pertpy/papalexi_2021.h5mu", "papalexi_2021.h5mu"),
    Source("https://figshare.com/ndownloader/files/36509460", "papalexi_2021.h5mu"),
)
ALIASES = (("MARCHF8", "MARCH8"),)
PUBLISHED = {"cells": 20_729, "conditions": 26, "singles": 25, "doubles": 0, "targets": 25}
PUBLISHED_IN = "Papalexi et al. 2021, GEO GSE153056"

GUIDE, REPLICATE = "grna_id", "bio_rep"
_GUIDE_COLUMNS = (GUIDE, "guide_id", "guide_ID")
_REPLICATE_COLUMNS = (REPLICATE, "replicate", "hto")
_RNA, _GUIDE_COUNTS = "rna", "gdo"  # modalities of pertpy's file
_NUMBER = re.compile(r"(?<=.)[-_.]?g\d+$")  # of a guide, behind its target: "STAT1g2"
_NON_TARGETING = ("NT", "CONTROL")


def papalexi2021(
    path: str | os.PathLike[str] | None = None,
    *,
    n_top_genes: int | None = 5000,
    sha256: str | None = None,
    check: bool = True,
) -> ad.AnnData:
    """Gene knock-out of 25 regulators of immune checkpoints in stimulated THP-1 cells (Papalexi et al. 2021).

    ECCITE-seq: each cell has one guide, of which there are several for each gene, so that cells that escaped can be
    told, and guides of one gene compared (:func:`raptorgraph.tl.responders`).

    Parameters
    ----------
    path
        Folder to keep the download in (about 0.15 GB) and, beside it, the converted screen; default
        ``$RAPTORGRAPH_CACHE`` or the user's cache folder. Or an existing file: scPerturb's h5ad file, or pertpy's h5mu.
    n_top_genes
        Number of highly variable genes; None for all genes.
    sha256
        Expected SHA-256 of the file.
    check
        Whether to compare the screen with the published numbers.

    Returns
    -------
    anndata.AnnData
        Shape (20,729, a little above `n_top_genes`), with

        - ``X``: ``log1p(1e4 * count / library size)``, CSR float32, the library being the counts of all genes;
        - ``layers["counts"]``: counts;
        - ``obs["perturbation"]``: categorical, ``"control"`` or the gene;
        - ``obs["grna_id"]``: the guide of the cell, such as ``"STAT1g2"`` or ``"NTg4"``;
        - ``obs["bio_rep"]``: biological replicate (a batch), where the file has it;
        - ``obs["total_counts"]``: library size, and further columns of the file;
        - ``obsm["grna_counts"]``: counts of the guides, CSR, with their names in ``uns["grna_ids"]`` and their genes in
          ``uns["grna_targets"]``, as :func:`raptorgraph.pp.assign_guides` reads them; of pertpy's file alone;
        - ``var["highly_variable"]``, ``var["perturbation_target"]``: bool, where genes were chosen;
        - ``uns["target_aliases"]``: perturbed genes that go by another name among the genes, and that name.

    Raises
    ------
    ImportError
        If a download is needed and pooch is not installed: ``pip install "raptorgraph[datasets]"``.
    ConnectionError
        If the file cannot be downloaded from any of its mirrors.
    FileNotFoundError
        If `path` is a file that does not exist.
    KeyError
        If the file has no known column of guides, or an h5mu file no modality ``"rna"``.
    ValueError
        If the file has changed since it was downloaded, its checksum is not the expected one or that of an earlier
        download, cells have no guide, or it does not hold counts of all genes or log-normalized values.

    Warns
    -----
    UserWarning
        If numbers of cells or conditions differ from the published ones.

    References
    ----------
    Papalexi, E. et al. Characterizing the molecular regulation of inhibitory immune checkpoints with multimodal
    single-cell screens. Nature Genetics 53, 322-331 (2021); GEO GSE153056. Peidli, S. et al. scPerturb: harmonized
    single-cell perturbation data. Nature Methods 21, 531-540 (2024).

    Examples
    --------
    >>> import raptorgraph as rg
    >>> adata = rg.datasets.papalexi2021()  # doctest: +SKIP
    >>> rg.RaptorGraphModel.setup_anndata(  # doctest: +SKIP
    ...     adata, layer="counts", library_size_key="total_counts", batch_key="bio_rep"
    ... )
    """
    if path is None or Path(path).suffix not in {".h5ad", ".h5mu"}:
        file = fetch(SOURCES, cache_folder(path), sha256=sha256)
        how = {"n_top_genes": n_top_genes}
        adata = converted("papalexi2021", [file], how, lambda: _convert(_read(file), n_top_genes))
    else:
        adata = _convert(_read(local_file(path, sha256)), n_top_genes)
    if check:
        _public.check_published(_public.numbers(adata), PUBLISHED, PUBLISHED_IN)
    return adata


def _read(path: Path) -> ad.AnnData:
    """Cells of an h5ad file, or of the expression in an h5mu file, with what its other modalities say of the guides."""
    if path.suffix != ".h5mu":
        return read_cells(path)
    import mudata as md

    with warnings.catch_warnings():
        # announced at each reading until the user sets an option of mudata, which is not for us to set
        warnings.filterwarnings("ignore", message=r"From 0\.4 \.update\(\)", category=FutureWarning)
        mdata = md.read_h5mu(path)
    if _RNA not in mdata.mod:
        raise KeyError(f"{str(path)!r} has no modality {_RNA!r}, but {', '.join(mdata.mod)}.")
    adata = mdata.mod[_RNA]
    for columns in (_GUIDE_COLUMNS, _REPLICATE_COLUMNS):
        if not any(name in adata.obs for name in columns):
            found = _column(mdata, columns)
            if found is not None:
                adata.obs[columns[0]] = found.reindex(adata.obs_names)
    if _GUIDE_COUNTS in mdata.mod:
        guides = mdata.mod[_GUIDE_COUNTS]
        rows = guides.obs_names.get_indexer(adata.obs_names)
        if (rows >= 0).all():
            adata.obsm["grna_counts"] = sparse.csr_matrix(guides.X)[rows].astype(np.float32)
            adata.uns["grna_ids"] = guides.var_names.to_numpy(dtype=str)
            adata.uns["grna_targets"] = np.array([_target(guide) for guide in guides.var_names])
    return adata


def _column(mdata: Any, names: tuple[str, ...]) -> pd.Series | None:
    """Column of that name in the table of all cells, under the name of a modality or without, or of a modality."""
    tables: list[tuple[str, pd.DataFrame]] = [("", mdata.obs)]
    for key, part in mdata.mod.items():
        tables += [(f"{key}:", mdata.obs), ("", part.obs)]
    for prefix, table in tables:
        for name in names:
            if f"{prefix}{name}" in table:
                found: pd.Series = table[f"{prefix}{name}"]
                return found
    return None


def _convert(adata: ad.AnnData, n_top_genes: int | None) -> ad.AnnData:
    """The screen of a file's cells."""
    _public.use_symbols(adata)
    column = next((name for name in _GUIDE_COLUMNS if name in adata.obs), None)
    if column is None:
        raise KeyError(
            f"The file has none of the columns {', '.join(_GUIDE_COLUMNS)} in obs, but "
            f"{', '.join(map(str, adata.obs.columns))}: it is no known file of this screen."
        )
    guides = adata.obs[column].astype(object)
    missing = guides.index[guides.isna() | (guides == "")]
    if len(missing):
        raise ValueError(f"obs[{column!r}] names no guide for {len(missing)} cells (first: {missing[0]}).")
    adata.obs[GUIDE] = pd.Categorical(guides.astype(str))
    replicate = next((name for name in _REPLICATE_COLUMNS if name in adata.obs), None)
    if replicate is not None:
        adata.obs[REPLICATE] = pd.Categorical(adata.obs[replicate].astype(str))
    _public.set_labels(adata, guides.map(_target).rename(column), ALIASES)
    screen = _public.to_screen(adata, n_top_genes)
    if "grna_counts" in adata.obsm:
        screen.obsm["grna_counts"] = adata.obsm["grna_counts"]
        screen.uns.update({key: adata.uns[key] for key in ("grna_ids", "grna_targets")})
    return screen


def _target(guide: str) -> str:
    """Gene of a guide, ``"control"`` for one without a target."""
    gene = _NUMBER.sub("", str(guide))
    return _public.CONTROL if gene.upper() in _NON_TARGETING else gene
