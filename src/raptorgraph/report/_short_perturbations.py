"""Sentences on the strongest perturbations and the genes that they change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from raptorgraph._text import counted, listed
from raptorgraph.report._answers import sure_genes
from raptorgraph.report._tables import fixed, with_interval

if TYPE_CHECKING:
    from collections.abc import Iterator

_N_STRONGEST, _N_GENES = 3, 3
_SIZE = "The size of an effect is the length of the vector of the changes of all genes against control cells"
_ENDS = "; in brackets is its interval of 90 %"


def strongest(strength: pd.DataFrame) -> str:
    """Which perturbations do most, with the sizes of their effects.

    Parameters
    ----------
    strength
        Table of :class:`~raptorgraph.report._answers.Answers`.
    """
    n, out = len(strength), ranked(strength)
    unknown = strength["p"].isna().all()
    shown = strength.sort_values("magnitude", ascending=False, kind="stable") if unknown else out
    named = [f"{label}, {_sized(row)}" for label, row in shown.head(_N_STRONGEST).iterrows()]
    meaning = f" {_SIZE}{_ENDS if shown['magnitude_low'].notna().any() else ''}."
    if unknown:
        which = "The only effect is that of" if n == 1 else "The largest effects are those of"
        return (
            f"{which} {_joined(named)}; whether that is more than noise cannot be told with so few control "
            f"cells.{meaning}"
        )
    if n == 1:
        label = strength.index[0]
        if out.empty:
            return f"The only perturbation, {label}, does not stand out from the noise of sampling cells."
        return (
            f"The only perturbation, {label}, stands out from the noise of sampling cells, {_sized(out.iloc[0])}."
            f"{meaning}"
        )
    if out.empty:
        return f"None of {counted(n, 'perturbation')} stands out from the noise of sampling cells."
    if len(out) == 1:
        return f"1 of {counted(n, 'perturbation')} stands out from the noise of sampling cells: {named[0]}.{meaning}"
    those = f"All {n:,} perturbations" if len(out) == n else f"{len(out):,} of {counted(n, 'perturbation')}"
    some = out["trained"].any() and not out["trained"].all()
    which = "Of those that the model was trained on, the strongest" if some else "The strongest"
    named = named[: int(out["trained"].sum())] if some else named
    are = "is" if len(named) == 1 else "are"
    return f"{those} stand out from the noise of sampling cells. {which} {are} {_joined(named)}.{meaning}"


def ranked(strength: pd.DataFrame) -> pd.DataFrame:
    """The perturbations that stand out, the largest effect first; behind them those whose effects are predictions."""
    by = ["trained", "magnitude"]
    return strength[strength["stands_out"]].sort_values(by, ascending=False, kind="stable")


def known(strength: pd.DataFrame) -> pd.DataFrame:
    """The perturbations of whose effect the model says anything: it knows all of their genes."""
    return strength[strength["magnitude"].notna()]


def genes_of_strongest(strength: pd.DataFrame, top_genes: pd.DataFrame | None, *, counts: bool) -> Iterator[str]:
    """Which genes the strongest perturbations change, one sentence each; nothing where none stands out.

    The perturbed genes themselves are not named.

    Parameters
    ----------
    strength, top_genes
        Tables of :class:`~raptorgraph.report._answers.Answers`.
    counts
        Whether the values are counts, which says what the scale is.
    """
    labels = list(known(ranked(strength)).head(_N_STRONGEST).index)
    if not labels or top_genes is None:
        return
    if not top_genes["FDR"].notna().any():
        yield "Which genes they change for sure cannot be said, because this model has no intervals."
        return
    sure = sure_genes(top_genes)
    scale = "log(1 + counts per 10,000)" if counts else "the values in the file"
    for k, label in enumerate(labels):
        rows = sure[sure["perturbation"] == label]
        text = changed(rows, most=_N_GENES, predicted=not strength.at[label, "trained"])
        if not text:
            yield f"Of no single gene is it sure that {label} changes it."
            continue
        yield f"{label} {text}." + (f" Changes are on the scale of {scale}." if k == 0 else "")


def changed(rows: pd.DataFrame, *, most: int, predicted: bool = False) -> str:
    """Genes that fall and that rise with a perturbation, with intervals, as the end of a sentence; "" without any."""
    rows = rows.sort_values("effect", key=lambda values: -values.abs(), kind="stable")
    verbs = ("is predicted to lower", "is predicted to raise") if predicted else ("lowers", "raises")
    parts = []
    for verb, some in zip(verbs, (rows[rows["effect"] < 0], rows[rows["effect"] > 0]), strict=True):
        if len(some):
            parts.append(f"{verb} {listed([gene_text(row) for row in some.head(most).itertuples()])}")
    return ", and ".join(parts)


def gene_text(row: Any) -> str:
    """A gene with its change, and its interval where there is one."""
    gene, effect, low, high = (getattr(row, name) for name in ("gene", "effect", "low", "high"))
    text = with_interval(2)((effect, low, high))
    return f"{gene} ({'+' if effect > 0 else ''}{text})"


def _sized(row: pd.Series) -> str:
    three = tuple(row[["magnitude", "magnitude_low", "magnitude_high"]])
    if pd.isna(three[0]):  # of a condition with a gene that the model does not know
        return f"with a measured effect of size {fixed(2)(row['size'])}"
    return f"with {'an effect' if row['trained'] else 'a predicted effect'} of size {with_interval(2)(three)}"


def _joined(named: list[str]) -> str:
    """Names with commas in them, one after the other."""
    return named[0] if len(named) == 1 else f"{'; '.join(named[:-1])}; and {named[-1]}"
