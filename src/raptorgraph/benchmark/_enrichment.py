"""Experiment ``enrichment``: which gene sets the latents' effects are enriched for (Figure S7, sections D.6 and F.2).

The effect of each latent that owns a gene (the predicted effect of that gene's perturbation) ranks the genes for a
preranked GSEA. Three questions are asked of every model, over all latents and sets: how many are significant (FDR
below 0.05); how many of these there are when the gene labels are permuted, which is what the search finds in nothing;
and whether the enrichment scores (NES) are those of the measured effects of the same perturbations, without which a
significant set tells about the model and not about the cells.

The fits are those of ``prediction`` on singles alone, in the regime ``singles`` or, with ``--regimes paper``, in that
of the publication.

``raptorgraph benchmark enrichment --screen FILE --gene-sets SETS.gmt``
"""

from __future__ import annotations

import os
import re
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raptorgraph import pl, pp, tl
from raptorgraph.benchmark import _fits as fits
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._methods import chosen_methods
from raptorgraph.benchmark._report import in_order, mean_and_sd, wide
from raptorgraph.evaluation._methods import MODELS, OURS, ordered
from raptorgraph.pl._panels import dot_panel

if TYPE_CHECKING:
    from raptorgraph.benchmark._experiments import Parts, Tables
    from raptorgraph.benchmark._settings import Settings, Unit
    from raptorgraph.screen import Screen

OPTIONS = ("methods", "regimes", "gene_sets", "max_epochs", "n_repeats", "n_permutations")
MEASURED = "measured effects"
_FDR = 0.05
_N_SETS = 25  # in the heat map
# NES of the latents that the paper names (section F.2)
_FIGURE_S7 = {
    ("EGR1", "E2F TARGETS"): -1.79,
    ("EGR1", "G2M CHECKPOINT"): -1.72,
    ("JUN", "E2F TARGETS"): -1.69,
    ("JUN", "G2M CHECKPOINT"): -1.63,
    ("TP73", "G2M CHECKPOINT"): -1.60,
}


def units(settings: Settings) -> list[Unit]:
    """The models' units of ``prediction`` that fit singles alone."""
    if not settings.options.get("gene_sets"):
        raise ValueError("The experiment needs gene sets: give a GMT file as gene_sets.")
    pp.read_gene_sets(settings.options["gene_sets"])  # raises on a bad file before any fit
    fits.regimes_of_singles(settings)
    return fits.units_of_singles(settings, methods=chosen_methods(settings, MODELS, "has no latents"))


def tables(parts: Parts, settings: Settings) -> Tables:
    """``enrichment`` (to read), ``enrichment_long``, and ``enrichment_sets`` (every latent and set).

    Where the screen and the sets have those that the paper names, ``enrichment_published`` has their NES.
    """
    found, rows = [], []
    regimes = fits.regimes_of_singles(settings)
    for seed, regime in product(settings.seeds, regimes):
        screen = load_screen(settings, seed)
        given = {MEASURED: screen.effects.loc[screen.singles]}
        effects = fits.predicted(parts, regime, screen, seed, roles=("further",))
        given |= {name: frame for (name, _), frame in effects.items()}
        true = None
        for name, table in given.items():
            sets = _enrich(table.loc[screen.singles], screen, settings, seed)
            null = _enrich(table.loc[screen.singles], screen, settings, seed, permute=seed)
            true = sets if true is None else true
            rows.append((seed, regime, name, "significant", _significant(sets)))
            rows.append((seed, regime, name, "significant, permuted genes", _significant(null)))
            rows.append((seed, regime, name, "NES as measured, Pearson", _agreement(sets, true)))
            found.append(sets.assign(method=name, seed=seed, regime=regime))
    long = pd.DataFrame(rows, columns=["seed", "regime", "method", "metric", "value"])
    summary = mean_and_sd(long, ["regime", "method", "metric"])
    order = [MEASURED, *ordered(name for name in summary["method"] if name != MEASURED)]
    summary = in_order(summary, regime=regimes, method=order)
    every = pd.concat(found, ignore_index=True)
    named = _named(every)
    return {
        "enrichment": wide(summary, ["regime", "method"]).fillna("-"),
        "enrichment_long": summary,
        "enrichment_sets": every,
        **({} if named.empty else {"enrichment_published": named}),
    }


