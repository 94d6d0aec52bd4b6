"""Experiment ``spillover``: how far an intervention on one gene spreads over the latents (sections 2.4 and B.1).

Each encoder is trained on control and singles, and compared with itself as it was drawn. Three shares of a squared
response, each off one latent: 0 is atomic, ``(d - 1) / d`` is a response spread evenly over d latents, the dense limit
(of responses of random size somewhat less lies off the best latent; see the untrained encoders).

- Jacobian: the response of z to a change of the perturbed gene alone, for genes in the panel;
- real cells: the shift of z from control to really perturbed cells, without its sampling variance;
- modulator: the shift that the model itself applies to z, at its mean over control cells.

``own`` is the latent that the model assigns to the gene: fixed in ours, that of the largest softmax weight in dVAE and
SENA; ``best`` is the one that responds most. Our preconditioned encoder reads a perturbed gene into its own latent
only, so its Jacobian is atomic by construction, trained or not; real perturbed cells differ downstream as well, and
what keeps their shift on one latent is the perturbed prior of the default. The paper's LayerNorm ties the latents to
each other again: z before it is shown beside. Shares are means over perturbed genes.

``raptorgraph benchmark spillover --screen FILE``
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from raptorgraph.baselines import SENA, Baseline, DiscrepancyVAE
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._methods import check_methods, chosen_methods, method_of
from raptorgraph.benchmark._report import all_rows, in_order, mean_and_sd, wide
from raptorgraph.benchmark._settings import Part, Settings, Unit, units_by_seed
from raptorgraph.evaluation._methods import RaptorGraphMethod
from raptorgraph.nn._posterior_draws import posterior_expectation
from raptorgraph.pl._figure import BLUE, GRAY, ORANGE
from raptorgraph.pl._panels import dots, shared_legend
from raptorgraph.tl import spillover_index

if TYPE_CHECKING:
    from collections.abc import Callable

    from raptorgraph.benchmark._experiments import Parts, Tables
    from raptorgraph.screen import Screen

OPTIONS = ("methods", "gene_sets", "max_epochs")
METHODS = ("raptorgraph", "raptorgraph paper", "dVAE", "SENA")
BEFORE_NORM = ", before LayerNorm"
LIMIT = "dense limit, (d - 1) / d"
SHARES = {
    "jacobian_own": "Jacobian, own",
    "jacobian_best": "Jacobian, best",
    "real_own": "real cells, own",
    "real_best": "real cells, best",
    "modulator": "modulator",
}
_NO_STEP = 1e-30  # a learning rate at which no weight changes
_MOST_CONTROLS = 500


@dataclass(frozen=True)
class Encoder:
    """What spillover is measured on.

    Attributes
    ----------
    posterior
        Maps cells x genes to mean and log variance of z.
    norm
        What z passes on its way to the graph.
    own
        Latent that the model assigns to each perturbed gene.
    shift
        Shift of z by each perturbed gene, perturbed genes x latents.
    """

    posterior: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    norm: Callable[[torch.Tensor], torch.Tensor]
    own: dict[str, int]
    shift: pd.DataFrame

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        """Posterior mean of z as the graph takes it, cells x latents."""
        return posterior_expectation(self.norm, *self.posterior(x))


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """One unit for each method, trained or not, and seed."""
    screen = load_screen(settings, settings.seeds[0])
    if not screen.singles:
        raise ValueError("The screen has no condition of one gene, whose spillover could be measured.")
    methods = chosen_methods(settings, METHODS, "has no encoder or is unknown")
    check_methods(methods, settings, screen.setup, screen.adata.var_names)
    pieces = [{"method": method, "state": state} for method in methods for state in ("trained", "untrained")]
    return units_by_seed(settings, [(f"{piece['method']}-{piece['state']}", piece) for piece in pieces])


def work(unit: Unit, settings: Settings) -> Part:
    """Train, or not, and measure."""
    screen, name = load_screen(settings, unit.seed), unit.options["method"]
    if unit.options["state"] == "trained":
        method = method_of(name, settings, screen.setup, unit.seed)
    else:
        method = untrained(name, settings, screen, unit.seed)
    method.fit(screen.cells(screen.singles))
    encoder = encoder_of(method)
    tables = {name: measure(encoder, screen, unit.seed)}
    if isinstance(method, RaptorGraphMethod) and isinstance(method.model.module.norm, torch.nn.LayerNorm):
        before = Encoder(encoder.posterior, torch.nn.Identity(), encoder.own, encoder.shift)
        tables[name + BEFORE_NORM] = measure(before, screen, unit.seed)
    rows = [
        table.reset_index().melt("gene", var_name="metric", value_name="value").assign(method=key)
        for key, table in tables.items()
    ]
    return Part(pd.concat(rows, ignore_index=True).assign(n_latent=encoder.shift.shape[1]))


def untrained(name: str, settings: Settings, screen: Screen, seed: int) -> Baseline:
    """The method with the weights that were drawn for it: one epoch of steps of no length."""
    method = method_of(name, settings, screen.setup, seed)
    if isinstance(method, RaptorGraphMethod):
        method.max_epochs = 1
        method.plan_kwargs["lr"] = _NO_STEP
        method.model_kwargs["perturbed_prior"] = False  # with it the training starts from a linear model of the cells
        return method
    arguments = {"max_epochs": 1, "lr": _NO_STEP, "seed": seed, **screen.setup}
    return SENA(settings.options["gene_sets"], **arguments) if name == "SENA" else DiscrepancyVAE(**arguments)


def encoder_of(method: Baseline) -> Encoder:
    """Encoder of a fitted method, for genes in the order of its training data."""
    if isinstance(method, RaptorGraphMethod):
        model, module = method.model, method.model.module.eval().cpu()
        order = torch.as_tensor(method.var_names.get_indexer(model.var_names_))
        genes, strength = model.perturbed_genes, module.modulator.strength.detach().numpy()
        shift = np.pad(np.diag(strength), ((0, 0), (0, len(model.latent_names) - len(genes))))
        own = {gene: k for k, gene in enumerate(genes)}
        table = pd.DataFrame(shift, index=genes, columns=model.latent_names)
        return Encoder(lambda x: module.encode(x[:, order]), module.norm, own, table)
    own = dict(zip(method.targets_.index, method.targets_.to_numpy().argmax(axis=1).tolist(), strict=True))
    shift = method.targets_.mul(method.strength_, axis=0)
    return Encoder(method.module_.encoder, torch.nn.Identity(), own, shift)


def measure(encoder: Encoder, screen: Screen, seed: int) -> pd.DataFrame:
    """Shares off one latent, for each gene that was perturbed alone (index ``gene``), with the columns of `SHARES`."""
    rng = np.random.default_rng([seed, 4])
    control = screen.rows(screen.control)
    control = np.sort(rng.choice(control, min(len(control), _MOST_CONTROLS), replace=False))
    x = _cells(screen, control)
    with torch.no_grad():
        mean, log_var = encoder.posterior(x)
        noise = torch.as_tensor(rng.standard_normal(mean.shape), dtype=mean.dtype)
        drawn = mean + torch.exp(0.5 * log_var) * noise
        scale = encoder.norm(drawn).std(0).double().numpy()
        weight = np.divide(1.0, scale**2, out=np.zeros_like(scale), where=scale > 0)  # as in spillover_index
        modulator = {}
        for gene, shift in encoder.shift.iterrows():
            step = torch.tensor(shift.to_numpy(), dtype=mean.dtype)
            response = (encoder.norm(drawn + step) - encoder.norm(drawn)).double().square().mean(0).numpy()
            modulator[gene] = off_own(response * weight, encoder.own[gene])
    genes = {screen.genes_of[label][0]: label for label in screen.singles}
    columns = {gene: k for k, gene in enumerate(screen.adata.var_names)}
    table = spillover_index(
        encoder.mean,
        x,
        {gene: _cells(screen, screen.rows(label)) for gene, label in genes.items()},
        {gene: columns.get(gene) for gene in genes},
        encoder.own,
        scale=scale,
    )
    return table.assign(modulator=pd.Series(modulator))[list(SHARES)]


def off_own(response: np.ndarray, own: int) -> float:
    """Share of a response, shape (latents,), that is off the given latent; NaN without a response."""
    total = response.sum()
    return float(1 - response[own] / total) if total > 0 else float("nan")


def _cells(screen: Screen, rows: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(screen.expression[rows].toarray(), dtype=torch.float32)


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``spillover`` (to read), ``spillover_long``, and ``spillover_genes`` with every perturbed gene."""
    rows = all_rows(parts, "state")
    rows["metric"] = rows["metric"].map(SHARES)
    by = ["method", "state"]
    means = rows.groupby([*by, "metric", "seed", "n_latent"], sort=False)["value"].mean().reset_index()
    limits = means.drop_duplicates([*by, "seed"]).assign(metric=LIMIT, value=lambda t: 1 - 1 / t["n_latent"])
    summary = mean_and_sd(pd.concat([means, limits], ignore_index=True), [*by, "metric"])
    summary = in_order(summary, method=summary["method"].unique(), state=("trained", "untrained"))
    panel = rows[rows["metric"] == SHARES["jacobian_own"]].groupby([*by, "seed"])["value"].count()
    panel = panel.groupby(by).mean()
    table = wide(summary, by).fillna("-")
    counts = [f"{panel[key]:g}" for key in zip(table["method"], table["state"], strict=True)]
    table.insert(2, "genes with a Jacobian", counts)
    return {
        "spillover": table,
        "spillover_long": summary,
        "spillover_genes": mean_and_sd(rows, [*by, "gene", "metric"]),
    }


