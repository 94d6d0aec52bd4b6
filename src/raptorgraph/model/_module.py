"""The generative model as an scvi-tools module: which block meets which, and the loss."""

from __future__ import annotations

import warnings
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import Tensor, nn
from torch.nn import functional as F

from raptorgraph import nn as blocks
from raptorgraph.inference import EffectPosterior, EffectPosteriorConfig
from raptorgraph.model._config import LossConfig
from raptorgraph.model._escape import ResponseState
from raptorgraph.model._field import KEYS
from raptorgraph.model._objectives import CellObjective, Objective, PairedObjective
from raptorgraph.model._reference import ReferenceControls
from raptorgraph.nn._likelihoods import make_likelihood
from raptorgraph.nn._posterior_draws import posterior_draws
from raptorgraph.screen._expression import TARGET_SUM

if TYPE_CHECKING:
    from raptorgraph.model._config import ModuleConfig

Tensors: TypeAlias = dict[str, Tensor]
Batch: TypeAlias = dict[str, Any]
"""Tensors of cells by name, with those of the partners in one of their own."""

FARTHEST = 10.0  # spreads from the mean that the encoder still tells apart

_STRENGTH = 2.5  # where none is asked for and none chosen

_MOVED = {
    "counts": "config.counts",
    "graph_kind": "config.graph",
    "likelihood": "config.likelihood",
    "learn_scale": "config.learn_scale",
    "log_scale": "distribution.log_scale",
    "mean_expression": "distribution.expected_expression",
    "draw": "distribution.draw",
    "carry": "distribution.carry",
}


