"""Screens to learn from: public ones, and simulated ones whose truth is known."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_norman2019": ["norman2019"],
        "_papalexi2021": ["papalexi2021"],
        "_replogle2020": ["replogle2020"],
        "_simulate": ["simulate"],
    },
)
