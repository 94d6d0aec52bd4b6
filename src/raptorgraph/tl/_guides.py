"""Guides of each perturbation: what each does, and whether it does what the others do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raptorgraph._arguments import check_integer, check_number
from raptorgraph._docs import docs
from raptorgraph.model._responders import effects_by_guide, guide_column
from raptorgraph.screen import Setup
from raptorgraph.screen._guides import guide_names
from raptorgraph.tl._responders import responders

if TYPE_CHECKING:
    import pandas as pd

    from raptorgraph.model import RaptorGraphModel

_MOST = 300  # cells of a guide that are looked at
_SHARES = {"share": "share", "low": "share_low", "high": "share_high", "told": "told"}
_ORDER = (
    "perturbation", "guide", "n_cells", "share", "share_low", "share_high", "told", "size", "size_low", "size_high",
    "agreement", "agreement_low", "agreement_high", "difference", "p", "q", "disagrees",
)  # fmt: skip


@docs.dedent
def guides(
    model: RaptorGraphModel, guide_key: str | None = None, *, level: float = 0.9, n_resamples: int = 200, seed: int = 0
) -> pd.DataFrame:
    r"""What each guide does: its responders, its effect, and whether the other guides of its perturbation do the same.

    The effect of a guide is measured in its own cells, against control cells of the same batch, with each gene in units
    of its spread among these (:math:`\sqrt{v_g + \bar v}`, with the variance :math:`v_g` and its median over genes).
    Lengths and angles are free of the noise of sampling cells: with the changes :math:`x_i` of single cells, the inner
    product of the effects of guides k and l is

    .. math:: M_{kl} = \frac{1}{|\{i \ne j\}|} \sum_{i \in k, \, j \in l, \, i \ne j} x_i \cdot x_j,

    less the noise of the control mean, so that no cell is multiplied by itself. With the parts :math:`f_k` of the cells
    that guides have, a guide has the size :math:`(M f)_k / f^T M f`; primes standing for the other guides together, it
    agrees with them by the cosine :math:`M_{kk'} / \sqrt{M_{kk} M_{k'k'}}`, and differs from them by
    :math:`\sqrt{(M_{kk} - 2 M_{kk'} + M_{k'k'}) / \max(M_{kk}, M_{k'k'})}`.

    That a guide does as the others do is tested by which guide is in which cell of a batch, which is chance if they do
    the same: by the mean change along the effect that the model gives the perturbation (t-test), and by the distance
    between the mean changes of all genes (:math:`\sum_{i \ne j}`, too, by its first three moments). The smaller p-value
    is doubled. While three or more guides are left, the one that differs most clearly is no longer among the others, so
    that it does not make these seem to disagree. The check ``guides`` of
    :meth:`~raptorgraph.RaptorGraphModel.diagnose` is the same test.

    Parameters
    ----------
    %(model)s
    guide_key
        Column of ``obs`` with the guide of each cell; by default the one of the setup.
    level
        Probability of the intervals.
    n_resamples
        Draws of the cells of each guide with replacement, from which the intervals of size and agreement are made.
    seed
        Seed of the draws, and of the choice of 300 cells of a guide that has more.

    Returns
    -------
    pandas.DataFrame
        One row for each guide of each perturbation:

        - ``perturbation``, ``guide``, ``n_cells``;
        - ``share``, ``share_low``, ``share_high``, ``told``: share of cells that responded, its interval, and how far
          single cells can be told apart, as in :func:`raptorgraph.tl.responders`;
        - ``size``, ``size_low``, ``size_high``: effect of the guide along that of all guides of the perturbation, whose
          mean over cells is 1; 0 is a guide that does nothing. NaN where all guides together have no effect that is
          longer than noise;
        - ``agreement``, ``agreement_low``, ``agreement_high``: cosine of the effect to that of the other guides, from
          -1 to 1. NaN where one of them is not longer than noise, and without another guide;
        - ``difference``: distance to the effect of the other guides over the longer of both effects, 0 for the same
          effect and 1 where one does nothing;
        - ``p``, ``q``: of the test, and false discovery rate among all guides that are tested; NaN for guides with
          fewer than five cells, and without another one;
        - ``disagrees``: whether q is at most 0.05 and the difference above 0.5: guides of one gene are rarely equally
          good, and with many cells any difference is significant.

    Raises
    ------
    KeyError
        If `guide_key` is no column.
    ValueError
        Without a column of guides, if a number is out of range, and in a model that was loaded without data.

    Notes
    -----
    Of two guides that differ, both do: the share of responders says which of them does less. Intervals are those of
    sampling the cells of the perturbation; the noise of the control cells is common to all guides.

    Examples
    --------
    >>> number = np.arange(adata.n_obs) % 2  # in place of what your screen has
    >>> adata.obs["guide"] = adata.obs["perturbation"].astype(str) + np.where(number, "_g1", "_g2")
    >>> table = rg.tl.guides(model, "guide", n_resamples=50)
    >>> table["guide"].tolist()[:2]
    ['P01_g1', 'P01_g2']
    >>> bool(table["disagrees"].any())  # the cells of both are alike
    False
    """
    check_number("level", level, 0, 1, above=True)
    check_integer("n_resamples", n_resamples, 20)
    check_integer("seed", seed, 0)
    if model.adata is None:
        raise ValueError("The model was loaded without data: load(folder, adata) gives it cells.")
    key = Setup.of(model.setup_args).guide_key if guide_key is None else guide_key
    if key is None:
        known = guide_column(model)
        hint = "" if known is None else f" Column {known!r} looks like it."
        raise ValueError(
            f"No column of obs is known to have the guides: guides(model, guide_key=...), or setup_anndata(adata, "
            f"guide_key=...) before the training.{hint}"
        )
    names = guide_names(model.adata, key)
    shares = responders(model, key, level=level).dropna(subset="guide").rename(columns=_SHARES)
    effects = effects_by_guide(model, names, most=_MOST, n_resamples=n_resamples, level=level, seed=seed)
    place = {label: k for k, label in enumerate(model.conditions)}
    effects = effects.sort_values("perturbation", key=lambda labels: labels.map(place), kind="stable")
    both = ["perturbation", "guide"]
    return effects.merge(shares[[*both, *_SHARES.values()]], on=both, how="left", validate="1:1")[list(_ORDER)]
