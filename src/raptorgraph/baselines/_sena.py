"""SENA of de la Fuente et al. (2025): a discrepancy VAE whose encoder reads genes through gene sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from raptorgraph._arguments import check_integer, check_number
from raptorgraph._docs import docs
from raptorgraph.baselines._blocks import GeneSetLayer, VariationalEncoder
from raptorgraph.baselines._dvae import DiscrepancyVAE
from raptorgraph.pp._gene_sets import read_gene_sets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

_MIN_SETS = 10  # fewer hidden units than that read too little of a cell


@docs.dedent
class SENA(DiscrepancyVAE):
    r"""Discrepancy VAE with one hidden unit of the encoder for each gene set, which reads the genes of its set alone.

    All else is as in :class:`DiscrepancyVAE`, with the settings of the published source (de la Fuente et al., ICLR
    2025, github.com/ML4BM-Lab/SENA): the KL is the mean over cells and latents divided once more by the number of
    cells in a batch, and the L1 norm of the graph the mean over its possible edges.

    Parameters
    ----------
    gene_sets
        A mapping from the name of a set to its genes; the path of a GMT file; a table with a row for each member and
        the columns ``set`` and ``gene`` (or ``source`` and ``target``); or a boolean table, sets x genes.
    %(perturbation_key)s
    min_genes
        Sets with fewer genes among those of the data are left out.
    leak
        Factor of the weights of genes outside a set, the lambda of the publication; 0 blocks them, and 1 makes a dense
        encoder.
    mmd_weight, kl_weight, l1_weight, temperature, fix_sigma
        See :class:`DiscrepancyVAE`, whose defaults differ.
    predict_temperature
        See :class:`DiscrepancyVAE`; the published inference uses a temperature of 1000.
    **settings
        Further arguments of :class:`DiscrepancyVAE`: `n_latent`, `n_hidden` (of targets and decoder), `max_epochs`,
        `batch_size`, `lr`, `seed` and those of :class:`Baseline`.

    Attributes
    ----------
    gene_sets_
        The sets that are used, each with its genes in the data.
    module_
        The trained network; ``history_``, ``adjacency_``, ``targets_``, ``strength_`` and ``var_names`` likewise are
        those of :class:`DiscrepancyVAE`.

    Raises
    ------
    FileNotFoundError
        If there is no such GMT file.
    KeyError
        If a table of gene sets lacks a column.
    TypeError
        If `gene_sets` is none of these.
    ValueError
        If a number is out of its range or there is no gene set. When fitting: if fewer than 10 sets have `min_genes`
        genes in the data.

    Notes
    -----
    At a temperature of 100 the bias that all targets share decides between the latents, so that all perturbations tend
    to hit the same one and differ in strength alone. A combination then lies at the sum of the strengths on that
    latent, far from what the decoder was trained on, and its predicted effect can be many times too large.

    Examples
    --------
    Hidden units are gene sets; ten small ones here, for lack of biology in a simulated screen.

    >>> genes = list(adata.var_names)
    >>> gene_sets = {f"set {i}": genes[10 * i : 10 * i + 10] for i in range(10)}
    >>> baseline = rg.baselines.SENA(gene_sets, max_epochs=2, library_size_key="total_counts").fit(adata)
    >>> baseline.predict_effects("P01+P02").shape
    (1, 100)
    """

    def __init__(
        self,
        gene_sets: Mapping[str, Iterable[str]] | str | Path | pd.DataFrame,
        perturbation_key: str = "perturbation",
        *,
        min_genes: int = 5,
        leak: float = 0.0,
        mmd_weight: float = 1.0,
        kl_weight: float = 1.0,
        l1_weight: float = 0.1,
        temperature: float = 100.0,
        fix_sigma: float = 200.0,
        predict_temperature: float = 1000.0,
        **settings: Any,
    ):
        super().__init__(
            perturbation_key,
            mmd_weight=mmd_weight,
            kl_weight=kl_weight,
            l1_weight=l1_weight,
            temperature=temperature,
            fix_sigma=fix_sigma,
            predict_temperature=predict_temperature,
            **settings,
        )
        check_integer("min_genes", min_genes, 1)
        check_number("leak", leak, 0, 1)
        self.min_genes, self.leak = min_genes, leak
        self._gene_sets = read_gene_sets(_plain_table(gene_sets) if isinstance(gene_sets, pd.DataFrame) else gene_sets)

    def match(self, var_names: Sequence[str]) -> dict[str, list[str]]:
        """Sets with `min_genes` or more of the given genes, and these genes.

        Parameters
        ----------
        var_names
            Genes of the data.

        Returns
        -------
        Name of each set that is used, and its genes.

        Raises
        ------
        ValueError
            If there are fewer than 10.
        """
        position = set(var_names)
        matched = {name: [gene for gene in genes if gene in position] for name, genes in self._gene_sets.items()}
        kept = {name: genes for name, genes in matched.items() if len(genes) >= self.min_genes}
        if len(kept) < _MIN_SETS:
            spelled = [gene for genes in self._gene_sets.values() for gene in genes][:3]
            raise ValueError(
                f"{len(kept)} of the {len(matched)} gene sets have {self.min_genes} or more of the {len(position)} "
                f"genes, but SENA needs {_MIN_SETS}: keep more genes, give more or larger sets, or lower min_genes. "
                f"Genes of the data are spelled like {list(var_names[:3])}, those of the sets like {spelled}."
            )
        return kept

    def _encoder_maker(self) -> Callable[[int], VariationalEncoder]:
        position = {gene: k for k, gene in enumerate(self.var_names)}
        self.gene_sets_ = kept = self.match(self.var_names)
        mask = torch.full((len(kept), len(position)), float(self.leak))
        for row, genes in enumerate(kept.values()):
            mask[row, [position[gene] for gene in genes]] = 1.0
        return lambda n_latent: VariationalEncoder(GeneSetLayer(mask), len(kept), n_latent)

    @staticmethod
    def _reduce_kl(kl: torch.Tensor) -> torch.Tensor:
        return kl.mean() / len(kl)

    @staticmethod
    def _reduce_l1(adjacency: torch.Tensor) -> torch.Tensor:
        d = len(adjacency)
        return adjacency.abs().sum() / max(d * (d - 1) // 2, 1)


def _plain_table(table: pd.DataFrame) -> pd.DataFrame | dict[str, list[str]]:
    """Boolean tables as a mapping, and ``set`` and ``gene`` under the names that :func:`read_gene_sets` reads."""
    if len(table.columns) and all(pd.api.types.is_bool_dtype(kind) for kind in table.dtypes):
        return {name: list(table.columns[row]) for name, row in zip(table.index, table.to_numpy(), strict=True)}
    return table.rename(columns={"set": "source", "gene": "target"})
