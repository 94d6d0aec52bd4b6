"""The half ``network`` of the experiment ``ablation``: parts of the network, and how its cells and latents are scored.

What a variant is, and how to read the scores, is said in the experiment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from raptorgraph import metrics
from raptorgraph.benchmark import _embeddings as embeddings
from raptorgraph.benchmark import _variants as variants
from raptorgraph.benchmark._ablation_cells import Comparison
from raptorgraph.benchmark._ablation_posterior import DEFAULT, NOT_TRAINED
from raptorgraph.benchmark._embeddings import LARGEST, N_CELLS
from raptorgraph.benchmark._methods import epochs_of
from raptorgraph.evaluation._methods import RaptorGraphMethod
from raptorgraph.nn import GraphPathwayEncoder

if TYPE_CHECKING:
    import anndata as ad

    from raptorgraph.benchmark._settings import Settings
    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.screen import Screen

EFFECTS = "effects, relative MSE"
DECODER, DECODER_PEARSON = "decoder, relative MSE", "decoder, Pearson"
AGREEMENT, AGREEMENT_PEARSON = "decoder and posterior, relative MSE", "decoder and posterior, Pearson"
NEIGHBORS, LOGISTIC = "accuracy, neighbors", "accuracy, logistic"
RESPONSE, ACTIVE, EDGES = "response SD / mean", "active latents", "edges"
NETWORK_SCORES = (
    EFFECTS,
    DECODER,
    DECODER_PEARSON,
    AGREEMENT,
    AGREEMENT_PEARSON,
    NEIGHBORS,
    LOGISTIC,
    LARGEST,
    RESPONSE,
    ACTIVE,
    EDGES,
)
_N_CONTROLS, _N_RESPONSES = 200, 5


# -- variants --------------------------------------------------------------------------------------------------------
class WithoutNetwork(RaptorGraphMethod):
    """The model with a decoder that reads nothing: all cells have the same rates, and the posterior's effect."""

    def fit(self, adata: ad.AnnData) -> Self:
        """Train as asked, and switch the decoder off but for its base."""
        super().fit(adata)
        with torch.no_grad():
            for name, weight in self.model.module.decoder.named_parameters():
                if name != "base":
                    weight.zero_()
        return self


class WithoutPreconditioning(RaptorGraphMethod):
    """The model with an encoder in which every gene reaches every latent."""

    def prepare(self, model: RaptorGraphModel) -> None:
        """Replace the encoder."""
        layer = model.module.encoder.preconditioned
        n_genes = layer.n_targets + layer.weight.shape[1]
        model.module.encoder = GraphPathwayEncoder(n_genes, layer.n_latent, 0, layer.n_subgraphs)


