"""Checks of a trained network: numbers, latents, the graph, and values beyond what it can tell apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from raptorgraph._text import counted, listed, percent
from raptorgraph.model._latents import ACTIVE_KL
from raptorgraph.model._module import FARTHEST
from raptorgraph.nn._encoder import LOG_VARIANCES
from raptorgraph.nn._posterior_draws import standard_draws
from raptorgraph.screen._checks import NOTE, WARNING, Finding, NotChecked, note, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from raptorgraph.inference import EffectPosterior
    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.model._module import RaptorGraphModule

_UNKNOWN = ("edge_", "responses.")  # of which NaN says that it is not known
_N_DRAWS = 16  # of the latents, on which they are shifted
_NO_RESPONSE = 0.01  # of what the median latent does to the decoder's output
_SURE, _RARE = 0.9, 0.5  # probability and frequency of an edge
_MOST_CELLS = 4000  # that are encoded
_BEYOND = 0.02  # share of the values of a perturbation that the encoder does not tell apart
_AT_THE_END = 0.5  # share of the cells in which a latent has the largest or smallest variance that there is
_SATURATED = 0.6  # times the sum of two effects


def numbers(model: RaptorGraphModel) -> Iterator[Finding]:
    """Numbers of the network, the posterior and the history that are not finite."""
    module, found = model.module, list[str]()
    genes = np.zeros(module.config.n_genes, dtype=bool)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        unknown = name.startswith(_UNKNOWN)
        bad = ~torch.isfinite(tensor) & ~(torch.isnan(tensor) & unknown)
        if bool(bad.any()):
            found.append(name)
            genes |= _genes_of(bad.cpu().numpy(), len(genes))
    if model.has_posterior:
        for name, tensor in module.effects.fitted.to_tensors().items():
            bad = torch.isnan(tensor) if name == "lowest" else ~torch.isfinite(tensor)
            if name != "log_weights" and bool(bad.any()):
                found.append(f"posterior, {name}")
                genes |= _genes_of(bad.numpy(), len(genes))
    history = model.history or {}
    found += [f"history, {name}" for name, x in history.items() if not np.isfinite(x.to_numpy(float)).all()]
    if found:
        of_genes = [name for name, bad in zip(model.cells.var_names, genes, strict=True) if bad]
        yield warning(
            "Numbers of the model are not finite",
            f"They are in {listed(found)}. No answer of this model can be relied on.",
            "Train it again, with a lower learning rate (plan_kwargs={'lr': ...}) or without extreme values in the "
            "data; of a file, get another copy.",
            tuple(of_genes if of_genes and not genes.all() else found),
            named=tuple(of_genes if not genes.all() else ()),
        )


def _genes_of(bad: np.ndarray, n_genes: int) -> np.ndarray:
    """Genes to which these entries of a tensor belong, where one of its axes has the genes."""
    axes = [axis for axis, size in enumerate(bad.shape) if size == n_genes]
    if not axes:
        return np.zeros(n_genes, dtype=bool)
    return np.asarray(bad.any(axis=tuple(axis for axis in range(bad.ndim) if axis != axes[-1])))


# -- latents -----------------------------------------------------------------------------------------------------------
def latents(model: RaptorGraphModel) -> Iterator[Finding]:
    """Latents that say nothing of cells, or that do nothing to them."""
    size = latent_responses(model.module)
    names = np.asarray(model.latent_names)
    k = len(model.perturbed_genes)
    useless = names[size < _NO_RESPONSE * np.median(size)] if size.any() else names
    if len(useless):
        yield warning(
            f"{counted(len(useless), 'latent')} that the decoder does not read",
            "Shifting it changes the predicted expression of no gene, so that predicted cells of its perturbation are "
            "control cells.",
            "Train longer, and look whether the perturbation does anything (check “effects”).",
            tuple(useless),
        )
    if model.adata is None:
        return
    activity = model.latent_activity()
    collapsed = names[~activity["active"].to_numpy()]
    own = [name for name in collapsed if name in model.perturbed_genes]
    if own:
        yield Finding(
            WARNING if len(own) > k / 4 else NOTE,
            f"{counted(len(own), 'perturbed gene')} of {k:,} whose latent says nothing of a cell",
            f"It has collapsed: in control cells it stays at its prior (less than {ACTIVE_KL:g} nats), so that a cell "
            "does not show it. Mean effects and the graph do not depend on it; the latents of cells do.",
            "Do not compare cells by it. It comes of small effects and of few cells; the preset 'paper' has a strong "
            "KL that makes it common.",
            tuple(own),
        )
    rest = [name for name in collapsed if name not in model.perturbed_genes]
    if rest:
        yield note(
            f"{counted(len(rest), 'latent')} without a gene that {'is' if len(rest) == 1 else 'are'} not used",
            "What control cells differ by needs fewer of them. That does no harm.",
            f"A smaller n_latent, down to {k}, gives the same.",
            tuple(rest),
        )


@torch.inference_mode()
def latent_responses(module: RaptorGraphModule) -> np.ndarray:
    """How far the output of the decoder moves when a latent is shifted by one standard deviation, shape (d,)."""
    like, d = module.decoder.base, module.config.n_latent
    module.eval()
    z = standard_draws(_N_DRAWS, d, 0, like)
    decoder = module.decoder
    width = (decoder.dense[0] if decoder.linear is None else decoder.linear).weight.shape[1]
    covariates = like.new_zeros(len(z), width - d) if width > d else None
    before = module.decoder(module.graph(module.norm(z)), covariates)
    sizes = []
    for i in range(d):
        shifted = z.clone()
        shifted[:, i] += 1
        change = module.decoder(module.graph(module.norm(shifted)), covariates) - before
        sizes.append(float(change.square().mean(0).sum().sqrt()))
    return np.asarray(sizes)


# -- graph -------------------------------------------------------------------------------------------------------------
def graph(model: RaptorGraphModel) -> Iterator[Finding]:
    """Edges that rest on little."""
    yield from edges_of_few_cells(model.get_edges())


def edges_of_few_cells(edges: pd.DataFrame) -> Iterator[Finding]:
    """Edges without an order, or found in few resampled screens."""
    if edges.empty:
        yield note(
            "The graph has no edge",
            "The data do not show that one perturbed gene acts through another. That is no proof that none does.",
        )
        return
    for name, inside in edges.groupby("module", observed=True) if "module" in edges else ():
        genes = list(dict.fromkeys([*inside["source"], *inside["target"]]))
        yield warning(
            f"{counted(len(genes), 'gene')} that the data cannot order",
            "Their effects are nearly proportional, or one direction is found as often as the other.",
            "Do not read the edges among them as one gene acting through another.",
            tuple(genes),
            (f"{listed(genes)} ({name})",),
        )
    if "frequency" in edges and "probability" in edges:
        unstable = edges[(edges["probability"] >= _SURE) & (edges["frequency"] < _RARE)]
        if len(unstable):
            yield warning(
                f"{counted(len(unstable), 'edge')} of the graph with support from a few cells only",
                f"The probability is {_SURE:g} or more, and yet fewer than half of the resampled screens have it.",
                "Go by the frequency.",
                tuple(dict.fromkeys(gene for edge in unstable.itertuples() for gene in (edge.source, edge.target))),
                tuple(f"{edge.source} → {edge.target}" for edge in unstable.itertuples()),
            )


# -- saturation --------------------------------------------------------------------------------------------------------
def saturation(model: RaptorGraphModel) -> Iterator[Finding]:
    """Values and latents at the end of their range, and pairs that do much less than their sum."""
    if model.has_posterior:
        yield from _pairs(model)
    if model.adata is None:
        if not model.has_posterior:
            raise NotChecked("it needs the cells: load(folder, adata)")
        return
    screen = model.screen
    rows = np.unique(np.linspace(0, len(screen.codes) - 1, _MOST_CELLS).round().astype(int))
    beyond, ends = _at_the_end(model, rows)
    codes, n = screen.codes[rows], np.bincount(screen.codes[rows], minlength=len(screen.labels))
    share = np.bincount(codes, beyond, len(n)) / np.maximum(n, 1)
    far = {label: value for label, value in zip(screen.labels, share, strict=True) if value > _BEYOND}
    if far and model.module.config.perturbed_prior:  # which limits what the encoder reads
        yield warning(
            f"{counted(len(far), 'group')} of cells with values beyond what the encoder tells apart",
            "They are more than ten standard deviations from the mean of control cells, and are read as ten: latents "
            "of these cells do not show how strong the response is.",
            "Look for genes that controls do not express, and for cells of another type or of poor quality.",
            tuple(far),
            tuple(f"{label} ({percent(value)} of the values)" for label, value in far.items()),
        )
    stuck = [name for name, value in zip(model.latent_names, ends, strict=True) if value > _AT_THE_END]
    if stuck:
        yield warning(
            f"{counted(len(stuck), 'latent')} with a variance at the end of its range",
            "In most cells the encoder claims to know it exactly, or not at all: the training went astray.",
            "Train again with a lower learning rate (plan_kwargs={'lr': ...}).",
            tuple(stuck),
        )


def _pairs(model: RaptorGraphModel) -> Iterator[Finding]:
    posterior = model.module.effects
    design = posterior.fitted.measured.design
    scale, measured = posterior.combination_scale, design[design.sum(1) > 1]
    if scale < _SATURATED and len(measured) and _is_known(posterior, measured).any():
        yield note(
            f"Measured combinations do about {scale:.2f} times what the sum of their single effects would",
            "Effects saturate: where one gene has done what can be done, a second one adds little. Predicted "
            "combinations are scaled alike.",
            "Judge pairs against the median pair rather than against the sum.",
        )


@torch.inference_mode()
def _is_known(posterior: EffectPosterior, sets: torch.Tensor) -> torch.Tensor:
    """Whether the single effects of all genes of a set are larger than what is unknown of them."""
    mean, sd = posterior.mean_and_sd(torch.eye(sets.shape[1]))
    unknown = mean.square().sum(1) <= sd.square().sum(1)
    known: torch.Tensor = ~(sets.bool() & unknown).any(1)
    return known


@torch.inference_mode()
def _at_the_end(model: RaptorGraphModel, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the values of each cell that the encoder cuts off, and share of the cells at either end by latent."""
    module, latents, beyond, ends = model.module, model.latents, [], []
    for tensors in model.cells.batches(model.cells.query(), rows=rows):
        expression = module.expression(tensors)
        far = ((expression - module.center) / module.spread).abs() > FARTHEST
        beyond.append(far.float().mean(1).cpu())
        log_var = latents.encode(tensors)[1]
        ends.append(((log_var <= LOG_VARIANCES[0]) | (log_var >= LOG_VARIANCES[1])).float().cpu())
    return torch.cat(beyond).numpy(), torch.cat(ends).mean(0).numpy()
