"""What a screen is: how it is set up, its labels, its design and its sums by condition."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_screen": ["Screen"],
        "_setup": ["Setup"],
        "_sums": ["Sums", "add_up"],
    },
)
