"""The generative model as an scvi-tools module: which block meets which, and the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import nn
from torch.nn import functional as F

from raptorgraph import nn as blocks
from raptorgraph.inference import EffectPosterior
from raptorgraph.model._field import KEYS
from raptorgraph.nn._likelihoods import make_likelihood
from raptorgraph.nn._posterior_draws import posterior_draws, posterior_expectation
from raptorgraph.screen._expression import TARGET_SUM

if TYPE_CHECKING:
    from collections.abc import Sequence

# In training a coarse quadrature is enough: its error is far below the sampling error of a shift, and cancels.
_COARSE = {"step": 1.3, "lower": -13.0}


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
        self.counts = counts
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
        self.distribution = make_likelihood(likelihood, n_genes, learn_scale=learn_scale, target_sum=TARGET_SUM)
        # Not trained by gradients of the loss: fitted once, to the measured effects.
        options = effect_posterior if isinstance(effect_posterior, dict) else {}
        self.effects = None if effect_posterior is False else EffectPosterior(**options)
        # Control statistics: the encoder reads genes in units of their own spread.
        self.register_buffer("center", torch.zeros(n_genes))
        self.register_buffer("spread", torch.ones(n_genes))

    # -- pieces ------------------------------------------------------------------------------------------------
    @property
    def likelihood(self) -> str:
        """Name of the likelihood, :attr:`distribution`."""
        return self.distribution.name

    @property
    def log_scale(self) -> nn.Parameter:
        """Logarithm of the scale of each gene."""
        return self.distribution.log_scale

    def expression(self, x: torch.Tensor, library: torch.Tensor | None) -> torch.Tensor:
        """Bring X to the expression scale, ``log1p(1e4 * count / library)`` for counts, which have a library size."""
        return x if library is None else torch.log1p(TARGET_SUM * x / library)

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
        """Spread z along the graph and decode to the location of the likelihood.

        The ``offset`` of each gene is added to what the decoder says.
        """
        return self.distribution.location(self.decoder(self.graph(self.norm(z)), covariates) + offset, library)

    def mean_expression(
        self, location: torch.Tensor, library: torch.Tensor | None, **quadrature: float
    ) -> torch.Tensor:
        """Expectation of the expression scale, cells x genes, of what :meth:`decode` returned."""
        return self.distribution.expected_expression(location, library, **quadrature)

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

        z is drawn, shifted and decoded; the likelihood takes the expectation over the draws.

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
        features = (self.decoder.features(u, covariates) for u in draws)
        return self.distribution.expected_over_draws(features, self.decoder.read, library, offset, **quadrature)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take over state, also that of models that were saved before the likelihood had its scale."""
        if f"{prefix}log_scale" in state_dict:
            state_dict[f"{prefix}distribution.log_scale"] = state_dict.pop(f"{prefix}log_scale")
        super()._load_from_state_dict(state_dict, prefix, *args)

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
        nll = self.distribution.nll(self.distribution.observed(x, inference_outputs["expression"]), location)
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
            observed = self.distribution.observed(x_partner, e_partner)
            terms["pair"] = (pair_weight, self.distribution.nll(observed, partner).mean())
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
            drawn = self.distribution.to_expression(self.distribution.draw(counterfactual), library)
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
        return self.distribution.draw(self.decode(self.modulator(z, mask), self.covariates(tensors), library))
