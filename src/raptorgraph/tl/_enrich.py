"""Gene set enrichment of what latents and perturbations do (paper, section D.6)."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph._arguments import check_integer
from raptorgraph._docs import docs
from raptorgraph._progress import progress_argument, progress_bar
from raptorgraph.pp import parse_perturbation
from raptorgraph.screen._names import stripped
from raptorgraph.screen._noise import false_discovery_rates
from raptorgraph.tl._label_null import check_null, clear_latents, label_null
from raptorgraph.tl._latent_programs import latent_programs
from raptorgraph.tl._parallel import in_threads
from raptorgraph.tl._set_scores import Ranking, check_method, rank, read_sets, score

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from raptorgraph.model import RaptorGraphModel


@progress_argument()
@docs.dedent
def enrich(
    model: RaptorGraphModel,
    gene_sets: Mapping[str, Iterable[str]] | str | Path | pd.DataFrame,
    *,
    activation: str = "unit",
    method: str = "gsea",
    n_cells: int = 256,
    min_size: int = 5,
    max_size: int = 500,
    n_permutations: int = 1000,
    n_null: int = 1000,
    exclude_targets: bool = True,
    permute: int | None = None,
    seed: int = 0,
    threads: int = 1,
    progress: bool | None = None,
) -> pd.DataFrame:
    r"""Ask which gene sets each latent moves, and whether the cells support it.

    The genes are ranked by what the latent does to them (:func:`latent_programs`), and the ranking goes through a
    preranked gene set enrichment analysis (RAPTORGraph paper, section D.6). Two tests then use the measured cells of
    the perturbation, without the model: whether its effect stands out from sampling noise at all, and whether the gene
    set changes by more than noise.

    Parameters
    ----------
    model
        A trained model, with its data; without them for ``activation="learned"`` where `n_null` is 0.
    gene_sets
        Mapping, path of a GMT file, table, or name of a library: see :func:`raptorgraph.pp.read_gene_sets`. The
        methods ``"ulm"`` and ``"mlm"`` also read a column ``weight`` of a table.
    activation
        ``"unit"``, what the network makes of a shift of each latent, those without a gene included; or ``"learned"``,
        the posterior's effects of the perturbed genes. See :func:`latent_programs`, which says which is nearer to the
        truth.
    method
        - ``"gsea"``: preranked GSEA by gseapy;
        - ``"decoupler_gsea"``: the same by decoupler (``pip install "raptorgraph[decoupler]"``), whose random sets
          are others;
        - ``"ulm"``, ``"mlm"``: decoupler's linear models of the effects on the membership of a set, of each set by
          itself or of all at once, so that sets which share genes do not share what these do.
    n_cells
        Largest number of control cells that are decoded with ``activation="unit"``.
    min_size, max_size
        Smallest and largest number of genes of a set among those of the model.
    n_permutations
        Random sets for each gene set.
    n_null
        Pseudo-perturbations of each number of cells (powers of two); 0 to leave out the tests on cells.
    exclude_targets, permute
        As in :func:`enrich_effects`. Whether an effect stands out is asked without the perturbed gene in any case.
    seed
        Seed of the random sets, the pseudo-perturbations and ``activation="unit"``. The same arguments give the same
        result, whatever `threads`.
    threads
        Latents analyzed at a time, for ``"gsea"``; decoupler is asked for one at a time.
    %(progress)s

    Returns
    -------
    pandas.DataFrame
        One row for each latent and gene set, with ``latent`` (the perturbed gene, or ``latent_<i>``), the other columns
        of :func:`enrich_effects`, and unless `n_null` is 0

        - ``change``: measured mean effect on the genes of the set minus that on all other genes, in the cells of the
          perturbation, on the expression scale;
        - ``p_null``: probability of a change of that size, up or down, in control cells (see Notes);
        - ``FDR_null``: false discovery rate by ``p_null`` among the sets of this latent (Benjamini and Hochberg);
        - ``p_effect``: probability that control cells differ from other control cells as much as the cells of this
          perturbation do;
        - ``stands_out``: whether the false discovery rate by ``p_effect`` among all latents is at most 0.05.

        For latents without a gene, which have no cells, these are NaN, and ``stands_out`` says whether the latent is
        active (``model.latent_activity``).

    Raises
    ------
    ConnectionError, FileNotFoundError, KeyError, TypeError, ValueError
        As in :func:`enrich_effects` and :func:`raptorgraph.pp.read_gene_sets`; if `activation` is unknown, and if the
        model has no data and `n_null` is not 0 or `activation` is ``"unit"``.
    ModuleNotFoundError
        If the method needs decoupler, which is not installed.

    See Also
    --------
    raptorgraph.tl.annotate_latents : One label for each latent, from this table.

    Notes
    -----
    FDR and FDR_null answer two questions, and a set should pass both (Efron and Tibshirani 2007). FDR compares the set
    with random sets of genes: is this set special among all genes? It ignores that the genes of a set rise and fall
    together from cell to cell, so that a chance difference between two groups of cells (in the cell cycle, say) moves
    the whole set. FDR_null compares cells with cells and keeps these correlations: control cells, as many as the
    perturbation has (the power of two below, at most 512 and half of them), are drawn at random and their effect
    against the other controls is measured like any other, `n_null` times, within batches. With v the sampling variances
    of the effect and of the pseudo-perturbations, their changes are scaled by :math:`\mathrm{median}_g (v_g / v_g^0)
    ^{1/2}`, since numbers of cells differ. Probabilities beyond the largest draw are those of a gamma distribution with
    the moments of the draws. Unlike NES, a change has a size, which noise does not reach however coherent a set is:
    comparing NES with those of pseudo-perturbations would say little, as they are bounded.

    ``p_effect`` is twice the smaller of two p-values: of the mean over genes of :math:`e_g^2 / v_g`, for broad effects,
    and of its mean over the ten largest, for sparse ones. Genes count that at least ten control cells (a tenth, of few)
    show. What all cells of a perturbation share and other cells do not, such as a clone or a second target of the
    guide, stands out like an effect.

    The cells of a gene that was never perturbed alone are those of its combinations: its effect is what least squares
    takes for its share if effects add up, and genes that were only perturbed together share theirs.

    The effect of a perturbation whose own cells show little is borrowed from perturbations like it, by the posterior
    and by the network that follows it, and so are its gene sets: they are in the table, and are not reliable where
    ``stands_out`` is False.

    Examples
    --------
    >>> table = rg.tl.enrich(model, gene_sets, n_permutations=100, n_null=100)
    >>> table.shape == (len(model.latent_names) * len(gene_sets), 14)
    True
    >>> learned = rg.tl.enrich(model, gene_sets, activation="learned", n_permutations=100, n_null=0)
    >>> learned["latent"].nunique() == len(model.perturbed_genes)
    True
    """
    check_method(method)
    check_null(model, n_null)
    sets, weights = read_sets(gene_sets, model.var_names_, min_size, max_size, method)
    _check_numbers(n_permutations, threads, seed, permute)
    programs = latent_programs(model, activation=activation, n_cells=n_cells, seed=seed)
    perturbed = set(model.perturbed_genes)
    excluded = [[name] if exclude_targets and name in perturbed else [] for name in programs.index]
    rankings = rank(programs, excluded, sets, weights, permute)
    table = _score(programs, rankings, method, n_permutations, seed, threads)
    table = table.rename(columns={"perturbation": "latent"})
    return _with_null(table, model, programs.index, rankings, n_null, seed) if n_null else table


@progress_argument()
@docs.dedent
def enrich_effects(
    effects: pd.DataFrame,
    gene_sets: Mapping[str, Iterable[str]] | str | Path | pd.DataFrame,
    *,
    method: str = "gsea",
    min_size: int = 5,
    max_size: int = 500,
    n_permutations: int = 1000,
    exclude_targets: bool = True,
    permute: int | None = None,
    control: str | Sequence[str] = "control",
    delimiter: str = "+",
    seed: int = 0,
    threads: int = 1,
    progress: bool | None = None,
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
        Mapping, path of a GMT file, table, or name of a library: see :func:`raptorgraph.pp.read_gene_sets`. The
        methods ``"ulm"`` and ``"mlm"`` also read a column ``weight`` of a table.
    method
        As in :func:`enrich`.
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
        Seed of the random sets. The same arguments give the same result, whatever `threads`; each row depends neither
        on the other perturbations nor on their order.
    threads
        Perturbations analyzed at a time, for ``"gsea"``; decoupler is asked for one at a time.
    %(progress)s

    Returns
    -------
    pandas.DataFrame
        One row for each perturbation and gene set, in the order given:

        - ``perturbation``, ``gene_set``;
        - ``ES``, ``NES``: positive where the set goes up; of linear models slope and t-value;
        - ``p``: share of random sets of the same sign that score as high; 0 where none does, to be read as below
          ``1 / n_permutations``; of linear models that of the t-value;
        - ``FDR``: false discovery rate among the sets of this perturbation, by gseapy or, with decoupler, of Benjamini
          and Hochberg;
        - ``n_genes``: genes of the set in the ranking;
        - ``leading_edge``: genes that make up the score, joined by ``";"``; of linear models those that lie on its side
          of the other genes;
        - ``magnitude``: Euclidean norm of the ranked effect.

        The scores are NaN, and the leading edge is empty, where the effect is zero on the whole set.

    Raises
    ------
    ConnectionError, FileNotFoundError, KeyError
        As in :func:`raptorgraph.pp.read_gene_sets`.
    ModuleNotFoundError
        If the method needs decoupler, which is not installed.
    TypeError
        If `effects` is not a table, or `gene_sets` none of the above.
    ValueError
        If effects are missing or infinite, a gene is there twice, no gene set has enough genes, a weight is negative
        and the method knows no weights, `method` is unknown, or a number is out of range.

    Notes
    -----
    The scores do not depend on the size of an effect: the effect of a perturbation that does next to nothing is
    ranked like any other, which is what ``magnitude`` is for. Random sets ignore that the genes of a set are
    correlated, so p and FDR are optimistic (Goeman and Buehlmann 2007); compare with `permute`, and with measured
    effects. The FDR is that of gseapy, and does not bound the chance of any finding: of rankings without signal about
    one in eight has a set below 0.05 (20 sets of 10 of 200 genes, 120 rankings), while p keeps its level.
    No correction is made for the number of perturbations.

    Examples
    --------
    >>> effects = model.predict_effects(["P01", "P01+P02"])
    >>> table = rg.tl.enrich_effects(effects, gene_sets, n_permutations=100)
    >>> table.shape == (2 * len(gene_sets), 9)
    True
    """
    _check_effects(effects)
    effects = effects.set_axis(stripped(effects.columns, "Genes of the effects"), axis=1)
    check_method(method)
    _check_numbers(n_permutations, threads, seed, permute)
    sets, weights = read_sets(gene_sets, list(effects.columns), min_size, max_size, method)
    excluded = [
        parse_perturbation(label, control=control, delimiter=delimiter) if exclude_targets else ()
        for label in effects.index
    ]
    rankings = rank(effects, excluded, sets, weights, permute)
    return _score(effects, rankings, method, n_permutations, seed, threads)


