"""The command line: a thin shell over what the package does."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(__name__, submod_attrs={"_commands": ["main"]})