# -- figure ----------------------------------------------------------------------------------------------------------
def draw(tables: Tables) -> Figure:
    """Each share of every encoder, trained and untrained, with the dense limit."""
    summary = tables["spillover_long"]
    panels = [metric for metric in SHARES.values() if metric in set(summary["metric"])]
    methods, colors = list(summary["method"].unique())[::-1], {"trained": BLUE, "untrained": ORANGE}
    figure = Figure(figsize=(2.2 + 2.2 * len(panels), 1.3 + 0.5 * len(methods)), layout="constrained")
    y = np.arange(len(methods))
    for ax, metric in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        for side, (state, color) in zip((0.2, -0.2), colors.items(), strict=True):
            here = summary[summary["state"] == state].set_index(["metric", "method"])
            means = here["value_mean"].unstack().reindex(columns=methods)
            dots(ax, here.loc[metric], methods, side, color=color, markersize=5, label=state)
            for at in y[means.loc[metric].isna()]:
                ax.text(0.02, at + side, "undefined", color=GRAY, va="center", fontsize=8)
            style = {"color": GRAY, "linestyle": "--", "linewidth": 1, "label": "dense limit"}
            ax.vlines(means.loc[LIMIT], y - 0.45, y + 0.45, **style)
        ax.set(xlim=(-0.05, 1.05), title=metric)
        ax.set_yticks(y, methods)
        ax.grid(axis="y", color="0.92")
    figure.supxlabel("share of the squared response off that latent (0: atomic)", fontsize=10)
    shared_legend(figure, "outside upper right")
    return figure


SPILLOVER = Experiment(
    "spillover", "Share of a single-gene intervention off one latent", OPTIONS, units, work, tables, draw
)
