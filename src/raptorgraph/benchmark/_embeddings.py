"""Latents of held-out cells by methods that were fitted on the others: ours, principal components and deep models."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scvi
import torch
from sklearn.decomposition import PCA

from raptorgraph import metrics
from raptorgraph._logging import quietly
from raptorgraph.benchmark._methods import epochs_of
from raptorgraph.evaluation._methods import RaptorGraphMethod
from raptorgraph.model import RaptorGraphModel
from raptorgraph.screen._label_hints import SetupWarning

if TYPE_CHECKING:
    import anndata as ad

    from raptorgraph.benchmark._settings import Settings
    from raptorgraph.screen import Screen

    Embeddings = dict[str, np.ndarray]

OURS = {"raptorgraph": "default", "raptorgraph paper": "paper"}
OWN = ", own latents"
FOR_COUNTS = ("scVI", "contrastiveVI")
METHODS = (*OURS, "PCA", *FOR_COUNTS)
LARGEST, RANK, AUROC = "own latent the largest", "rank of the own latent", "AUROC of the own latent"
SHIFT, MODULATOR = "shift of the own latent", "shift by the modulator"
N_CELLS = "cells"
_LEAST = 8  # held-out cells of a condition that is scored
_AT_LEAST, _PART, _AT_MOST = 20, 4, 2  # cells held out, one of so many, and of how many one at most


@dataclass(frozen=True)
class Parted:
    """Cells of a screen that methods are fitted on and those that are held out, as sorted rows."""

    screen: Screen
    train: np.ndarray
    test: np.ndarray

    @property
    def fitted(self) -> ad.AnnData:
        """Copy of the cells that methods are fitted on."""
        return self.screen.adata[self.train].copy()

    @property
    def held_out(self) -> ad.AnnData:
        """Copy of the held-out cells."""
        return self.screen.adata[self.test].copy()

    @property
    def codes(self) -> np.ndarray:
        """Condition of each held-out cell, by its position in ``screen.labels``."""
        return np.asarray(self.screen.codes[self.test])


def hold_out(screen: Screen, seed: int, *, combinations: bool = True) -> Parted:
    """Hold out a quarter of the cells of control and each condition.

    At least 20, and at most half of the cells, are held out; of a condition with fewer than 16 none, which is then
    trained on alone. A batch of which no cell would be left keeps its cells.

    Parameters
    ----------
    screen
        The screen.
    seed
        Seed of the choice.
    combinations
        Whether conditions of several genes count; otherwise their cells are in neither part.
    """
    rng = np.random.default_rng([seed, 5])
    train, test = [], []
    for code, label in enumerate(screen.labels):
        rows = rng.permutation(screen.rows(label))
        if screen.n_perturbed[code] > 1 and not combinations:
            continue
        n_held = min(max(len(rows) // _PART, _AT_LEAST), len(rows) // _AT_MOST)
        n_held = n_held if n_held >= _LEAST else 0
        test.append(rows[:n_held])
        train.append(rows[n_held:])
    fitted, held = np.sort(np.concatenate(train)), np.sort(np.concatenate(test))
    if screen.batch is not None:
        unknown = ~np.isin(screen.batch[held], screen.batch[fitted])
        fitted, held = np.sort(np.concatenate([fitted, held[unknown]])), held[~unknown]
    return Parted(screen, fitted, held)


# -- others ----------------------------------------------------------------------------------------------------------
def dimension(parted: Parted) -> int:
    """Number of latents that our model has by default for the cells that are fitted on."""
    cells = parted.fitted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SetupWarning)  # the screen was warned of as a whole
        RaptorGraphModel.setup_anndata(cells, **parted.screen.setup)
    return len(RaptorGraphModel(cells).latent_names)


def embed_by_pca(parted: Parted, n_latent: int, seed: int) -> np.ndarray:
    """Held-out cells on the principal components of the others, on the expression scale."""
    train = parted.screen.expression_at(parted.train)
    n_latent = min(n_latent, min(train.shape) - 1)
    components = PCA(n_latent, svd_solver="arpack", random_state=seed).fit(train)
    return np.asarray(components.transform(parted.screen.expression_at(parted.test)))


@quietly
def embed_by_deep_model(name: str, parted: Parted, n_latent: int, settings: Settings, seed: int) -> np.ndarray:
    """Posterior means of scVI's latents, or of contrastiveVI's salient ones with control cells as its background."""
    setup, cells = parted.screen.setup, parted.fitted
    kind = scvi.model.SCVI if name == "scVI" else scvi.external.ContrastiveVI
    scvi.settings.seed = seed
    kind.setup_anndata(cells, layer=setup.layer, batch_key=setup.batch_key)
    arguments: dict[str, Any] = {
        "max_epochs": epochs_of(settings),
        "enable_progress_bar": False,
        "enable_checkpointing": False,
    }
    if name == "scVI":
        model = kind(cells, n_latent=n_latent)
    else:
        model = kind(cells, n_salient_latent=n_latent)
        control = parted.screen.codes[parted.train] == 0
        rows = {"background_indices": control, "target_indices": ~control}
        arguments |= {part: np.flatnonzero(chosen).tolist() for part, chosen in rows.items()}
    model.train(**arguments)
    return np.asarray(model.get_latent_representation(parted.held_out))


# -- ours ------------------------------------------------------------------------------------------------------------
def embed_by_ours(name: str, parted: Parted, settings: Settings, seed: int) -> tuple[Embeddings, pd.DataFrame]:
    """All causal latents of the held-out cells, their own exogenous ones, and how these tell perturbations.

    Returns
    -------
    Latents by name, and the table of :func:`own_latents`.
    """
    method = RaptorGraphMethod(OURS[name], seed=seed, max_epochs=epochs_of(settings), **parted.screen.setup)
    latents, table = held_out_latents(method.fit(parted.fitted).model, parted)
    return {name: latents["causal"], name + OWN: latents["own"]}, table


def held_out_latents(model: RaptorGraphModel, parted: Parted) -> tuple[Embeddings, pd.DataFrame]:
    """Latents of the held-out cells by a fitted model: ``"causal"``, and ``"own"``, the exogenous ones of its genes.

    Returns
    -------
    Those, and the table of :func:`own_latents`.
    """
    control = parted.train[parted.screen.codes[parted.train] == 0]
    center = model.get_latent_representation(parted.screen.adata[control].copy(), "exogenous").mean(axis=0)
    z = model.get_latent_representation(parted.held_out, "exogenous")
    k = len(model.perturbed_genes)
    table = own_latents(z[:, :k] - center[:k], modulator_shift(model, z[parted.codes == 0]), model, parted)
    return {"causal": model.get_latent_representation(parted.held_out), "own": z[:, :k]}, table


@torch.inference_mode()
def modulator_shift(model: RaptorGraphModel, z: np.ndarray) -> np.ndarray:
    """Mean shift of each perturbed gene's latent by the modulator, over cells with these latents, shape (k,)."""
    cells = torch.as_tensor(z, device=model.device)
    genes = torch.eye(len(model.perturbed_genes), device=model.device)
    modulator = model.module.modulator
    return np.array([float((modulator(cells, gene[None]) - cells)[:, i].mean()) for i, gene in enumerate(genes)])