class _Zero(nn.Module):
    """Zeros in place of a parameter, whatever is written to it."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(values)


class WithoutStates(RaptorGraphMethod):
    """The model with a shift that does not depend on the state of the cell."""

    def prepare(self, model: RaptorGraphModel) -> None:
        """Hold the weights of the state at 0, from the start on."""
        parametrize.register_parametrization(model.module.modulator, "state_weight", _Zero())


NO_NETWORK, PAPER = "posterior and noise, no network", "paper"
_START = {"max_epochs": 1, "train_kwargs": NOT_TRAINED}
NETWORK: dict[str, dict[str, Any]] = {  # arguments of the method, and its class
    DEFAULT: {},
    NO_NETWORK: {"kind": WithoutNetwork, **_START},
    "linear start, not trained": _START,
    "one epoch": {"max_epochs": 1},
    "controls alone are encoded": {"model_kwargs": {"perturbed_prior": False, "pairing": "random"}},
    "one shift in all states": {"kind": WithoutStates},
    "without graph": {"model_kwargs": {"graph": "fixed"}},
    "graph by DAGMA": {"model_kwargs": {"graph": "dagma"}},
    "without preconditioning": {"kind": WithoutPreconditioning},
    "no linear path, no start": {"model_kwargs": {"linear_decoder": False}},
    "decoder not held to the effects": {"plan_kwargs": {"shift_weight": 0.0}},
    "no KL to the prior": {"plan_kwargs": {"kl_weight": 0.0}},
    "noise drawn anew": {"noise": "new"},
    "measured effects, no posterior": {"model_kwargs": {"effect_posterior": False}},
    PAPER: {"preset": PAPER},
}


def method_of(name: str, screen: Screen, settings: Settings, seed: int) -> RaptorGraphMethod:
    """Unfitted variant of that name."""
    arguments: dict[str, Any] = {"preset": "default", "max_epochs": epochs_of(settings), **NETWORK[name]}
    kind: type[RaptorGraphMethod] = arguments.pop("kind", RaptorGraphMethod)
    return kind(seed=seed, **arguments, **screen.setup)


# -- scores ----------------------------------------------------------------------------------------------------------
def network_scores(name: str, screen: Screen, settings: Settings, seed: int) -> dict[str, float]:
    """Fit a variant to three quarters of the controls and singles, and score it on what it has not seen."""
    parted = embeddings.hold_out(screen, seed, combinations=False)
    method = method_of(name, screen, settings, seed).fit(parted.fitted)
    controls = parted.train[screen.codes[parted.train] == 0]
    test = list(variants.unseen_split(screen).test)
    found = {EFFECTS: metrics.relative_mse(method.predict_effects(test), screen.effects.loc[test])}
    found |= Comparison(screen, settings, seed).scores(method, controls)
    found[RESPONSE] = _response(method.model, screen, controls)
    if name == NO_NETWORK:
        return found
    return found | _of_decoder(method, screen, test) | _of_latents(method.model, parted, seed)


def reference_scores(screen: Screen, settings: Settings, seed: int) -> dict[str, dict[str, float]]:
    """Floor and ceiling of the distances of cells, and the sum of the measured singles."""
    test = list(variants.unseen_split(screen).test)
    singles = [[screen.single(gene) for gene in screen.genes_of[label]] for label in test]
    sums = np.stack([screen.effects.loc[labels].sum().to_numpy() for labels in singles])
    additive = {EFFECTS: metrics.relative_mse(sums, screen.effects.loc[test])}
    return {variants.ADDITIVE: additive, **Comparison(screen, settings, seed).references()}


def _of_decoder(method: RaptorGraphMethod, screen: Screen, test: list[str]) -> dict[str, float]:
    """Effects of the network alone, against the measured ones and against the posterior's."""
    decoded = method.model.predict_effects(test, kind="decoder")[screen.adata.var_names].astype(float)
    measured = screen.effects.loc[test]
    found = {
        DECODER: metrics.relative_mse(decoded, measured),
        DECODER_PEARSON: metrics.pearson_delta(decoded, measured),
    }
    if method.model.module.effects is not None:
        posterior = method.predict_effects(test)
        found |= {
            AGREEMENT: metrics.relative_mse(decoded, posterior),
            AGREEMENT_PEARSON: metrics.pearson_delta(decoded, posterior),
        }
    return found


def _of_latents(model: RaptorGraphModel, parted: embeddings.Parted, seed: int) -> dict[str, float]:
    """What the latents of held-out cells tell of their perturbation, and how many are in use."""
    found = {
        ACTIVE: float(model.latent_activity()["active"].mean()),
        EDGES: float(np.count_nonzero(model.get_dag())),
    }
    if len(np.unique(parted.codes)) < 2:
        return found
    latents, own = embeddings.held_out_latents(model, parted)
    found[NEIGHBORS] = metrics.label_accuracy(latents["causal"], parted.codes, "neighbors", seed=seed)
    found[LOGISTIC] = metrics.label_accuracy(latents["causal"], parted.codes, "logistic", seed=seed)
    if len(own):
        found[LARGEST] = float(np.average(own[LARGEST], weights=own[N_CELLS]))
    return found


def _response(model: RaptorGraphModel, screen: Screen, controls: np.ndarray) -> float:
    """SD of the effect between control cells over its mean, norms over genes, mean over some singles."""
    cells = screen.adata[controls[:_N_CONTROLS]].copy()
    factual, ratios = model.get_counterfactual(screen.control, cells), []
    for label in screen.singles[:_N_RESPONSES]:
        response = model.get_counterfactual(label, cells) - factual
        ratios.append(np.linalg.norm(response.std(0)) / np.linalg.norm(response.mean(0)))
    return float(np.mean(ratios))
