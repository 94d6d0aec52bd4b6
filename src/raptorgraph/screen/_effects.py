"""Measured effects of all perturbations, as users ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raptorgraph._docs import docs
from raptorgraph._progress import progress_line
from raptorgraph.screen._screen import Screen
from raptorgraph.screen._setup import Setup
from raptorgraph.screen._setup_hints import batch_hints, cut_names, warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData


@progress_line("Measuring effects")
@docs.dedent
def measured_effects(
    adata: AnnData,
    perturbation_key: str = "perturbation",
    *,
    control: str | Sequence[str] = "control",
    delimiter: str = "+",
    layer: str | None = None,
    library_size_key: str | None = None,
    batch_key: str | None = None,
) -> pd.DataFrame:
    """Measured effect of every perturbation: mean over its cells minus mean over the control cells.

    Values are on the expression scale, ``log1p(1e4 * count / library size)`` where the data are counts (integers), and
    the data's own scale where they are log-normalized.

    Parameters
    ----------
    adata
        Cells x genes, with a perturbation label for each cell.
    %(perturbation_key)s
    %(control)s
    %(delimiter)s
    %(layer)s
    %(library_size_key)s
    batch_key
        Column of ``adata.obs`` with batches: cells are then compared with the control cells of their batch (with all
        control cells where a batch has none), and the differences averaged over the cells.

    Returns
    -------
    Perturbations (canonical labels, control left out) x genes, float64.

    Raises
    ------
    KeyError
        If a column or the layer is not there.
    ValueError
        If labels are missing, there are fewer than two control cells, the values are neither counts nor logarithms,
        or library sizes are not positive or below the row sums in more than half of the cells.

    Warns
    -----
    UserWarning
        If batches have no control cells or are the perturbation, and if `delimiter` cuts the name of a gene.

    Examples
    --------
    >>> effects = rg.pp.measured_effects(adata, library_size_key="total_counts")
    >>> effects.shape
    (10, 100)
    >>> list(effects.index[:3])
    ['P01', 'P01+P03', 'P02']
    """
    screen = Screen(adata, Setup(perturbation_key, control, delimiter, layer, library_size_key, batch_key))
    hints = batch_hints(adata, screen.parsed, screen.setup) if screen.batch is not None else []
    warn(cut_names(adata, screen.setup) + hints)
    return screen.effects
