"""Settings of the network and of its training: defaults and checks in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np

from raptorgraph._arguments import (
    Checked,
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_texts,
    setting,
)
from raptorgraph.inference import EffectPosteriorConfig
from raptorgraph.model._field import KEYS
from raptorgraph.nn._likelihoods import LIKELIHOODS, likelihood_for

GRAPHS = ("interventional", "dagma", "fixed")
# Details of the published network that this one mends, and that can be left as the paper prints them.
AS_PRINTED = ("inputs", "start", "residual", "variance", "diagonal", "acyclicity")
_integer = partial(setting, check=check_integer)
_number = partial(setting, check=check_number, low=0)
_flag = partial(setting, check=check_flag)
_choice = partial(setting, check=check_choice)


def _posterior_options(name: str, value: Any) -> bool | dict[str, Any]:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if not isinstance(value, Mapping | EffectPosteriorConfig):
        raise TypeError(f"{name}={value!r} must be True, False, an EffectPosteriorConfig or a dict of its settings.")
    return asdict(value if isinstance(value, EffectPosteriorConfig) else EffectPosteriorConfig.from_options(value, 7))


def _printed(name: str, value: Any) -> tuple[str, ...]:
    asked = [check_choice(name, each, AS_PRINTED) for each in check_texts(name, value, "details of the paper")]
    return tuple(each for each in AS_PRINTED if each in asked)


@dataclass(frozen=True, kw_only=True)
class ModuleConfig(Checked):
    """Sizes and variants of the network.

    Parameters
    ----------
    n_genes, n_perturbed, n_targets
        Genes; perturbed genes; perturbed genes with a column, which are the first ones.
    counts
        Whether the data are counts, which have library sizes.
    n_batch, n_cats_per_cov, n_continuous
        Covariates of the decoder: batches, categories of each categorical covariate, continuous covariates.

    All others are arguments of the model class, of which None in ``n_latent`` and ``likelihood`` is replaced.
    """

    n_genes: int
    n_perturbed: int
    n_targets: int
    counts: bool
    n_batch: int = 1
    n_cats_per_cov: tuple[int, ...] = ()
    n_continuous: int = 0
    n_latent: int = _integer(None, least=1)
    n_subgraphs: int = _integer(3, least=1)
    n_hidden: int = _integer(128, least=1)
    n_layers: int = _integer(1, least=0)
    likelihood: str = _choice(None, choices=LIKELIHOODS)
    linear_decoder: bool = _flag(True)
    perturbed_prior: bool = _flag(True)
    graph: str = _choice("interventional", choices=GRAPHS)
    graph_init: str = _choice("zero", choices=("zero", "uniform"))
    latent_norm: str = _choice("none", choices=("none", "layer"))
    learn_scale: bool = _flag(True)
    init_strength: float | None = _number(None, high=100, above=True)
    effect_posterior: bool | Mapping[str, Any] = field(default=True, metadata={"check": _posterior_options})
    as_printed: tuple[str, ...] = setting((), check=_printed)

    def __post_init__(self) -> None:
        super().__post_init__()
        k = self.n_perturbed
        d = k + max(4, math.ceil(0.1 * k)) if self.n_latent is None else self.n_latent
        if d < k:
            raise ValueError(f"n_latent={d} is below the number of perturbed genes, {k}, which own one each.")
        if self.as_printed and self.perturbed_prior:
            raise ValueError(
                f"as_printed={list(self.as_printed)} is about the published network: build the model with "
                "perturbed_prior=False, or leave it out."
            )
        object.__setattr__(self, "n_latent", d)
        object.__setattr__(self, "likelihood", likelihood_for(self.likelihood, counts=self.counts))

    @classmethod
    def settings(cls) -> list[str]:
        """Names of those that users choose, as arguments of the model; the others follow from the data."""
        return [each.name for each in fields(cls) if "check" in each.metadata]

    def __str__(self) -> str:
        return (
            f"{self.n_perturbed} perturbed genes ({self.n_targets} of them among the genes), {self.n_latent} latents, "
            f"likelihood {self.likelihood!r}, n_hidden {self.n_hidden}, n_subgraphs {self.n_subgraphs}"
        )


def data_sizes(state: Mapping[str, Any], stats: Mapping[str, int]) -> dict[str, Any]:
    """Settings that follow from the registered data: registries of their fields, and their summary."""
    perturbation = state[KEYS.PERTURBATION]["state_registry"]
    return {
        "n_genes": stats["n_vars"],
        "n_perturbed": len(perturbation["perturbed_genes"]),
        "n_targets": perturbation["n_targets"],
        "counts": KEYS.LIBRARY in state,
        "n_batch": stats.get("n_batch", 1),
        "n_cats_per_cov": tuple(state.get(KEYS.CATEGORICAL, {}).get("state_registry", {}).get("n_cats_per_key", ())),
        "n_continuous": stats.get("n_extra_continuous_covs", 0),
    }


@dataclass(frozen=True, kw_only=True)
class LossConfig(Checked):
    """Weights of the terms of the loss, and what they depend on: see :class:`RaptorGraphTrainingPlan`."""

    kl_weight: float = _number(1.0)
    kl_per_gene: bool = _flag(True)
    free_bits: float = _number(0.0)
    shift_weight: float = _number(1.0)
    mmd_weight: float = _number(0.0)
    pair_weight: float = _number(0.0)
    dag_weight: float = _number(1.0)
    mu: float = _number(1.0)
    lambda1: float = _number(0.05)
    graph_gradient: bool = _flag(False)

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the terms, by their names."""
        return {f.name: getattr(self, f.name) for f in fields(LossConfig) if f.name.endswith("_weight")}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(LossConfig):
    """Settings of the training plan, :class:`~raptorgraph.model.RaptorGraphTrainingPlan`, which explains them."""

    optimizer: str = _choice("AdamW", choices=("AdamW", "Adam"))
    lr: float = _number(3e-3, above=True)
    weight_decay: float = _number(1e-4)
    eps: float = _number(1e-8, above=True)
    lr_schedule: str = _choice("cosine", choices=("cosine", "constant"))
    kl_warmup: float = _number(0.2, high=1)
    mu_final: float = _number(1e-2)
    mu_path: str = _choice("geometric", choices=("geometric", "linear"))
    project_at: float = _number(0.8, high=1)
    dag_threshold: float = _number(0.3)

    def __post_init__(self) -> None:
        check_number("mu", self.mu, 0, above=True)  # the loss itself takes 0, the end of a path
        check_number("mu_final", self.mu_final, 0, above=self.mu_path != "linear")
        super().__post_init__()

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> TrainingConfig:
        """Settings by name; TypeError for names that are none."""
        known = sorted(each.name for each in fields(cls))
        unknown = sorted(set(arguments) - set(known))
        if unknown:
            raise TypeError(f"plan_kwargs {unknown} are unknown; there are {known}.")
        return cls(**arguments)

    def loss_settings(self) -> dict[str, Any]:
        """Those that go to the loss."""
        return {each.name: getattr(self, each.name) for each in fields(LossConfig)}
