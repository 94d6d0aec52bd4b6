"""What is weak, missing or assumed in a model and its screen: one table of checks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from raptorgraph._arguments import check_integer
from raptorgraph.model import _network_checks as of_network
from raptorgraph.model import _posterior_checks as of_posterior
from raptorgraph.model._responders import guides
from raptorgraph.screen._checks import Checked, checked, table_of
from raptorgraph.screen._screen_checks import LOOKS_FOR as SCREEN
from raptorgraph.screen._screen_checks import check_screen
from raptorgraph.screen._strength import strengths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.model._types import Data
    from raptorgraph.screen import Screen
    from raptorgraph.screen._checks import Finding

LOOKS_FOR = {
    "numbers": "Numbers that are not finite.",
    "guides": "Guides of one perturbation of which one does less than the others, or something else.",
    "latents": "Latents that say nothing of cells, or do nothing to them.",
    "graph": "Edges without an order, or that rest on a few cells.",
    "posterior": "Measured effects within the standard deviations of the predicted ones.",
    "held-out predictions": "Combinations that were not trained on, predicted better than by adding effects up.",
    "saturation": "Values, latents and pairs at the end of what can be told apart.",
}
_N_NULL = 300  # random groups of control cells, enough to say which perturbations stand out


def diagnose(
    model: RaptorGraphModel, *, held_out: Data | None = None, guide_key: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """Check the screen and the model for what may lead to wrong conclusions.

    Nothing is trained, and nothing is changed. A screen can be checked before the training; what needs a trained model
    is then not checked, as is what needs cells in a model that was loaded without.

    Parameters
    ----------
    held_out
        Cells of combinations that the model was not trained on, with control cells of their own; by default those that
        were left out of the training (``datasplitter_kwargs={"external_indexing": ...}``).
    guide_key
        Column of ``obs`` with the guide of each cell; by default that of the setup, or else one that is known by its
        name.
    seed
        Seed of the random groups of control cells with which effects are compared.

    Returns
    -------
    pandas.DataFrame
        One row for each finding, warnings first, and one for each check that found nothing or could not be made:

        - ``check``: its name;
        - ``fires``: True, False, or NA where it could not be made;
        - ``level``: ``"warning"`` for what may lead to wrong conclusions, ``"note"`` for what is good to know, else
          empty;
        - ``found``: what was found, or why it was not checked;
        - ``concerns``: tuple of the genes, conditions, batches or latents;
        - ``meaning``, ``advice``: what follows, and what to do. Where nothing fires, ``meaning`` says what is looked
          for.

    Raises
    ------
    KeyError
        If `guide_key` is no column.
    ValueError
        If `held_out` lacks genes, labels or control cells.

    Examples
    --------
    >>> found = model.diagnose()
    >>> found.columns.tolist()
    ['check', 'fires', 'level', 'found', 'concerns', 'meaning', 'advice']
    >>> found.loc[found["check"] == "posterior", "found"].item()
    'Nothing stood out.'
    >>> bool(found.loc[found["check"] == "guides", "fires"].isna().item())  # no column has the guides
    True
    """
    check_integer("seed", seed, 0)
    screen = None if model.adata is None else model.screen
    strength = None if screen is None else strengths(screen, seed, n_null=_N_NULL)
    return table_of(run_checks(model, screen, strength, held_out=held_out, guide_key=guide_key))


def run_checks(
    model: RaptorGraphModel,
    screen: Screen | None,
    strength: pd.DataFrame | None,
    *,
    held_out: Data | None = None,
    guide_key: str | None = None,
    singles_only: bool = False,
) -> list[Checked]:
    """Make all checks, of a screen that may have more cells than the model was trained on.

    `strength` is the table of :func:`~raptorgraph.screen._strength.strengths` of the screen; both are None for a model
    without data.
    """
    if screen is None or strength is None:
        found = [Checked(name, text, reason="the model was loaded without data") for name, text in SCREEN.items()]
    else:
        found = check_screen(screen, strength, singles_only=singles_only)
    numbers = checked("numbers", LOOKS_FOR["numbers"], partial(of_network.numbers, model))
    reason = "" if model.is_trained else "the model is not trained"
    if numbers.findings:
        reason = "numbers of the model are not finite"
    own = screen
    if model.adata is not None and (screen is None or screen.adata is not model.adata):
        own = model.screen  # of the cells that it was trained on
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "guides": partial(guides, model, guide_key),
        "latents": partial(of_network.latents, model),
        "graph": partial(of_network.graph, model),
        "posterior": partial(of_posterior.posterior, model, None if model.adata is None else own),
        "held-out predictions": partial(of_posterior.held_out_predictions, model, held_out),
        "saturation": partial(of_network.saturation, model),
    }
    made = [
        Checked(name, LOOKS_FOR[name], reason=reason) if reason else checked(name, LOOKS_FOR[name], check)
        for name, check in checks.items()
    ]
    return [numbers, *found, *made]
