"""Perturbations that are asked for, with genes that nobody perturbed: their design and the posterior that answers."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from raptorgraph.screen._asked import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.inference import EffectPosterior
    from raptorgraph.model._calibration import Calibration
    from raptorgraph.model._gene_embedding import GeneEmbedding
    from raptorgraph.model._types import Perturbations
    from raptorgraph.screen import Setup

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """Perturbations that are asked for.

    Attributes
    ----------
    labels
        Canonical labels.
    design
        Perturbations x genes, 0 or 1: the perturbed genes, then `unseen`.
    unseen
        Genes that nobody perturbed, in the order in which they are asked for.
    """

    labels: list[str]
    design: torch.Tensor
    unseen: list[str]

    @classmethod
    def of(
        cls, perturbations: Perturbations, setup: Setup, perturbed: Sequence[str], embedding: GeneEmbedding | None
    ) -> Asked:
        """Read labels; ValueError for a gene that was not perturbed and that the embedding does not have either."""
        measured = set(perturbed)
        if embedding is None:
            where = "training screen, and there is no gene_embedding in setup_anndata that says what it is like"
            sets = setup.asked(perturbations, perturbed, where)
        else:
            named = dict.fromkeys(gene for one in listed(perturbations) for gene in setup.genes(one))
            others = [gene for gene in named if gene in embedding and gene not in measured]
            where = "training screen and has no row in the gene_embedding"
            sets = setup.asked(perturbations, [*perturbed, *others], where)
        unseen = list(dict.fromkeys(gene for genes in sets for gene in genes if gene not in measured))
        column = {gene: i for i, gene in enumerate([*perturbed, *unseen])}
        design = torch.zeros(len(sets), len(column))
        for i, genes in enumerate(sets):
            design[i, [column[gene] for gene in genes]] = 1.0
        return cls([setup.label(genes) for genes in sets], design, unseen)

    def posterior(
        self, calibration: Calibration, embedding: GeneEmbedding | None, var_names: Sequence[str]
    ) -> EffectPosterior:
        """The posterior that answers for them; says which genes nobody perturbed."""
        if not self.unseen:
            return calibration.posterior
        assert embedding is not None
        logger.info(
            "Nobody perturbed %s: effects follow from genes that are alike in the gene embedding, with wide intervals.",
            ", ".join(self.unseen),
        )
        column = {name: i for i, name in enumerate(var_names)}
        targets = torch.tensor([column.get(gene, -1) for gene in self.unseen])
        return calibration.posterior.with_genes(torch.as_tensor(embedding.rows(self.unseen)), targets)


def no_latent(genes: Sequence[str]) -> str:
    """Message for genes that nobody perturbed, where the network is needed."""
    return (
        f"Nobody perturbed {', '.join(genes)}, so the network has no latent for it and no cells can be decoded. The "
        "gene embedding gives its mean effects in all control cells of the training: ask predict_effects or "
        "sample_effects, without adata, groupby, transform_batch and kind='decoder'."
    )