def _check_numbers(n_permutations: int, threads: int, seed: int, permute: int | None) -> None:
    check_integer("n_permutations", n_permutations, 1)
    check_integer("threads", threads, 1)
    check_integer("seed", seed, 0)
    if permute is not None:
        check_integer("permute", permute, 0)


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


def _score(
    effects: pd.DataFrame, rankings: Sequence[Ranking], method: str, n_permutations: int, seed: int, threads: int
) -> pd.DataFrame:
    """Tables of all rankings, one below the other."""
    genes = effects.columns.astype(str).to_numpy()

    def one(ranking: Ranking) -> pd.DataFrame:
        return score(ranking, genes, method, n_permutations, seed)

    # gseapy prints a warning of ties, which are settled here; decoupler's threads must not be called from several
    with progress_bar("Gene sets", len(rankings)) as advance, contextlib.redirect_stderr(io.StringIO()):
        tables = in_threads(one, rankings, threads=threads if method == "gsea" else 1, advance=advance)
    values = effects.to_numpy(dtype=np.float64)
    for label, effect, ranking, table in zip(effects.index, values, rankings, tables, strict=True):
        table.insert(0, "perturbation", label)
        table["magnitude"] = np.linalg.norm(effect[ranking.ranked])
    return pd.concat(tables, ignore_index=True)


def _with_null(
    table: pd.DataFrame,
    model: RaptorGraphModel,
    latents: pd.Index,
    rankings: Sequence[Ranking],
    n_null: int,
    seed: int,
) -> pd.DataFrame:
    """Add the columns of the measured cells, in place."""
    n_perturbed, n_sets = len(model.perturbed_genes), len(rankings[0].members)
    null = label_null(model, rankings[:n_perturbed], n_null=n_null, seed=seed)
    change, p_change = np.full((2, len(latents), n_sets), np.nan)
    p_effect = np.full(len(latents), np.nan)
    change[:n_perturbed], p_change[:n_perturbed], p_effect[:n_perturbed] = null.change, null.p_change, null.p_effect
    clear = clear_latents(model, null.p_effect, len(latents))
    table["change"], table["p_null"] = change.ravel(), p_change.ravel()
    table["FDR_null"] = false_discovery_rates(p_change).ravel()
    table["p_effect"], table["stands_out"] = np.repeat(p_effect, n_sets), np.repeat(clear, n_sets)
    return table
