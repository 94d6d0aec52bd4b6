"""Effects of many perturbations, some at a time, and how sure the sign of each is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import false_discovery_control, norm

from raptorgraph._arguments import check_texts
from raptorgraph._progress import progress_bar
from raptorgraph.screen._asked import did_you_mean
from raptorgraph.screen._setup import Setup

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.model._types import Perturbations

AT_A_TIME = 512  # perturbations, as many as the posterior answers for at once
SURE = 0.05  # false discovery rate up to which a change counts as sure
_SMALLEST = np.finfo(float).tiny


@dataclass(frozen=True)
class EffectBlock:
    """Effects of some perturbations.

    Attributes
    ----------
    labels
        Canonical labels.
    genes
        Names of the genes.
    mean
        Perturbations x genes, float64.
    sd
        Standard deviations, of the same shape; NaN where the model has no posterior.
    own
        Whether the perturbation is of that gene itself, of the same shape.
    fdr
        False discovery rates of :func:`discovery_rates`, of the same shape; made where they are not given.
    """

    labels: list[str]
    genes: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    own: np.ndarray
    fdr: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.fdr is None:
            object.__setattr__(self, "fdr", discovery_rates(2 * self.lfsr, self.own))

    @property
    def certainty(self) -> np.ndarray:
        """Size of each effect in standard deviations; NaN where these are not known."""
        return np.asarray(np.abs(self.mean) / np.maximum(self.sd, _SMALLEST))

    @property
    def lfsr(self) -> np.ndarray:
        """Local false sign rates of normal posteriors; NaN where standard deviations are not known."""
        return np.asarray(norm.sf(self.certainty))

    @property
    def has_sd(self) -> bool:
        """Whether standard deviations are known."""
        return not np.isnan(self.sd).any()

    def sure(self, fdr: float = SURE) -> np.ndarray:
        """Which effects on genes that are not perturbed themselves are sure; none without a posterior."""
        return np.asarray((self.fdr <= fdr) & ~self.own)

    def clear(self, fdr: float = SURE) -> np.ndarray:
        """Which perturbations have a sure effect, shape (perturbations,)."""
        return np.asarray(self.sure(fdr).any(axis=1))

    def without_targets(self) -> np.ndarray:
        """Effects with 0 for the perturbed genes themselves."""
        return np.where(self.own, 0.0, self.mean)

    def by_strength(self, fdr: float = SURE) -> np.ndarray:
        """Order of the perturbations: most sure effects first, of equally many the longest effect."""
        length = np.linalg.norm(self.without_targets(), axis=1)
        return np.lexsort((-length, -self.sure(fdr).sum(axis=1)))

    def rows(self, rows: np.ndarray) -> EffectBlock:
        """Some of the perturbations, in this order."""
        labels = [self.labels[row] for row in rows]
        return EffectBlock(labels, self.genes, self.mean[rows], self.sd[rows], self.own[rows], self.fdr[rows])

    def columns(self, columns: np.ndarray) -> EffectBlock:
        """Some of the genes, in this order."""
        parts = (values[:, columns] for values in (self.mean, self.sd, self.own, self.fdr))
        return EffectBlock(self.labels, self.genes[columns], *parts)

    def joined(self, other: EffectBlock) -> EffectBlock:
        """These perturbations and others."""
        pairs = ((self.mean, other.mean), (self.sd, other.sd), (self.own, other.own), (self.fdr, other.fdr))
        return EffectBlock([*self.labels, *other.labels], self.genes, *(np.concatenate(pair) for pair in pairs))


def discovery_rates(p: np.ndarray, own: np.ndarray) -> np.ndarray:
    """False discovery rates of Benjamini and Hochberg over the genes of each perturbation.

    Those of other genes are taken without the perturbed ones, whose knock-down is there for sure and would lend its
    rank to them.

    Parameters
    ----------
    p
        Two-sided p-values, perturbations x genes; NaN where they are not known.
    own
        Whether the perturbation is of that gene itself, of the same shape.
    """
    rates = np.full(p.shape, np.nan)
    for row in np.flatnonzero(~np.isnan(p).any(axis=1)):
        rates[row, own[row]] = false_discovery_control(p[row])[own[row]]
        if not own[row].all():
            rates[row, ~own[row]] = false_discovery_control(p[row, ~own[row]])
    return rates


def asked_labels(model: RaptorGraphModel, perturbations: Perturbations | None) -> list[str]:
    """Canonical labels of what is asked for, each once, by default of all that was measured.

    ValueError for an unknown gene and for the control.
    """
    if perturbations is None:
        return list(model.conditions)
    setup, predictor = Setup.of(model.setup_args), getattr(model, "predictor", None)  # a baseline has none
    if predictor is None:
        labels = [setup.label(genes) for genes in setup.asked(perturbations, model.perturbed_genes)]
    else:  # which knows genes that nobody perturbed, too
        labels = predictor.asked(perturbations).labels
    if setup.label(()) in labels:
        raise ValueError(f"{setup.label(())!r} is what effects are measured against and has none: leave it out.")
    return list(dict.fromkeys(labels))


def gene_names(model: RaptorGraphModel, labels: Sequence[str]) -> list[str]:
    """Names of the genes in the order in which the model gives effects on them."""
    names = getattr(model, "var_names_", None)  # a baseline has none
    return [str(name) for name in (model.predict_effects(labels[:1]).columns if names is None else names)]


def gene_columns(names: Sequence[str], genes: Sequence[str] | None, setup: Setup) -> np.ndarray:
    """Positions of the genes that are asked for, by default of all; ValueError for a name that is none of them."""
    if genes is None:
        return np.arange(len(names))
    asked = check_texts("genes", genes, "names of genes")
    if not asked:
        raise ValueError("genes=[] names no gene: leave it out for all genes.")
    place = {name: column for column, name in enumerate(names)}
    unknown = [name for name in asked if name not in place]
    if unknown:
        hint = did_you_mean(unknown[0], names, **setup.spelling)
        raise ValueError(
            f"genes: {unknown[0]!r} is not a gene of the model{hint or '; these are in model.var_names_'}."
        )
    return np.array([place[name] for name in asked])


def effect_blocks(model: RaptorGraphModel, labels: Sequence[str]) -> Iterator[EffectBlock]:
    """Predicted effects of some perturbations at a time, in their order."""
    setup, known = Setup.of(model.setup_args), bool(getattr(model, "has_posterior", False))
    with progress_bar("Effects", -(-len(labels) // AT_A_TIME)) as advance:
        for start in range(0, len(labels), AT_A_TIME):
            part = list(labels[start : start + AT_A_TIME])
            mean, sd = model.predict_effects(part, return_sd=True) if known else (model.predict_effects(part), None)
            genes = np.array([str(name) for name in mean.columns], dtype=object)
            place = {name: column for column, name in enumerate(genes.tolist())}
            own = np.zeros(mean.shape, dtype=bool)
            for row, label in enumerate(part):
                own[row, [place[gene] for gene in setup.genes(label) if gene in place]] = True
            values = mean.to_numpy(dtype=np.float64)
            spread = np.full(values.shape, np.nan) if sd is None else sd.to_numpy(dtype=np.float64)
            yield EffectBlock(part, genes, values, spread, own)
            advance()


def strongest(model: RaptorGraphModel, labels: Sequence[str], n: int, fdr: float = SURE) -> EffectBlock:
    """Effects of at most `n` perturbations, those with the most sure effects, in the order of the labels."""
    kept: EffectBlock | None = None
    for block in effect_blocks(model, labels):
        kept = block if kept is None else kept.joined(block)
        if len(kept.labels) > n:
            kept = kept.rows(np.sort(kept.by_strength(fdr)[:n]))
    if kept is None:
        raise ValueError("There is no perturbation: name some, perturbations=[...].")
    return kept
