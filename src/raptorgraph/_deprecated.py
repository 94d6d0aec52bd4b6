"""Old public names and arguments, which keep working with a `FutureWarning` for two minor versions."""

from __future__ import annotations

import functools
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

P = ParamSpec("P")
R = TypeVar("R")


def with_old_names(package: str, getattribute: Callable[[str], Any], old: Mapping[str, str]) -> Callable[[str], Any]:
    """Module ``__getattr__`` that also knows old names.

    `getattribute` is that of the module so far, and `old` has the full new name, such as
    ``"raptorgraph.inference.infer_graph"``, of each old one.
    """

    def __getattr__(name: str) -> Any:
        if name not in old:
            return getattribute(name)
        module, _, new = old[name].rpartition(".")
        warnings.warn(f"{package}.{name} is now {old[name]}.", FutureWarning, stacklevel=2)
        return getattr(import_module(module), new)

    return __getattr__


def with_old_arguments(**old: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator of a function that also takes old names of its arguments, each given as ``old="new"``."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in [name for name in kwargs if name in old]:
                new = old[name]
                if new in kwargs:
                    raise TypeError(f"{function.__qualname__} got {name!r}, the old name of {new!r}, besides {new!r}.")
                warnings.warn(f"{name} of {function.__qualname__} is now {new}.", FutureWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(name)
            return function(*args, **kwargs)

        return wrapper

    return decorate
