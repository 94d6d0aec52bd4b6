"""What each perturbation does: its effect on each gene, with an interval, and how sure its sign is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import norm

from raptorgraph._arguments import check_choice, check_flag, check_integer, check_number
from raptorgraph._docs import docs
from raptorgraph._progress import progress_argument
from raptorgraph.screen._setup import Setup
from raptorgraph.tl._effect_blocks import SURE, asked_labels, effect_blocks, gene_columns, gene_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.model._types import Perturbations
    from raptorgraph.tl._effect_blocks import EffectBlock

RANKED_BY = ("effect", "lfsr")
_MOST_ROWS = 10_000_000  # of a table that nobody asked for by its size


@progress_argument()
@docs.dedent
def effects(
    model: RaptorGraphModel,
    perturbations: Perturbations | None = None,
    *,
    genes: Sequence[str] | None = None,
    level: float = 0.9,
    top: int | None = None,
    by: str = "effect",
    max_lfsr: float | None = None,
    max_fdr: float | None = None,
    exclude_targets: bool = False,
    progress: bool | None = None,
) -> pd.DataFrame:
    r"""List what each perturbation does: its effect on each gene, with an interval, and how sure the sign is.

    Effects and standard deviations are those of ``model.predict_effects(..., return_sd=True)``, and the posterior of an
    effect is normal, as for all intervals of single genes. With the effect e and its standard deviation s, the interval
    and the local false sign rate [1]_, the probability that the true effect does not have the sign of e, are

    .. math::
        e \pm s\, \Phi^{-1}\!\left(\frac{1 + \text{level}}{2}\right), \qquad
        \text{lfsr} = \min(P(e \le 0), P(e \ge 0)) = \Phi(-|e| / s).

    An interval of 90 % is on one side of zero where the rate is below 0.05. The rate is about the direction alone: no
    effect is taken for exactly zero, and where most genes do not respond, many small rates belong to effects that are
    next to nothing, as one interval of 90 % in ten does not hold. Which genes respond is said by ``FDR``, the false
    discovery rate [2]_ over the genes of a perturbation for the p-value 2 lfsr of no effect.

    Parameters
    ----------
    %(model)s
    perturbations
        Labels or tuples of genes, measured or not; by default all measured ones. A combination that nobody measured is
        predicted, and so is a gene that nobody perturbed where there is a ``gene_embedding``.
    genes
        Names of the genes to list; by default all of the model.
    level
        Probability that an interval holds.
    top
        List the first so many genes of each perturbation. The table is then made of blocks of perturbations, whose
        other genes are not kept.
    by
        What genes are sorted by within each perturbation: ``"effect"``, the largest size first, or ``"lfsr"``, the
        surest sign first.
    max_lfsr
        List the genes alone whose local false sign rate is at most this; with `top` the first of these.
    max_fdr
        The same for the false discovery rate.
    exclude_targets
        Leave out the rows of perturbed genes themselves. Their knock-down is mostly the largest effect, and says that
        the guide works.
    %(progress)s

    Returns
    -------
    pandas.DataFrame
        One row for each perturbation and gene: perturbations in the order in which they are asked for, the genes of
        each sorted by `by`, equal ones in the order of the model.

        - ``perturbation``, ``gene``: canonical label, and name of the gene;
        - ``effect``: change of its mean expression against control, on the expression scale;
        - ``sd``: standard deviation of the mean over many cells in an experiment like this one, with the error of the
          mean of the control cells;
        - ``low``, ``high``: ends of the interval;
        - ``lfsr``: local false sign rate, from 0 to 0.5; its sum over rows is the expected number of opposite signs;
        - ``FDR``: false discovery rate, the share of genes without an effect to expect among those of the perturbation
          with no larger rate. Perturbed genes are not counted in that of others;
        - ``measured``: whether the perturbation is among the training data;
        - ``own_target``: whether it is of that gene itself.

        Without a posterior (``effect_posterior=False``, the preset ``"paper"``) ``sd``, ``low``, ``high``, ``lfsr``
        and ``FDR`` are NaN. ``attrs`` says in words what the ``intervals`` are and how genes are ``ranked``.

    Raises
    ------
    TypeError
        If `top` is no integer or `genes` is no list.
    ValueError
        For an unknown gene, the control, a number out of its range, `max_lfsr`, `max_fdr` or ``by="lfsr"`` of a model
        without a posterior, and for a table of more than ten million rows, unless `top` says how many genes are listed.

    References
    ----------
    .. [1] Stephens, M. False discovery rates: a new deal. *Biostatistics* 18, 275-294 (2017).
    .. [2] Benjamini, Y. & Hochberg, Y. Controlling the false discovery rate: a practical and powerful approach to
       multiple testing. *J. R. Stat. Soc. B* 57, 289-300 (1995).

    Examples
    --------
    >>> table = rg.tl.effects(model, ["P01", "P01+P02"], top=3)
    >>> table["gene"].iloc[0], bool(table["own_target"].iloc[0])
    ('P01', True)
    >>> bool(((table["low"] > 0) | (table["high"] < 0) | (table["lfsr"] >= 0.05)).all())
    True

    How many genes each perturbation moves:

    >>> sure = rg.tl.effects(model, max_fdr=0.05, exclude_targets=True)
    >>> counts = sure.groupby("perturbation").size()
    """
    check_number("level", level, 0, 1, above=True)
    if level == 1:
        raise ValueError("level=1 is out of range: no finite interval holds for sure; use a number below 1.")
    if top is not None:
        check_integer("top", top, 1, hint=", the number of genes to list of each perturbation")
    check_choice("by", by, RANKED_BY)
    check_flag("exclude_targets", exclude_targets)
    has_posterior = bool(getattr(model, "has_posterior", False))  # a baseline has none
    limits = {"max_lfsr": max_lfsr, "max_fdr": max_fdr}
    for name, limit in limits.items():
        if limit is not None:
            check_number(name, limit, 0, 1)
    limited = [f"{name}={limit}" for name, limit in limits.items() if limit is not None]
    if not has_posterior and (limited or by == "lfsr"):
        given = limited[0] if limited else "by='lfsr'"
        raise ValueError(
            f"{given}: the model has no posterior of the effects, so no sign is known to be sure; leave it out, or "
            "train a model with effect_posterior=True."
        )
    labels = asked_labels(model, perturbations)
    names = gene_names(model, labels)
    columns = gene_columns(names, genes, Setup.of(model.setup_args))
    if top is None and not limited:
        _check_rows(len(labels) * len(columns), len(labels), len(columns))

    parts: list[dict[str, np.ndarray]] = []
    for block in effect_blocks(model, labels):
        parts.append(_rows(block.columns(columns), by, top, limits, exclude_targets))
        if top is None:
            _check_rows(sum(len(part["gene"]) for part in parts), len(labels), len(columns))
    table = pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    half = norm.ppf((1 + level) / 2) * table["sd"]
    table.insert(4, "low", table["effect"] - half)
    table.insert(5, "high", table["effect"] + half)
    table.insert(8, "measured", table["perturbation"].isin(list(model.conditions)))
    table.attrs["intervals"] = (
        f"{100 * level:g} % of a normal posterior of each effect"
        if has_posterior
        else "none: the model has no posterior of the effects"
    )
    order = "size of the effect" if by == "effect" else "local false sign rate"
    some = "" if top is None else f"the first {min(top, len(columns)):,} of {len(columns):,} genes of each, "
    table.attrs["ranked"] = f"{some}by {order}"
    return table


def _rows(
    block: EffectBlock, by: str, top: int | None, limits: Mapping[str, float | None], exclude_targets: bool
) -> dict[str, np.ndarray]:
    """Columns of the table for some perturbations, whose rows are sorted."""
    lfsr = block.lfsr
    kept = ~block.own if exclude_targets else np.ones(block.mean.shape, dtype=bool)
    for limit, rates in ((limits["max_lfsr"], lfsr), (limits["max_fdr"], block.fdr)):
        if limit is not None:
            kept &= rates <= limit
    # rates of sure signs are 0 in floating point, so that these are sorted by what they are a function of
    key = np.where(kept, -(np.abs(block.mean) if by == "effect" else block.certainty), np.inf)
    order = np.argsort(key, axis=1, kind="stable")[:, :top]
    row, place = np.nonzero(np.take_along_axis(kept, order, axis=1))
    at = row, order[row, place]
    return {
        "perturbation": np.array(block.labels, dtype=object)[at[0]],
        "gene": block.genes[at[1]],
        "effect": block.mean[at],
        "sd": block.sd[at],
        "lfsr": lfsr[at],
        "FDR": block.fdr[at],
        "own_target": block.own[at],
    }


def _check_rows(n_rows: int, n_perturbations: int, n_genes: int) -> None:
    """ValueError where a table would be larger than anyone reads."""
    if n_rows > _MOST_ROWS:
        raise ValueError(
            f"The table of {n_perturbations:,} perturbations and {n_genes:,} genes would have more than {_MOST_ROWS:,} "
            f"rows: list the first genes of each (top=20), those that are sure (max_fdr={SURE}), or some "
            f"perturbations or genes; top={n_genes} lists all."
        )
