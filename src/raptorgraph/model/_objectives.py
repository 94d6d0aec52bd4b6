"""What the network is trained for: a likelihood of all cells, or the published terms on pairs of cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import torch
from torch import Tensor

from raptorgraph import nn as blocks
from raptorgraph.model._field import KEYS
from raptorgraph.nn._expectation import COARSE

if TYPE_CHECKING:
    from raptorgraph.model._config import LossConfig
    from raptorgraph.nn._decoder import Decoder
    from raptorgraph.nn._likelihood_base import Likelihood
    from raptorgraph.nn._perturbed_prior import PerturbedPrior
    from raptorgraph.nn._structural import StructuralLayer

Tensors: TypeAlias = dict[str, Tensor]
Batch: TypeAlias = dict[str, Any]

N_CELLS = 32  # control cells on which mean effects are decoded


@dataclass(frozen=True)
class Terms:
    """Terms of the loss.

    The `reconstruction`, a mean over cells and genes; `nll` of each encoded cell, and `kl` of each and its latents;
    others as (weight, value).
    """

    reconstruction: Tensor
    nll: Tensor
    kl: Tensor
    others: dict[str, tuple[float, Tensor]] = field(default_factory=dict)


class Network(Protocol):
    """What an objective reads of the module."""

    modulator: Any  # of the prior's kind
    prior: PerturbedPrior | None
    graph: StructuralLayer
    norm: torch.nn.Module
    decoder: Decoder
    distribution: Likelihood

    def expression(self, tensors: Tensors) -> Tensor:
        """Bring X to the expression scale."""

    def covariates(self, tensors: Tensors) -> Tensor | None:
        """Covariates of the decoder."""

    def decode(self, z: Tensor, covariates: Tensor | None, library: Tensor | None) -> Tensor:
        """Decode to the location of the likelihood."""


class Objective(Protocol):
    """How the latents of a batch are decoded, and what is asked of the result."""

    def decode(
        self, module: Network, z: Tensor, mask: Tensor, library: Tensor | None, covariates: Tensor | None
    ) -> Tensors:
        """Decode the latents."""

    def terms(
        self, module: Network, config: LossConfig, tensors: Batch, inferred: Tensors, generated: Tensors
    ) -> Terms:
        """Terms of the loss."""


class CellObjective:
    """Evidence lower bound of control and perturbed cells, with the mean effects held to their posterior.

    Batches are cells with their masks, and some conditions with the effects that are known of them.
    """

    def decode(
        self, module: Network, z: Tensor, mask: Tensor, library: Tensor | None, covariates: Tensor | None
    ) -> Tensors:
        """Decode the cells as they are."""
        return {"decoded": module.decoder(module.graph(module.norm(z)), covariates)}

    def terms(
        self, module: Network, config: LossConfig, tensors: Batch, inferred: Tensors, generated: Tensors
    ) -> Terms:
        """Likelihood, divergence from the perturbed prior, and effects."""
        library, mask, z = tensors.get(KEYS.LIBRARY), tensors["mask"], inferred["z"]
        observed = module.distribution.observed(tensors[KEYS.X], inferred["expression"])
        nll = module.distribution.training_nll(observed, generated["decoded"], library)
        assert module.prior is not None
        kl = module.prior.kl(inferred["mean"], inferred["log_var"], z, mask, module.modulator)
        others = {}
        if config.shift_weight > 0 and len(tensors["shift"]):
            n = max(min(int((mask.sum(1) == 0).sum()), N_CELLS) // 2 * 2, 1)  # controls come first
            others["shift"] = (config.shift_weight, self._shift(module, tensors, z[:n], n))
        return Terms(nll.mean() / tensors[KEYS.X].shape[1], nll, kl, others)

    def _shift(self, module: Network, tensors: Batch, z: Tensor, n: int) -> Tensor:
        """Squared distance of decoded mean effects from those that are known, in units of their variance.

        It is the product of the differences in two halves of the controls: its expectation holds no variance of the
        response between cells, which the plain square would penalize. (A single control is both halves.)
        """
        masks, n_conditions = tensors["condition_mask"], len(tensors["shift"])
        library = tensors.get(KEYS.LIBRARY)
        library = None if library is None else library[:n]
        covariates = module.covariates(tensors)
        covariates = None if covariates is None else covariates[:n]
        shifted = module.modulator(z.repeat(n_conditions, 1), self._responding(module, masks.repeat_interleave(n, 0)))
        both = torch.cat([z, shifted])
        covariates = None if covariates is None else covariates.repeat(n_conditions + 1, 1)
        decoded = module.decoder(module.graph(module.norm(both)), covariates).view(n_conditions + 1, n, -1)
        halves = []
        for half in (slice(0, (n + 1) // 2), slice(n // 2, n)):
            mean = module.distribution.training_mean(decoded[:, half], None if library is None else library[half])
            halves.append(mean[1:] - mean[0] - tensors["shift"])
        product: Tensor = 0.5 * halves[0] * halves[1] / tensors["shift_variance"]
        return product.mean()

    @staticmethod
    def _responding(module: Network, mask: Tensor) -> Tensor:
        """Genes that take effect in each cell: some cells escape."""
        assert module.prior is not None
        with torch.no_grad():
            escaped = torch.rand_like(mask) < module.prior.escape_logit.sigmoid()
        responding: Tensor = mask * ~escaped
        return responding


class PairedObjective:
    """The published terms: control cells are encoded and decoded as they are and as their perturbed partners.

    Batches are control cells with the mask, the condition and, where a term needs it, the cell of their partners.
    """

    def decode(
        self, module: Network, z: Tensor, mask: Tensor, library: Tensor | None, covariates: Tensor | None
    ) -> Tensors:
        """Decode the same controls twice: as they are, and under the perturbation of their partners."""
        both = torch.cat([z, module.modulator(z, mask)])
        return {
            "location": module.decode(
                both,
                None if covariates is None else torch.cat([covariates, covariates]),
                None if library is None else torch.cat([library, library]),
            )
        }

    def terms(
        self, module: Network, config: LossConfig, tensors: Batch, inferred: Tensors, generated: Tensors
    ) -> Terms:
        """Likelihood and divergence of the controls; shifts, MMD and likelihood of the perturbed cells."""
        x, n = tensors[KEYS.X], len(tensors[KEYS.X])
        library, distribution = tensors.get(KEYS.LIBRARY), module.distribution
        location, counterfactual = generated["location"][:n], generated["location"][n:]
        nll = distribution.nll(distribution.observed(x, inferred["expression"]), location)
        kl = blocks.kl_standard_normal(inferred["mean"], inferred["log_var"])
        terms: dict[str, tuple[float, Tensor]] = {}
        condition = tensors["condition"]  # position of each cell's condition among those of the batch
        n_conditions = len(tensors["shift"])
        if config.shift_weight > 0 or config.mmd_weight > 0:
            expected = distribution.expected_expression(counterfactual, library, **COARSE)
        if config.shift_weight > 0:
            change = expected - distribution.expected_expression(location, library, **COARSE)
            total = change.new_zeros(n_conditions, x.shape[1]).index_add_(0, condition, change)
            size = torch.bincount(condition, minlength=n_conditions).clamp_min(1)[:, None]
            shift = blocks.shift_nll(total / size, tensors["shift"], tensors["shift_variance"])
            terms["shift"] = (config.shift_weight, shift)
        if config.mmd_weight > 0:
            terms["mmd"] = (config.mmd_weight, self._mmd(module, expected, counterfactual, tensors))
        if config.pair_weight > 0:
            partner = module.decode(
                module.modulator(inferred["z"], tensors["mask"]),
                module.covariates(tensors["partner"]),
                tensors["partner"].get(KEYS.LIBRARY),
            )
            observed = distribution.observed(tensors["partner"][KEYS.X], module.expression(tensors["partner"]))
            terms["pair"] = (config.pair_weight, distribution.nll(observed, partner).mean())
        return Terms(nll.mean(), nll.detach().sum(1), kl, terms)

    @staticmethod
    def _mmd(module: Network, expected: Tensor, counterfactual: Tensor, tensors: Batch) -> Tensor:
        """Mean over conditions of the MK-MMD of drawn cells; the draw's gradient is that of its expectation."""
        with torch.no_grad():
            drawn = module.distribution.draw(counterfactual)
            drawn = module.distribution.to_expression(drawn, tensors.get(KEYS.LIBRARY))
        drawn = drawn + (expected - expected.detach())
        real = module.expression(tensors["partner"])
        rows = [torch.nonzero(tensors["condition"] == c).squeeze(1) for c in range(len(tensors["shift"]))]
        values = [blocks.mk_mmd(drawn[r], real[r]) for r in rows if len(r) > 1]
        return torch.stack(values).mean() if values else expected.new_zeros(())