def own_latents(shift: np.ndarray, by_modulator: np.ndarray, model: RaptorGraphModel, parted: Parted) -> pd.DataFrame:
    """How the own latent tells the held-out cells of each condition of one gene.

    Parameters
    ----------
    shift
        Held-out cells x perturbed genes: latents less the mean of the control cells that were fitted on.
    by_modulator
        Shift of each of them that the model applies itself, whose sign is the direction of the perturbation.
    model
        Names of the perturbed genes.
    parted
        The held-out cells.

    Returns
    -------
    Conditions x number of cells, share of cells whose own latent is the largest in its direction, mean rank of it,
    AUROC of it against control cells, its mean shift in that direction, and that by the modulator.
    """
    screen, genes = parted.screen, list(model.perturbed_genes)
    oriented = shift * np.where(by_modulator < 0, -1.0, 1.0)
    control, found = oriented[parted.codes == 0], {}
    for code, label in enumerate(screen.labels):
        cells = oriented[parted.codes == code]
        if screen.n_perturbed[code] != 1 or not len(cells):
            continue
        own = genes.index(screen.genes_of[label][0])
        ranks = metrics.own_latent_ranks(cells, np.full(len(cells), own))
        found[label] = {
            N_CELLS: len(cells),
            LARGEST: (ranks == 1).mean(),
            RANK: ranks.mean(),
            AUROC: metrics.auroc(cells[:, own], control[:, own]),
            SHIFT: cells[:, own].mean(),
            MODULATOR: abs(by_modulator[own]),
        }
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("perturbation")
