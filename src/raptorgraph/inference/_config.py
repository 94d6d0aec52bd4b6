"""Settings of the posterior of the effects."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from raptorgraph._arguments import Checked, check_flag, check_number, setting

if TYPE_CHECKING:
    from collections.abc import Mapping

_OLD_NAMES = {
    "alone": "independent",
    "private": "condition_specific",
    "targets": "target_effects",
    "temper": "noise_fraction",
    "spread": "constrained",
}


@dataclass(frozen=True)
class EffectPosteriorConfig(Checked):
    r"""Settings of :class:`EffectPosterior`.

    Parameters
    ----------
    independent, condition_specific
        Whether there are genes of these classes, besides the *shared* one.
    target_effects
        Whether the effect of a perturbation on its own target has a separate prior.
    graph
        Whether effects are expected to travel along the graph that :meth:`EffectPosterior.fit` is given.
    excess_by_condition
        Whether the excess noise :math:`\kappa_c` differs between conditions; otherwise all have :math:`\kappa`.
    scale_by_condition
        Whether measured combinations of genes that were perturbed alone differ in their scale :math:`a_c`; otherwise
        all have a.
    overshoot
        Whether sums are expected to overshoot; otherwise the prior median of the scale a is 1.
    few_directions
        Whether a prior by which effects have few directions is tried, and taken where genes that are left out are
        likelier by it.
    sparse_interactions
        Whether a measured combination may move single genes far more than its genes together do; not of tables of which
        a part is fitted.
    noise_fraction
        Fraction of the conditions' noise for which predictions are shrunk, above 0; 1 is that of the posterior mean.
    constrained
        Whether predictions are constrained to the variance that true effects are expected to have between
        perturbations.

    Raises
    ------
    TypeError
        For a switch that is neither True nor False, and a fraction that is not a number.
    ValueError
        For a fraction that is not in (0, 1].

    Examples
    --------
    The posterior mean itself:

    >>> config = rg.inference.EffectPosteriorConfig(noise_fraction=1.0, constrained=False)
    >>> config.independent
    True
    """

    independent: bool = setting(True, check_flag)
    condition_specific: bool = setting(True, check_flag)
    target_effects: bool = setting(True, check_flag)
    graph: bool = setting(True, check_flag)
    excess_by_condition: bool = setting(True, check_flag)
    scale_by_condition: bool = setting(True, check_flag)
    overshoot: bool = setting(True, check_flag)
    few_directions: bool = setting(True, check_flag)
    sparse_interactions: bool = setting(True, check_flag)
    noise_fraction: float = setting(0.5, check_number, low=0, high=1, above=True)
    constrained: bool = setting(True, check_flag)

    @classmethod
    def from_options(cls, options: Mapping[str, Any], stacklevel: int = 2) -> EffectPosteriorConfig:
        """Make the settings from a dict, which may hold old names; `stacklevel` as for a warning of the caller's."""
        known = [field.name for field in fields(cls)]
        unknown = [name for name in options if name not in (*known, *_OLD_NAMES)]
        if unknown:
            raise TypeError(f"effect_posterior has no setting {unknown[0]!r}; its settings are {known}.")
        renamed: dict[str, Any] = {}
        for name, value in options.items():
            new = _OLD_NAMES.get(name, name)
            if new in renamed:
                raise TypeError(f"effect_posterior has {new!r} twice, once under its old name: give it once.")
            if new != name:
                warnings.warn(f"effect_posterior: {name} is now {new}.", FutureWarning, stacklevel=stacklevel)
            renamed[new] = value
        try:
            return cls(**renamed)
        except (TypeError, ValueError) as error:  # graph, for one, is an argument of the model too
            raise type(error)(f"effect_posterior: {error}") from None
