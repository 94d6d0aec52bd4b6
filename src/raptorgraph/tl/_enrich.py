"""Gene set enrichment of the effects that a model predicts (paper, section D.6)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph.pp import format_perturbation, parse_perturbation
from raptorgraph.pp._gene_sets import match_gene_sets, read_gene_sets

if TYPE_CHECKING:
    from raptorgraph.model import RaptorGraphModel

_SCORES = {"ES": "ES", "NES": "NES", "NOM p-val": "p", "FDR q-val": "FDR"}


def enrich(
    model: RaptorGraphModel,
    gene_sets: Mapping[str, Iterable[str]] | str | Path | pd.DataFrame,
    *,
    n_cells: int = 256,
    min_size: int = 5,
    max_size: int = 500,
    n_permutations: int = 1000,
    exclude_targets: bool = True,
    permute: int | None = None,
    seed: int = 0,
    threads: int = 1,
) -> pd.DataFrame:
    """Ask which gene sets each latent moves.

    Each latent that belongs to a perturbed gene is shifted as the model learned it, control cells are decoded with
    and without the shift, and the genes, ranked by the mean difference, go through a preranked gene set enrichment
    analysis (RAPTORGraph paper, section D.6).

    Parameters
    ----------
    model
        A trained model.
    gene_sets
        Mapping, path of a GMT file, or table: see :func:`raptorgraph.pp.read_gene_sets`.
    n_cells
        At most so many control cells enter the mean effects.
    min_size, max_size
        Smallest and largest number of genes of a set among those of the model.
    n_permutations, exclude_targets, permute, seed, threads
        As in :func:`enrich_effects`. The control cells are drawn by ``scvi.settings.seed``.

    Returns
    -------
    pandas.DataFrame
        One row for each latent and gene set; ``latent`` (the perturbed gene) and the other columns of
        :func:`enrich_effects`.

    Raises
    ------
    KeyError, TypeError, ValueError, FileNotFoundError
        As in :func:`enrich_effects`.
    """
    gene_sets = read_gene_sets(gene_sets)
    spelling = {key: model.setup_args[key] for key in ("control", "delimiter")}
    labels = [format_perturbation([gene], **spelling) for gene in model.perturbed_genes]
    table = enrich_effects(
        model.predict_effects(labels, n_cells=n_cells),
        gene_sets,
        min_size=min_size,
        max_size=max_size,
        n_permutations=n_permutations,
        exclude_targets=exclude_targets,
        permute=permute,
        seed=seed,
        threads=threads,
        **spelling,
    )
    return table.rename(columns={"perturbation": "latent"})


def enrich_effects(
    effects: pd.DataFrame,
    gene_sets: Mapping[str, Iterable[str]] | str | Path | pd.DataFrame,
    *,
    min_size: int = 5,
    max_size: int = 500,
    n_permutations: int = 1000,
    exclude_targets: bool = True,
    permute: int | None = None,
    control: str | Sequence[str] = "control",
    delimiter: str = "+",
    seed: int = 0,
    threads: int = 1,
) -> pd.DataFrame:
    r"""Preranked gene set enrichment analysis of effects, measured or predicted.

    Genes are ranked by their effect e, the highest first (ties in the order of the columns). The score ES of a set S
    of the N genes is the largest deviation from zero, with its sign, of the running sum

    .. math::
        \frac{\sum_{g \le i,\, g \in S} |e_g|}{\sum_{g \in S} |e_g|} - \frac{\#\{g \le i,\, g \notin S\}}{N - |S|},

    and NES is ES over the mean of the scores of the same sign of random sets of that size (Subramanian et al. 2005,
    with weight 1, by :func:`gseapy.prerank`).

    Parameters
    ----------
    effects
        Perturbations (labels) x genes, on the expression scale.
    gene_sets
        Mapping, path of a GMT file, or table: see :func:`raptorgraph.pp.read_gene_sets`.
    min_size, max_size
        Smallest and largest number of genes of a set among those of `effects`.
    n_permutations
        Random sets for each gene set.
    exclude_targets
        Leave the perturbed genes themselves out of the ranking of their perturbation: their own change, mostly the
        largest, is the intervention, not a response to it.
    permute
        Seed of a permutation of the gene labels, the same for all perturbations: the same computation on effects that
        have nothing to do with the sets, as a control. Default: no permutation.
    control, delimiter
        Spelling of the labels.
    seed
        Of the random sets. The same arguments give the same result, whatever `threads`; each row depends neither on
        the other perturbations nor on their order.
    threads
        Number of threads.

    Returns
    -------
    pandas.DataFrame
        One row for each perturbation and gene set, in the order given:

        - ``perturbation``, ``gene_set``;
        - ``ES``, ``NES``: positive where the set goes up;
        - ``p``: share of random sets of the same sign that score as high; 0 where none does, to be read as below
          ``1 / n_permutations``;
        - ``FDR``: false discovery rate among the sets of this perturbation;
        - ``n_genes``: genes of the set in the ranking;
        - ``leading_edge``: genes that make up the score, joined by ``";"``;
        - ``magnitude``: Euclidean norm of the ranked effect.

        The scores are NaN, and the leading edge is empty, where the effect is zero on the whole set.

    Raises
    ------
    FileNotFoundError
        If there is no such GMT file.
    KeyError
        If a table of gene sets lacks a column.
    TypeError
        If `effects` is not a table, or `gene_sets` none of the above.
    ValueError
        If effects are missing or infinite, a gene is there twice, no gene set has enough genes, or a number is out
        of range.

    Notes
    -----
    The scores do not depend on the size of an effect: the effect of a perturbation that does next to nothing is
    ranked like any other, which is what ``magnitude`` is for. Random sets ignore that the genes of a set are
    correlated, so p and FDR are optimistic (Goeman and Buehlmann 2007); compare with `permute`, and with measured
    effects. The FDR is that of gseapy, and does not bound the chance of any finding: of rankings without signal about
    one in eight has a set below 0.05 (20 sets of 10 of 200 genes, 120 rankings), while p keeps its level.
    No correction is made for the number of perturbations.
    """
    _check_effects(effects)
    if n_permutations < 1 or threads < 1:
        raise ValueError(f"n_permutations={n_permutations!r} and threads={threads!r} must be at least 1.")
    genes = effects.columns.astype(str).to_numpy()
    position = {gene: k for k, gene in enumerate(genes)}
    sets = match_gene_sets(read_gene_sets(gene_sets), list(genes), min_size=min_size, max_size=max_size)
    members = {name: np.array([position[gene] for gene in found]) for name, found in sets.items()}
    key = None if permute is None else np.random.default_rng(permute).permutation(len(genes))

    tables = []
    for label, effect in zip(effects.index, effects.to_numpy(dtype=np.float64), strict=True):
        targets = parse_perturbation(label, control=control, delimiter=delimiter) if exclude_targets else ()
        ranked = np.setdiff1d(np.arange(len(genes)), [position[gene] for gene in targets if gene in position])
        values = effect.copy()
        if key is not None:
            values[ranked] = effect[ranked[np.argsort(key[ranked])]]
        inside = {name: np.intersect1d(found, ranked) for name, found in members.items()}
        table = _prerank(values, ranked, inside, genes, n_permutations, seed, threads)
        table.insert(0, "perturbation", label)
        table["magnitude"] = np.linalg.norm(effect[ranked])
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _check_effects(effects: pd.DataFrame) -> None:
    if not isinstance(effects, pd.DataFrame):
        raise TypeError(f"effects must be a table of perturbations x genes, not {type(effects).__name__}.")
    if effects.empty:
        raise ValueError(f"effects of shape {effects.shape} has no perturbations or no genes.")
    if not effects.columns.is_unique:
        raise ValueError(f"Gene {effects.columns[effects.columns.duplicated()][0]!r} is there twice in effects.")
    bad = effects.index[~np.isfinite(effects.to_numpy(dtype=np.float64)).all(axis=1)]
    if len(bad):
        raise ValueError(f"The effects of {bad[0]!r} are not all finite numbers: drop the genes or fill them.")


def _prerank(
    values: np.ndarray,
    ranked: np.ndarray,
    members: Mapping[str, np.ndarray],
    genes: np.ndarray,
    n_permutations: int,
    seed: int,
    threads: int,
) -> pd.DataFrame:
    """Table of the gene sets for one ranking of the genes at the positions `ranked`."""
    import gseapy

    table = pd.DataFrame({"gene_set": list(members), **dict.fromkeys(_SCORES.values(), np.nan)})
    table["n_genes"] = [len(found) for found in members.values()]
    table["leading_edge"] = ""
    # gseapy's compiled part aborts on a set without any effect
    moved = {name: found for name, found in members.items() if values[found].any()}
    if not moved:
        return table
    order = ranked[np.argsort(-values[ranked], kind="stable")]
    # Codes in the place of names, since gseapy changes the case of some. It prints a warning of ties, settled above.
    with contextlib.redirect_stderr(io.StringIO()):
        result = gseapy.prerank(
            pd.Series(values[order], index=[f"G{k}" for k in order]),
            {name: [f"G{k}" for k in found] for name, found in moved.items()},
            min_size=1,
            max_size=len(ranked),
            permutation_num=n_permutations,
            ascending=None,
            threads=threads,
            seed=seed,
            no_plot=True,
        )
    result = result.res2d.set_index("Term").reindex(table["gene_set"])
    for theirs, ours in _SCORES.items():
        table[ours] = result[theirs].to_numpy(dtype=np.float64)
    codes = result["Lead_genes"].fillna("").str.split(";")
    table["leading_edge"] = [";".join(genes[int(code[1:])] for code in found if code) for found in codes]
    return table
