"""Settings of the network and of its training: defaults and checks in one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np

from raptorgraph._arguments import LARGEST, check_choice, check_flag, check_integer, check_number
from raptorgraph.inference import EffectPosteriorConfig
from raptorgraph.model._field import KEYS
from raptorgraph.model._graph import GRAPHS
from raptorgraph.nn._likelihoods import LIKELIHOODS, likelihood_for

Check = Callable[[str, Any], Any]


def _setting(default: Any, check: Check) -> Any:
    return field(default=default, metadata={"check": check})


def _integer(default: int, least: int) -> Any:
    return _setting(default, partial(check_integer, least=least))


def _number(default: float, *, high: float = LARGEST, above: bool = False) -> Any:
    return _setting(default, partial(check_number, low=0, high=high, above=above))


def _flag(default: bool) -> Any:
    return _setting(default, check_flag)


def _choice(default: str | None, choices: Collection[str]) -> Any:
    if default is None:
        return _setting(None, lambda name, value: None if value is None else check_choice(name, value, choices))
    return _setting(default, partial(check_choice, choices=choices))


def _posterior_options(name: str, value: Any) -> bool | dict[str, Any]:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if not isinstance(value, Mapping | EffectPosteriorConfig):
        raise TypeError(f"{name}={value!r} must be True, False, an EffectPosteriorConfig or a dict of its settings.")
    return asdict(value if isinstance(value, EffectPosteriorConfig) else EffectPosteriorConfig.from_options(value, 7))


class Checked:
    """Base of the settings: values are checked and become Python's own, by a check for each field."""

    def __post_init__(self) -> None:
        for setting in fields(self):  # type: ignore[arg-type]  # its subclasses are dataclasses
            if "check" in setting.metadata:
                value = setting.metadata["check"](setting.name, getattr(self, setting.name))
                object.__setattr__(self, setting.name, value)


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
    n_latent
        Latents d; None for a tenth more than perturbed genes, at least four more.
    likelihood
        Name of the likelihood; None for what fits the data.
    n_subgraphs, n_hidden, n_layers, linear_decoder, graph, graph_init, latent_norm, learn_scale, init_strength, \
    effect_posterior
        See the model class.

    Raises
    ------
    TypeError
        For a setting of a wrong type.
    ValueError
        For a setting that is out of its range, fewer latents than perturbed genes, and a likelihood of counts for log
        values.
    """

    n_genes: int
    n_perturbed: int
    n_targets: int
    counts: bool
    n_batch: int = 1
    n_cats_per_cov: tuple[int, ...] = ()
    n_continuous: int = 0
    n_latent: int = _setting(None, lambda name, value: value if value is None else check_integer(name, value, 1))
    n_subgraphs: int = _integer(3, least=1)
    n_hidden: int = _integer(128, least=1)
    n_layers: int = _integer(1, least=0)
    likelihood: str = _choice(None, LIKELIHOODS)
    linear_decoder: bool = _flag(True)
    graph: str = _choice("interventional", GRAPHS)
    graph_init: str = _choice("zero", ("zero", "uniform"))
    latent_norm: str = _choice("none", ("none", "layer"))
    learn_scale: bool = _flag(True)
    init_strength: float = _number(2.5, high=100, above=True)
    effect_posterior: bool | Mapping[str, Any] = field(default=True, metadata={"check": _posterior_options})

    def __post_init__(self) -> None:
        super().__post_init__()
        k = self.n_perturbed
        d = k + max(4, math.ceil(0.1 * k)) if self.n_latent is None else self.n_latent
        if d < k:
            raise ValueError(f"n_latent={d} is below the number of perturbed genes, {k}, which own one each.")
        object.__setattr__(self, "n_latent", d)
        object.__setattr__(self, "likelihood", likelihood_for(self.likelihood, counts=self.counts))

    def __str__(self) -> str:
        return (
            f"{self.n_perturbed} perturbed genes ({self.n_targets} of them among the genes), {self.n_latent} latents, "
            f"likelihood {self.likelihood!r}, n_hidden {self.n_hidden}, n_subgraphs {self.n_subgraphs}"
        )


def data_sizes(
    state: Mapping[str, Any], stats: Mapping[str, int], n_latent: int | None, likelihood: str | None
) -> dict[str, Any]:
    """Settings that follow from the registered data, those included that a user may leave open (None).

    Parameters
    ----------
    state, stats
        Registries of the fields, and summary of the data.
    n_latent, likelihood
        What the user asks for.
    """
    perturbation = state[KEYS.PERTURBATION]["state_registry"]
    return {
        "n_genes": stats["n_vars"],
        "n_perturbed": len(perturbation["perturbed_genes"]),
        "n_targets": perturbation["n_targets"],
        "counts": KEYS.LIBRARY in state,
        "n_latent": n_latent,
        "likelihood": likelihood,
        "n_batch": stats.get("n_batch", 1),
        "n_cats_per_cov": tuple(state.get(KEYS.CATEGORICAL, {}).get("state_registry", {}).get("n_cats_per_key", ())),
        "n_continuous": stats.get("n_extra_continuous_covs", 0),
    }


@dataclass(frozen=True, kw_only=True)
class LossConfig(Checked):
    """Weights of the terms of the loss, and what they depend on.

    Parameters
    ----------
    kl_weight, shift_weight, mmd_weight, pair_weight, dag_weight
        Weight of the KL, of the shifts of conditions, of the MMD to perturbed cells, of the likelihood of paired
        perturbed cells, and of the graph's score.
    kl_per_gene
        Whether the KL is divided by the number of genes: reconstruction and KL then are the ELBO per gene at
        ``kl_weight`` = 1, whatever the number of genes.
    free_bits
        KL of each latent, in nats, below which it costs nothing.
    mu, lambda1
        Weight of the graph's score, and of the sparsity in it.
    graph_gradient
        Whether the graph's term reaches the encoder, which in the paper it does not (section 3.2).
    """

    kl_weight: float = _number(1.0)
    kl_per_gene: bool = _flag(True)
    free_bits: float = _number(0.0)
    shift_weight: float = _number(1.0)
    mmd_weight: float = _number(0.0)
    pair_weight: float = _number(0.0)
    dag_weight: float = _number(1.0)
    mu: float = _number(1.0, above=True)
    lambda1: float = _number(0.05)
    graph_gradient: bool = _flag(False)

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the terms, by their names."""
        return {f.name: getattr(self, f.name) for f in fields(LossConfig) if f.name.endswith("_weight")}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(LossConfig):
    """Settings of the training plan, :class:`~raptorgraph.model.RaptorGraphTrainingPlan`, which explains them."""

    optimizer: str = _choice("AdamW", ("AdamW", "Adam"))
    lr: float = _number(3e-3, above=True)
    weight_decay: float = _number(1e-4)
    eps: float = _number(1e-8, above=True)
    lr_schedule: str = _choice("cosine", ("cosine", "constant"))
    kl_warmup: float = _number(0.2, high=1)
    mu_final: float = _number(1e-2, above=True)
    project_at: float = _number(0.8, high=1)
    dag_threshold: float = _number(0.3)

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> TrainingConfig:
        """Settings by name; TypeError for names that are none."""
        known = sorted(setting.name for setting in fields(cls))
        unknown = sorted(set(arguments) - set(known))
        if unknown:
            raise TypeError(f"plan_kwargs {unknown} are unknown; there are {known}.")
        return cls(**arguments)

    def loss_settings(self) -> dict[str, Any]:
        """Those that go to the loss."""
        return {setting.name: getattr(self, setting.name) for setting in fields(LossConfig)}
