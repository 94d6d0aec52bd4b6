"""Which perturbations have similar effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph._arguments import check_choice
from raptorgraph._docs import docs
from raptorgraph._progress import progress_argument
from raptorgraph.tl._common_direction import CommonDirection
from raptorgraph.tl._effect_blocks import asked_labels, effect_blocks

if TYPE_CHECKING:
    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.model._types import Perturbations
    from raptorgraph.tl._effect_blocks import EffectBlock

KINDS = ("cosine", "specific")


@progress_argument()
@docs.dedent
def effect_similarity(
    model: RaptorGraphModel,
    perturbations: Perturbations | None = None,
    *,
    kind: str = "cosine",
    progress: bool | None = None,
) -> pd.DataFrame:
    """Cosines between the effects of perturbations, each without the genes that it perturbs itself.

    Unlike :func:`program_similarity`, which compares the latents of genes, it compares the effects that
    ``model.predict_effects`` gives, of combinations too.

    Parameters
    ----------
    %(model)s
    perturbations
        Labels or tuples of genes, measured or not; by default all measured ones.
    kind
        ``"cosine"``, or ``"specific"`` for what is left once the direction that all perturbations have in common,
        slower growth or stress, is taken out of each pair. It is the sum of the unit vectors of all others whose
        effect on some gene is sure (false discovery rate up to 0.05); without a posterior, of all others.
    %(progress)s

    Returns
    -------
    pandas.DataFrame
        Perturbations x perturbations, symmetric, from -1 (opposite) to 1; 0 for a perturbation without any effect.

    Raises
    ------
    ValueError
        For fewer than two perturbations, an unknown gene, the control, and an unknown `kind`.

    Examples
    --------
    >>> table = rg.tl.effect_similarity(model, ["P01", "P02", "P01+P02"])
    >>> table.shape, bool((table.loc["P01+P02", ["P01", "P02"]] > 0).all())
    ((3, 3), True)
    """
    check_choice("kind", kind, KINDS)
    labels = asked_labels(model, perturbations)
    if len(labels) < 2:
        raise ValueError(f"Similarity is of two perturbations or more, and these are {labels}: name others.")
    parts = [(_units(block), block.clear()) for block in effect_blocks(model, labels)]
    units, clear = (np.concatenate(each) for each in zip(*parts, strict=True))
    return _table(labels, units, clear, kind)


def similarity_of(block: EffectBlock, kind: str) -> pd.DataFrame:
    """Cosines between effects that are known already."""
    return _table(block.labels, _units(block), block.clear(), kind)


def _units(block: EffectBlock) -> np.ndarray:
    """Effects of length 1 without those on the perturbed genes themselves; 0 where there is none."""
    values = block.without_targets()
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(np.divide(values, length, out=np.zeros_like(values), where=length > 0))


def _table(labels: list[str], units: np.ndarray, clear: np.ndarray, kind: str) -> pd.DataFrame:
    """Cosines of unit vectors, of which some stand out; where none does all count."""
    direction = CommonDirection(units, clear if clear.any() else np.ones(len(clear), dtype=bool))
    values = direction.inner.copy() if kind == "cosine" else direction.specific()
    np.clip(values, -1.0, 1.0, out=values)
    np.fill_diagonal(values, np.where(np.any(units != 0, axis=1), 1.0, 0.0))
    return pd.DataFrame(values, pd.Index(labels, name="perturbation"), labels)
