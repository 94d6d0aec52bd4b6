"""Old public names, which keep working with a `FutureWarning` for two minor versions."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def with_old_names(package: str, getattribute: Callable[[str], Any], old: Mapping[str, str]) -> Callable[[str], Any]:
    """Module ``__getattr__`` that also knows old names.

    Parameters
    ----------
    package
        Name of the module, ``__name__``.
    getattribute
        Its ``__getattr__`` so far.
    old
        Full new name, such as ``"raptorgraph.inference.infer_graph"``, of each old one.
    """

    def __getattr__(name: str) -> Any:
        if name not in old:
            return getattribute(name)
        module, _, new = old[name].rpartition(".")
        warnings.warn(f"{package}.{name} is now {old[name]}.", FutureWarning, stacklevel=2)
        return getattr(import_module(module), new)

    return __getattr__
