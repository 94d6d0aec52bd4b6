"""The generative model as an scvi-tools module: which block meets which, and the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import nn
from torch.nn import functional as F

from raptorgraph import nn as blocks
from raptorgraph.inference import EffectPosterior, EffectPosteriorConfig
from raptorgraph.model._field import KEYS
from raptorgraph.model._reference import ReferenceControls
from raptorgraph.nn._posterior_draws import posterior_draws, posterior_expectation
from raptorgraph.screen._expression import TARGET_SUM

if TYPE_CHECKING:
    from collections.abc import Sequence

# In training a coarse quadrature is enough: its error is far below the sampling error of a shift, and cancels.
_COARSE = {"step": 1.3, "lower": -13.0}
_HIGHEST = 2.0  # log rate


class RaptorGraphModule(BaseModuleClass):
    """GraphPathway encoder, latent modulator, structural layer and decoder under one loss.

    Parameters
    ----------
    n_genes, n_perturbed, n_targets, n_latent
        Genes; perturbed genes; perturbed genes with a column (the first ones); latents.
    n_subgraphs, n_hidden, n_layers
        Sizes of encoder and decoder.
    likelihood
        ``"nb"`` on counts or ``"normal"`` on the expression scale.
    counts
        Whether X holds counts.
    n_batch, n_cats_per_cov, n_continuous
        Covariates of the decoder.
    linear_decoder, graph, graph_init, latent_norm, learn_scale, init_strength, effect_posterior
        Variants; see the model class.
    """

    def __init__(
        self,
        n_genes: int,
        n_perturbed: int,
        n_targets: int,
        n_latent: int,
        *,
        n_subgraphs: int,
        n_hidden: int,
        n_layers: int,
        likelihood: str,
        counts: bool,
        n_batch: int = 1,
        n_cats_per_cov: Sequence[int] = (),
        n_continuous: int = 0,
        linear_decoder: bool = True,
        graph: str = "interventional",
        graph_init: str = "zero",
        latent_norm: str = "none",
        learn_scale: bool = True,
        init_strength: float = 1.0,
        effect_posterior: bool | dict[str, Any] = True,
    ) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.counts = counts
        self.learn_scale = learn_scale
        self.n_batch = n_batch
        self.n_cats_per_cov = list(n_cats_per_cov)
        n_covariates = (n_batch if n_batch > 1 else 0) + sum(self.n_cats_per_cov) + n_continuous
        self.encoder = blocks.GraphPathwayEncoder(n_genes, n_latent, n_targets, n_subgraphs)
        self.modulator = blocks.LatentModulator(n_latent, n_perturbed, init_strength)
        self.graph_kind = graph
        self.graph = blocks.StructuralLayer(n_latent, graph_init)
        # What was inferred of the edges among perturbed genes, those included that are not in the graph.
        for name in ("weight", "probability", "share"):
            self.register_buffer(f"edge_{name}", torch.zeros(n_perturbed, n_perturbed))
        for name in ("frequency", "q_value"):  # once they were asked for
            self.register_buffer(f"edge_{name}", torch.full((n_perturbed, n_perturbed), torch.nan))
        self.norm = nn.LayerNorm(n_latent) if latent_norm == "layer" else nn.Identity()
        self.decoder = blocks.Decoder(n_latent, n_covariates, n_genes, n_hidden, n_layers, linear=linear_decoder)
        # Log inverse dispersion for "nb", log standard deviation for "normal".
        self.log_scale = nn.Parameter(torch.zeros(n_genes), requires_grad=learn_scale)
        # Not trained by gradients of the loss: fitted once, to the measured effects.
        options = effect_posterior if isinstance(effect_posterior, dict) else {}
        self.effects = None if effect_posterior is False else EffectPosterior(EffectPosteriorConfig(**options))
        self.reference = None if self.effects is None else ReferenceControls()
        # Control statistics: the encoder reads genes in units of their own spread.
        self.register_buffer("center", torch.zeros(n_genes))
        self.register_buffer("spread", torch.ones(n_genes))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        ReferenceControls.move_old_state(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    # -- pieces ------------------------------------------------------------------------------------------------
    def expression(self, x: torch.Tensor, library: torch.Tensor | None) -> torch.Tensor:
        """Bring X to the expression scale, ``log1p(1e4 * count / library)`` for counts."""
        return torch.log1p(TARGET_SUM * x / library) if self.counts else x

    def covariates(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """One-hot batch and categories and the continuous covariates, cells x n_covariates, or None."""
        parts = []
        if self.n_batch > 1:
            parts.append(F.one_hot(tensors[KEYS.BATCH].long().squeeze(-1), self.n_batch).float())
        if self.n_cats_per_cov:
            columns = tensors[KEYS.CATEGORICAL].long()
            parts += [F.one_hot(columns[:, i], n).float() for i, n in enumerate(self.n_cats_per_cov)]
        if KEYS.CONTINUOUS in tensors:
            parts.append(tensors[KEYS.CONTINUOUS].float())
        return torch.cat(parts, dim=1) if parts else None

    def encode(self, expression: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean and log variance of z."""
        return self.encoder((expression - self.center) / self.spread)

    def decode(
        self,
        z: torch.Tensor,
        covariates: torch.Tensor | None,
        library: torch.Tensor | None,
        offset: torch.Tensor | float = 0.0,
    ) -> torch.Tensor:
        """Spread z along the graph and decode: mean counts for "nb", mean expression for "normal".

        The ``offset`` of each gene is added to what the decoder says, log rates for "nb".
        """
        location = self.decoder(self.graph(self.norm(z)), covariates) + offset
        return library * location.clamp(max=_HIGHEST).exp() if self.likelihood == "nb" else location

    def mean_expression(self, location: torch.Tensor, library: torch.Tensor | None, **quadrature) -> torch.Tensor:
        """Expectation of the expression scale, cells x genes, of what :meth:`decode` returned."""
        if self.likelihood == "nb":
            theta = self.log_scale.detach().exp()
            return blocks.expected_log1p_nb(location, theta, TARGET_SUM / library, **quadrature)
        return location

    def expected_causal(self, mean: torch.Tensor, log_var: torch.Tensor, n_draws: int, seed: int) -> torch.Tensor:
        """Posterior mean of u, cells x d, from that of z; without a norm it is linear in z and needs no draws."""
        return self.graph(posterior_expectation(self.norm, mean, log_var, n_draws, seed))

    def expected_expression(
        self,
        posterior: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor,
        covariates: torch.Tensor | None,
        library: torch.Tensor | None,
        offset: torch.Tensor | float = 0.0,
        *,
        n_draws: int,
        seed: int,
        **quadrature,
    ) -> torch.Tensor:
        """Posterior mean of the expression scale under a perturbation, cells x genes, on the path of the training.

        z is drawn, shifted and decoded. Counts would need one quadrature for each draw. The expectation is smooth in
        the log rate instead, and taken at the three points that match the mean and the variance of the log rate over
        the draws (Gauss-Hermite): on a simulated screen within 1e-3 of the mean over all draws in every cell and gene.

        Parameters
        ----------
        posterior
            Mean and log variance of z, as :meth:`encode` returns them.
        mask
            Cells (or 1) x perturbed genes, 0/1.
        covariates, library, offset
            As for :meth:`decode`.
        n_draws, seed
            Number and seed of the draws, which all cells share.
        **quadrature
            As for :meth:`mean_expression`.
        """
        draws = (self.graph(self.norm(self.modulator(z, mask))) for z in posterior_draws(*posterior, n_draws, seed))
        if self.likelihood != "nb":  # linear in what the last layer reads, whose mean it therefore takes
            inputs, hidden, n = 0.0, 0.0, 0
            for u in draws:
                read = self.decoder.features(u, covariates)
                inputs, hidden, n = inputs + read[0], hidden + read[1], n + 1
            return self.decoder.read(inputs / n, hidden / n) + offset
        first, n = None, 0
        for u in draws:
            rate = self.decoder(u, covariates).add_(offset).clamp_(max=_HIGHEST)
            if first is None:
                first, total, square = rate, torch.zeros_like(rate), torch.zeros_like(rate)
            else:  # moments about the first do not cancel
                rate -= first
                total += rate
                square.addcmul_(rate, rate)
            n += 1
        mean = first + total / n
        step = (3.0 * (square / n - (total / n) ** 2).clamp_min(0.0)).sqrt()
        low, middle, high = (
            self.mean_expression(library * torch.exp(at), library, **quadrature)
            for at in (mean - step, mean, mean + step)
        )
        return (low + 4.0 * middle + high) / 6.0

    def nll(self, location: torch.Tensor, x: torch.Tensor, expression: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood (squared error without a learned scale), elementwise."""
        if self.likelihood == "nb":
            return blocks.nb_nll(x, location, self.log_scale.exp())
        if not self.learn_scale:
            return (expression - location) ** 2
        return blocks.normal_nll(expression, location, self.log_scale.exp())

    def draw(self, location: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw cells from the likelihood: counts for "nb", expression for "normal"."""
        if self.likelihood == "nb":
            theta = self.log_scale.exp().expand_as(location)
            gamma = torch._standard_gamma(theta, generator=generator)
            return torch.poisson(gamma * location / theta, generator=generator)
        if not self.learn_scale:
            return location
        noise = torch.randn(location.shape, generator=generator, dtype=location.dtype, device=location.device)
        return location + self.log_scale.exp() * noise

    def carry(
        self, x: torch.Tensor, before: torch.Tensor, after: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        r"""Take cells from one location to another, each with the noise that it was measured with.

        The abduction of a counterfactual: a count is Poisson with rate :math:`\lambda g`, g a gamma variable of mean
        1. Given the count x, g is gamma with shape :math:`\theta + x` and rate :math:`\theta + \lambda`. Where
        :math:`\lambda` falls, each molecule stays with probability :math:`\lambda' / \lambda`; where it rises, a
        Poisson number of mean :math:`(\lambda' - \lambda) g` comes to it. If x follows the negative binomial of mean
        :math:`\lambda`, the result follows that of :math:`\lambda'`, with as few molecules changed as can be.

        Parameters
        ----------
        x
            Measured cells x genes: counts for "nb", expression for "normal".
        before, after
            Locations, as :meth:`decode` returns them.
        generator
            Of the draws.

        Returns
        -------
        Cells x genes, like ``x``. A model without a scale has no noise to keep: its cells are at their location.
        """
        if self.likelihood == "nb":
            theta = self.log_scale.exp()
            kept = torch.binomial(x, (after / before).clamp(max=1.0), generator=generator)
            gamma = torch._standard_gamma(theta + x, generator=generator) / (theta + before)
            return kept + torch.poisson(gamma * (after - before).clamp_min(0.0), generator=generator)
        return after if not self.learn_scale else x + (after - before)

    # -- scvi-tools' protocol -----------------------------------------------------------------------------------
    def _get_inference_input(self, tensors, **kwargs):
        library = tensors.get(KEYS.LIBRARY)
        return {"expression": self.expression(tensors[KEYS.X], library)}

    @auto_move_data
    def inference(self, expression):
        mean, log_var = self.encode(expression)
        z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
        return {"mean": mean, "log_var": log_var, "z": z, "expression": expression}

    def _get_generative_input(self, tensors, inference_outputs, **kwargs):
        return {
            "z": inference_outputs["z"],
            "mask": tensors["mask"],
            "library": tensors.get(KEYS.LIBRARY),
            "covariates": self.covariates(tensors),
        }

    @auto_move_data
    def generative(self, z, mask, library, covariates):
        """Decode the same controls twice: as they are, and under the perturbation of their partners."""
        both = torch.cat([z, self.modulator(z, mask)])
        return {
            "location": self.decode(
                both,
                None if covariates is None else torch.cat([covariates, covariates]),
                None if library is None else torch.cat([library, library]),
            )
        }

    def loss(
        self,
        tensors,
        inference_outputs,
        generative_outputs,
        *,
        kl_weight: float = 1.0,
        kl_per_gene: bool = True,
        free_bits: float = 0.0,
        shift_weight: float = 1.0,
        mmd_weight: float = 0.0,
        pair_weight: float = 0.0,
        dag_weight: float = 1.0,
        mu: float = 1.0,
        lambda1: float = 0.05,
        graph_gradient: bool = False,
    ) -> LossOutput:
        """Weighted sum of the terms, each a mean over cells (or conditions) and genes.

        The KL is summed over latents and, with ``kl_per_gene``, divided by the number of genes: reconstruction and
        KL then are the ELBO per gene at ``kl_weight`` = 1, whatever the number of genes. The graph's term does not
        reach the encoder (section 3.2), unless ``graph_gradient``.
        """
        x, n = tensors[KEYS.X], len(tensors[KEYS.X])
        library = tensors.get(KEYS.LIBRARY)
        location, counterfactual = generative_outputs["location"].split(n)
        nll = self.nll(location, x, inference_outputs["expression"])
        kl = blocks.kl_standard_normal(inference_outputs["mean"], inference_outputs["log_var"])
        kl_term = blocks.free_bits(kl, free_bits) / (x.shape[1] if kl_per_gene else 1)
        terms = {"reconstruction": (1.0, nll.mean()), "kl": (kl_weight, kl_term)}

        condition = tensors["condition"]  # position of each cell's condition among those of the batch
        n_conditions = len(tensors["shift"])
        expected = None
        if shift_weight > 0 or mmd_weight > 0:
            expected = self.mean_expression(counterfactual, library, **_COARSE)
        if shift_weight > 0:
            change = expected - self.mean_expression(location, library, **_COARSE)
            total = change.new_zeros(n_conditions, x.shape[1]).index_add_(0, condition, change)
            size = torch.bincount(condition, minlength=n_conditions).clamp_min(1)[:, None]
            terms["shift"] = (shift_weight, blocks.shift_nll(total / size, tensors["shift"], tensors["shift_variance"]))
        if mmd_weight > 0:
            terms["mmd"] = (mmd_weight, self._mmd(expected, counterfactual, library, tensors, condition, n_conditions))
        if pair_weight > 0:
            partner = self.decode(
                self.modulator(inference_outputs["z"], tensors["mask"]),
                self.covariates(tensors["partner"]),
                tensors["partner"].get(KEYS.LIBRARY),
            )
            x_partner = tensors["partner"][KEYS.X]
            e_partner = self.expression(x_partner, tensors["partner"].get(KEYS.LIBRARY))
            terms["pair"] = (pair_weight, self.nll(partner, x_partner, e_partner).mean())
        if dag_weight > 0:
            z = self.norm(inference_outputs["z"])
            z = z if graph_gradient else z.detach()
            terms["dag"] = (dag_weight, blocks.dagma_loss(z, self.graph.adjacency(), mu=mu, lambda1=lambda1))
        total = sum(weight * value for weight, value in terms.values())
        # "normal" and "nb" differ in scale; nats per cell are what scvi-tools calls the reconstruction loss.
        return LossOutput(
            loss=total,
            reconstruction_loss=nll.detach().sum(1),
            kl_local=kl.detach().sum(1),
            extra_metrics={name: value.detach() for name, (_, value) in terms.items()},
        )

    def _mmd(self, expected, counterfactual, library, tensors, condition, n_conditions) -> torch.Tensor:
        """Mean over conditions of the MK-MMD of drawn cells; the draw's gradient is that of its expectation."""
        with torch.no_grad():
            drawn = self.draw(counterfactual)
            drawn = torch.log1p(TARGET_SUM * drawn / library) if self.likelihood == "nb" else drawn
        drawn = drawn + (expected - expected.detach())
        real = self.expression(tensors["partner"][KEYS.X], tensors["partner"].get(KEYS.LIBRARY))
        rows = [torch.nonzero(condition == c).squeeze(1) for c in range(n_conditions)]
        values = [blocks.mk_mmd(drawn[r], real[r]) for r in rows if len(r) > 1]
        return torch.stack(values).mean() if values else expected.new_zeros(())

    @torch.no_grad()
    def sample(self, tensors, mask):
        """Draw latents of the cells in ``tensors`` from their posterior, and cells under a perturbation mask."""
        z = self.inference(**self._get_inference_input(tensors))["z"]
        library = tensors.get(KEYS.LIBRARY)
        return self.draw(self.decode(self.modulator(z, mask), self.covariates(tensors), library))
