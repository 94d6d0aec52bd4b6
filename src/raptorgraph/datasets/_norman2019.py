"""The Perturb-seq screen of Norman et al. 2019: gene activation in K562 cells, alone and in pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from raptorgraph._arguments import check_choice
from raptorgraph.datasets._converted import converted
from raptorgraph.datasets._download import Source, cache_folder, fetch, local_file
from raptorgraph.datasets._normalization import NORMALIZATIONS
from raptorgraph.datasets._public import (
    WHOLE_TRANSCRIPTOME,
    check_published,
    numbers,
    set_labels,
    to_screen,
    use_symbols,
)
from raptorgraph.screen._files import read_cells

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import anndata as ad
    import pandas as pd

SOURCES = (
    # scPerturb (Peidli et al. 2024), versions 1.4 and 1.3: counts of all genes
    Source(
        "https://zenodo.org/records/13350497/files/NormanWeissman2019_filtered.h5ad?download=1",
        "NormanWeissman2019_filtered.h5ad",
        "md5:c870e6967d91c017d9da827bab183cd6",
    ),
    Source(
        "https://zenodo.org/records/10044268/files/NormanWeissman2019_filtered.h5ad?download=1",
        "NormanWeissman2019_filtered.h5ad",
        "md5:c870e6967d91c017d9da827bab183cd6",
    ),
    # sc-pert, also pertpy's norman_2019(): counts of 19,018 genes, and fewer cells
    Source(
        "https://ndownloader.figshare.com/files/34027562",
        "norman_2019.h5ad",
        "sha256:b679c157fea550ef5be4dad91da9dff1f5d8287313ad3f3537f6cf14d4bcd434",
    ),
)
# The authors of the screen advise against the cells of this pair of control guides; CPA leaves them out.
LEFT_OUT_GUIDE = "NegCtrl1_NegCtrl0__NegCtrl1_NegCtrl0"
ALIASES = (
    ("RHOXF2", "RHOXF2B", "RHOXF2BB"),
    ("CBARP", "C19orf26"),
    ("FOXL2NB", "C3orf72"),
    ("MAP3K21", "KIAA1804"),
    ("MIDEAS", "ELMSAN1"),
)
PUBLISHED = {"cells": 108_497, "ordered labels": 284, "conditions": 237, "singles": 105, "doubles": 131, "targets": 105}
PUBLISHED_IN = "CPA, preprocessing/Norman19.ipynb"

_GUIDE_COLUMNS = ("guide_identity", "guide_id")
_LABEL_COLUMNS = ("guide_ids", "perturbation_name", "condition", "perturbation")


def norman2019(
    path: str | os.PathLike[str] | None = None,
    *,
    n_top_genes: int | None = 5000,
    normalization: str = "1e4",
    held_out: Sequence[str] = (),
    sha256: str | None = None,
    check: bool = True,
) -> ad.AnnData:
    """Gene activation (CRISPRa) of 105 genes in K562 cells, alone and in 131 pairs (Norman et al. 2019).

    The cells are those of the CPA study, which most benchmarks use: all with an identified pair of guides, without
    one pair of control guides that the authors of the screen advise against. Genes are chosen as there, by
    dispersion, and perturbed genes that are not variable come on top.

    Parameters
    ----------
    path
        Folder to keep the download in (about 0.7 GB) and, beside it, the converted screen; default
        ``$RAPTORGRAPH_CACHE`` or the user's cache folder. Or an existing h5ad file: scPerturb's, pertpy's, CPA's or
        GEARS's.
    n_top_genes
        Number of highly variable genes; None for all genes. A file of fewer than 15,000 genes keeps those it has.
    normalization
        ``"1e4"``: counts per 10,000. ``"median"``: counts per median library size, as CPA's files and so the published
        numbers; needs counts of all genes. ``"file"``: the values of the file, as CPA's, whose library sizes are not in
        it. Squared errors and MMDs of fixed bandwidth compare on one scale alone.
    held_out
        Labels whose cells say nothing of which genes are variable, such as the test conditions of a split. CPA's
        choice, and the published one, is made on all cells.
    sha256
        Expected SHA-256 of the file.
    check
        Whether to compare the screen with the published numbers.

    Returns
    -------
    anndata.AnnData
        Shape (108,497, a little above `n_top_genes`), with

        - ``X``: ``log1p(1e4 * count / library size)``, CSR float32, the library being the counts of all genes, or what
          `normalization` says; values of a file of fewer genes are brought to that scale where it has library sizes;
        - ``layers["counts"]``: counts, where the file has them and they are normalized to 10,000;
        - ``obs["perturbation"]``: categorical, ``"control"``, ``"A"``, ``"A+B"``;
        - ``obs["total_counts"]``: library size, where the file has counts of all genes;
        - ``obs["gemgroup"]`` (lane, a batch), ``obs["guide_id"]`` or ``obs["guide_identity"]`` (pair of guides) and
          further columns of the file;
        - ``var["highly_variable"]``, ``var["perturbation_target"]``: bool, where genes were chosen;
        - ``uns["target_aliases"]``: perturbed genes that go by another name among the genes, and that name, which is
          the one in the labels;
        - ``uns["target_sum"]``: what counts were normalized to, where the file has counts of all genes.

    Raises
    ------
    ImportError
        If a download is needed and pooch is not installed: ``pip install "raptorgraph[datasets]"``.
    ConnectionError
        If the file cannot be downloaded from any of its mirrors.
    FileNotFoundError
        If `path` is an h5ad file that does not exist.
    KeyError
        If the file has no known column of labels, or has all genes and no column of guides, so that the cells with the
        pair of control guides cannot be left out.
    TypeError
        If `held_out` is one string.
    ValueError
        If the file has changed since it was downloaded, its checksum is not the expected one or that of an earlier
        download, it does not have what `normalization` needs, or `held_out` names no perturbation of the screen or is
        given for a file whose genes were chosen before.

    Warns
    -----
    UserWarning
        If numbers of cells or conditions differ from the published ones.

    Notes
    -----
    The whole matrix has 33,694 genes and about 360 million counts above zero: converting it takes some 12 GB of memory
    for a moment, once: the screen is kept beside the download. The last mirror, pertpy's file, lacks cells that its
    quality control dropped, and the check says so.

    References
    ----------
    Norman, T. M. et al. Exploring genetic interaction manifolds constructed from rich single-cell phenotypes.
    Science 365, 786-793 (2019). Lotfollahi, M. et al. Predicting cellular responses to complex perturbations in
    high-throughput screens. Molecular Systems Biology 19, e11517 (2023). Peidli, S. et al. scPerturb: harmonized
    single-cell perturbation data. Nature Methods 21, 531-540 (2024).

    Examples
    --------
    >>> import raptorgraph as rg
    >>> adata = rg.datasets.norman2019()  # doctest: +SKIP
    >>> rg.RaptorGraphModel.setup_anndata(  # doctest: +SKIP
    ...     adata, "perturbation", layer="counts", library_size_key="total_counts"
    ... )
    """
    check_choice("normalization", normalization, NORMALIZATIONS)
    if isinstance(held_out, str):
        raise TypeError(f"held_out={held_out!r} must be a list of labels: held_out=[{held_out!r}].")
    how: dict[str, Any] = {
        "n_top_genes": n_top_genes,
        "normalization": normalization,
        "held_out": sorted(map(str, held_out)),
    }
    if path is None or Path(path).suffix != ".h5ad":
        file = fetch(SOURCES, cache_folder(path), sha256=sha256)
        adata = converted("norman2019", [file], how, lambda: _convert(read_cells(file), **how))
    else:
        adata = _convert(read_cells(local_file(path, sha256)), **how)
    if check:
        found, guide = numbers(adata), _guide_column(adata.obs)
        if guide is not None:
            found["ordered labels"] = adata.obs[guide].map(_ordered_label).nunique()
        check_published(found, PUBLISHED, PUBLISHED_IN)
    return adata


def _convert(adata: ad.AnnData, n_top_genes: int | None, normalization: str, held_out: Sequence[str]) -> ad.AnnData:
    """The screen of a file."""
    use_symbols(adata)
    guide = _guide_column(adata.obs)
    if guide is not None:
        keep = (adata.obs[guide].astype(str) != LEFT_OUT_GUIDE).to_numpy()
        adata = adata if keep.all() else adata[keep].copy()
    elif adata.n_vars >= WHOLE_TRANSCRIPTOME and any(name in adata.obs for name in _LABEL_COLUMNS):
        raise KeyError(
            f"The file has none of the columns {', '.join(_GUIDE_COLUMNS)} in obs, which tell the cells of the control "
            f"guides {LEFT_OUT_GUIDE}: the authors of the screen advise against them, and they cannot be left out. Use "
            "a file with the guides of each cell, such as scPerturb's."
        )
    set_labels(adata, _labels(adata.obs), ALIASES)
    return to_screen(adata, n_top_genes, normalization=normalization, held_out=held_out)


def _guide_column(obs: pd.DataFrame) -> str | None:
    return next((column for column in _GUIDE_COLUMNS if column in obs), None)


def _labels(obs: pd.DataFrame) -> pd.Series:
    """Guides of each cell, or else its label in the file."""
    columns = (*_GUIDE_COLUMNS, *_LABEL_COLUMNS)
    column = next((name for name in columns if name in obs), None)
    if column is None:
        raise KeyError(
            f"The file has none of the columns {', '.join(columns)} in obs, but {', '.join(map(str, obs.columns))}: "
            "it is no known file of this screen."
        )
    return obs[column]


def _ordered_label(guide: str) -> str:
    """Label as CPA counts them, in which the order of the guides matters: ``"A+ctrl"``, ``"ctrl+A"``, ``"ctrl"``."""
    parts = ["ctrl" if part.startswith("NegCtrl") else part for part in str(guide).split("__")[0].split("_")]
    return "ctrl" if set(parts) == {"ctrl"} else "+".join(parts)