class RaptorGraphModule(BaseModuleClass):  # type: ignore[misc]  # scvi-tools has no types
    """GraphPathway encoder, latent modulator, structural layer and decoder under one loss.

    Parameters
    ----------
    config
        Sizes and variants.
    """

    center: Tensor
    spread: Tensor
    edge_weight: Tensor
    edge_probability: Tensor
    edge_share: Tensor
    edge_direction_support: Tensor
    edge_frequency: Tensor
    edge_q_value: Tensor

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config = config
        n_genes, k, d = config.n_genes, config.n_perturbed, config.n_latent
        n_covariates = (config.n_batch if config.n_batch > 1 else 0) + sum(config.n_cats_per_cov) + config.n_continuous
        self.encoder = blocks.GraphPathwayEncoder(
            n_genes,
            d,
            config.n_targets,
            config.n_subgraphs,
            residual="residual" not in config.as_printed,
            bounded="variance" not in config.as_printed,
        )
        self._set_prior(config.perturbed_prior)
        self.graph = blocks.StructuralLayer(
            d,
            config.graph_init,
            self_effects="diagonal" in config.as_printed,
            guarded="acyclicity" not in config.as_printed,
        )
        # What was inferred of the edges among perturbed genes, those included that are not in the graph.
        for name in ("weight", "probability", "share"):
            self.register_buffer(f"edge_{name}", torch.zeros(k, k))
        for name in ("direction_support", "frequency", "q_value"):  # where they are known
            self.register_buffer(f"edge_{name}", torch.full((k, k), torch.nan))
        self.norm: nn.Module = nn.LayerNorm(d) if config.latent_norm == "layer" else nn.Identity()
        self.decoder = blocks.Decoder(
            d, n_covariates, n_genes, config.n_hidden, config.n_layers, linear=config.linear_decoder
        )
        self.distribution = make_likelihood(
            config.likelihood, n_genes, learn_scale=config.learn_scale, target_sum=TARGET_SUM
        )
        # Not trained by gradients of the loss: fitted once, to the measured effects.
        options = config.effect_posterior if isinstance(config.effect_posterior, dict) else {}
        self.effects = None
        if config.effect_posterior is not False:
            self.effects = EffectPosterior(EffectPosteriorConfig(**options))
        self.reference = None if self.effects is None else ReferenceControls()
        self.responses = ResponseState(k)
        # Control statistics: the encoder reads genes in units of their own spread, or as they are.
        self.register_buffer("center", torch.zeros(n_genes))
        self.register_buffer("spread", torch.ones(n_genes))

    def __getattr__(self, name: str) -> Any:
        if name in _MOVED:
            warnings.warn(f"module.{name} is now module.{_MOVED[name]}.", FutureWarning, stacklevel=2)
            return attrgetter(_MOVED[name])(self)
        return super().__getattr__(name)

    def _set_prior(self, perturbed: bool) -> None:
        """Build what a perturbation acts on, and what the network is trained for."""
        d, k, strength = self.config.n_latent, self.config.n_perturbed, self.config.init_strength or _STRENGTH
        self.objective: Objective = CellObjective() if perturbed else PairedObjective()
        self.modulator = (blocks.ConditionalModulator if perturbed else blocks.LatentModulator)(d, k, strength)
        # How far a latent is shifted is a convention: what it does is in the decoder. On what the shift depends is
        # found at the start: an encoder that does not see the label says less than the shift of every cell, and a
        # gradient of the bound would draw the shift toward the same in all states.
        self.modulator.strength.requires_grad_(not perturbed)
        for parameter in self.modulator.of_state():
            parameter.requires_grad_(False)
        self.prior = blocks.PerturbedPrior(k) if perturbed else None

    # -- pieces ------------------------------------------------------------------------------------------------
    def expression(self, tensors: Tensors) -> Tensor:
        """Bring X to the expression scale, ``log1p(1e4 * count / library)`` for counts, which have a library size."""
        x, library = tensors[KEYS.X], tensors.get(KEYS.LIBRARY)
        return x if library is None else (TARGET_SUM * x).div_(library).log1p_()

    def covariates(self, tensors: dict[str, Tensor]) -> Tensor | None:
        """One-hot batch and categories and the continuous covariates, cells x n_covariates, or None."""
        parts = []
        if self.config.n_batch > 1:
            parts.append(F.one_hot(tensors[KEYS.BATCH].long().squeeze(-1), self.config.n_batch).float())
        if self.config.n_cats_per_cov:
            columns = tensors[KEYS.CATEGORICAL].long()
            parts += [F.one_hot(columns[:, i], n).float() for i, n in enumerate(self.config.n_cats_per_cov)]
        if KEYS.CONTINUOUS in tensors:
            parts.append(tensors[KEYS.CONTINUOUS].float())
        return torch.cat(parts, dim=1) if parts else None

    def encode(self, expression: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and log variance of z."""
        mean, log_var = self.encoder(self.standardized(expression))
        return mean, log_var

    def standardized(self, expression: Tensor) -> Tensor:
        """What the encoder reads: genes in units of their spread, cells x genes."""
        found = (expression - self.center).div_(self.spread)
        return found.clamp_(-FARTHEST, FARTHEST) if self.config.perturbed_prior else found

    def decode(
        self, z: Tensor, covariates: Tensor | None, library: Tensor | None, offset: Tensor | float = 0.0
    ) -> Tensor:
        """Spread z along the graph and decode to the location of the likelihood; ``offset`` is added for each gene."""
        return self.distribution.location(self.decoder(self.graph(self.norm(z)), covariates) + offset, library)

    def expected_expression(
        self,
        posterior: tuple[Tensor, Tensor],
        mask: Tensor,
        covariates: Tensor | None,
        library: Tensor | None,
        offset: Tensor | float = 0.0,
        *,
        n_draws: int,
        seed: int,
        **quadrature: float,
    ) -> Tensor:
        """Posterior mean of the expression scale under a perturbation (1 or cells x perturbed genes), cells x genes.

        z is drawn, shifted and decoded as in training, and the likelihood takes the expectation over the draws, which
        all cells share; `posterior` is what :meth:`encode` returns.
        """
        draws = (self.graph(self.norm(self.modulator(z, mask))) for z in posterior_draws(*posterior, n_draws, seed))
        features = (self.decoder.features(u, covariates) for u in draws)
        return self.distribution.expected_over_draws(features, self.decoder.read, library, offset, **quadrature)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take over state, also that of older models.

        There the scale and the reference have another place, older defaults have no perturbed prior, and directions of
        edges have no support.
        """
        state_dict.setdefault(f"{prefix}edge_direction_support", torch.full_like(self.edge_share, torch.nan))
        ReferenceControls.move_old_state(state_dict, prefix)
        if f"{prefix}log_scale" in state_dict:
            state_dict[f"{prefix}distribution.log_scale"] = state_dict.pop(f"{prefix}log_scale")
        if self.prior is not None and f"{prefix}prior.escape_logit" not in state_dict:
            self.config = replace(self.config, perturbed_prior=False)
            self._set_prior(perturbed=False)
        super()._load_from_state_dict(state_dict, prefix, *args)

    # -- scvi-tools' protocol -----------------------------------------------------------------------------------
    def _get_inference_input(self, tensors: Batch, **kwargs: Any) -> Tensors:
        return {"expression": self.expression(tensors)}

    @auto_move_data  # type: ignore[untyped-decorator]
    def inference(self, expression: Tensor) -> Tensors:
        """Encode cells, and draw z."""
        mean, log_var = self.encode(expression)
        z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
        return {"mean": mean, "log_var": log_var, "z": z, "expression": expression}

    def _get_generative_input(self, tensors: Batch, inference_outputs: Tensors, **kwargs: Any) -> dict[str, Any]:
        return {
            "z": inference_outputs["z"],
            "mask": tensors["mask"],
            "library": tensors.get(KEYS.LIBRARY),
            "covariates": self.covariates(tensors),
        }

    @auto_move_data  # type: ignore[untyped-decorator]
    def generative(self, z: Tensor, mask: Tensor, library: Tensor | None, covariates: Tensor | None) -> Tensors:
        """Decode the cells, by the objective."""
        return self.objective.decode(self, z, mask, library, covariates)

    def loss(
        self, tensors: Batch, inference_outputs: Tensors, generative_outputs: Tensors, **settings: Any
    ) -> LossOutput:
        """Weighted sum of the terms, each a mean over cells (or conditions) and genes.

        The `settings` are those of :class:`~raptorgraph.model._config.LossConfig`. The KL is summed over latents.
        """
        config = LossConfig(**settings)
        found = self.objective.terms(self, config, tensors, inference_outputs, generative_outputs)
        n_genes = self.config.n_genes
        kl_term = blocks.free_bits(found.kl, config.free_bits) / (n_genes if config.kl_per_gene else 1)
        terms = {"reconstruction": (1.0, found.reconstruction), "kl": (config.kl_weight, kl_term), **found.others}
        if config.dag_weight > 0:
            z = self.norm(inference_outputs["z"])
            z = z if config.graph_gradient else z.detach()
            dag = blocks.dagma_loss(
                z, self.graph.adjacency(), mu=config.mu, lambda1=config.lambda1, clamped=not self.graph.guarded
            )
            terms["dag"] = (config.dag_weight, dag)
        total = sum(weight * value for weight, value in terms.values())
        # "normal" and "nb" differ in scale; nats per cell are what scvi-tools calls the reconstruction loss.
        return LossOutput(
            loss=total,
            reconstruction_loss=found.nll.detach(),
            kl_local=found.kl.detach().sum(1),
            extra_metrics={name: value.detach() for name, (_, value) in terms.items()},
        )

    @torch.no_grad()
    def sample(self, tensors: Tensors, mask: Tensor) -> Tensor:
        """Draw latents of the cells in ``tensors`` from their posterior, and cells under a perturbation mask."""
        z = self.inference(**self._get_inference_input(tensors))["z"]
        library = tensors.get(KEYS.LIBRARY)
        return self.distribution.draw(self.decode(self.modulator(z, mask), self.covariates(tensors), library))