def _named(sets: pd.DataFrame) -> pd.DataFrame:
    """NES of the latents and sets that the paper names, published and of every method (mean and SD over seeds)."""
    plain = sets["gene_set"].map(_plain_name)
    published = [_FIGURE_S7.get(key, np.nan) for key in zip(sets["perturbation"], plain, strict=True)]
    here = sets.assign(gene_set=plain, published=published, metric=sets["method"], value=sets["NES"].astype(float))
    here = here[here["published"].notna()]
    if here.empty:
        return here
    by = ["regime", "perturbation", "gene_set", "published", "metric"]
    found = wide(mean_and_sd(here, by), by[:-1]).fillna("-")
    return found.rename(columns={"perturbation": "latent", "published": "NES, published"})


def _plain_name(name: str) -> str:
    """Name of a set in capitals and without its collection, so that the spellings of one set are the same."""
    words = re.sub(r"[^0-9A-Z]+", " ", str(name).upper().replace("-", "")).strip()
    return words.removeprefix("HALLMARK ")


def _enrich(
    effects: pd.DataFrame, screen: Screen, settings: Settings, seed: int, permute: int | None = None
) -> pd.DataFrame:
    return tl.enrich_effects(
        effects.astype(float),
        settings.options["gene_sets"],
        n_permutations=settings.option("n_permutations", 1000, quick=20),
        min_size=2 if settings.quick else 5,
        seed=seed,
        permute=permute,
        threads=os.cpu_count() or 1,
        **screen.spelling,
    )


def _significant(sets: pd.DataFrame) -> float:
    """Share of latents and sets with a false discovery rate below 0.05."""
    return float((sets["FDR"] < _FDR).mean())


def _agreement(sets: pd.DataFrame, true: pd.DataFrame) -> float:
    both = sets.merge(true, on=["perturbation", "gene_set"])[["NES_x", "NES_y"]].dropna()
    if len(both) < 2 or both.std().min() == 0:
        return np.nan
    return float(np.corrcoef(both.to_numpy().T)[0, 1])


def draw(tables: Tables) -> Figure:
    """Shares and agreement of every model, and a heat map of NES for the first of our models; of the first regime."""
    summary, sets = tables["enrichment_long"], tables["enrichment_sets"]
    summary, sets = (table[table["regime"] == summary["regime"].iloc[0]] for table in (summary, sets))
    methods = list(dict.fromkeys(summary["method"]))
    ours = next((name for name in OURS if name in methods), methods[0])
    here = sets[sets["method"] == ours].groupby(["perturbation", "gene_set"], as_index=False, observed=True)
    means = here[["NES", "FDR"]].mean()
    n_sets, n_latents = min(_N_SETS, means["gene_set"].nunique()), means["perturbation"].nunique()

    figure = Figure(figsize=(5 + 0.28 * n_latents, 4 + 0.2 * n_sets), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1, 2.2))
    top, bottom = (figure.add_subfigure(grid[row]) for row in range(2))
    metrics_ = ("significant", "significant, permuted genes", "NES as measured, Pearson")
    shares = summary[summary["metric"].isin(metrics_[:2])]
    most = float((shares["value_mean"] + shares["value_sd"].fillna(0)).max())
    limits = {metrics_[0]: (0.0, most), metrics_[1]: (0.0, most), metrics_[2]: (-1.0, 1.0)}
    for k, (ax, metric) in enumerate(zip(top.subplots(1, 3), metrics_, strict=True)):
        values = summary[summary["metric"] == metric].set_index("method")
        dot_panel(ax, values, methods, {}, title=metric, labels=k == 0, limits=limits[metric])
    ax = pl.enrichment(means, n_sets=n_sets, n_latents=n_latents, fdr=_FDR, ax=bottom.subplots())
    ax.set_title(f"{ours}: NES (mean over seeds), dots where the mean FDR is below {_FDR}", fontsize=9)
    return figure


ENRICHMENT = Experiment(
    "enrichment", "Gene sets of the latents", OPTIONS, units, fits.work, tables, draw, fits.WORK_OPTIONS
)
