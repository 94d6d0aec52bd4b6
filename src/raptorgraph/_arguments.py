"""Checks of arguments that need no data: one error that names the argument, its value and what to use instead."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, fields
from functools import partial
from numbers import Integral, Real
from typing import Any, TypeVar

Settings = TypeVar("Settings")

LARGEST = sys.float_info.max
"""Upper bound of numbers that need only be finite."""


def check_integer(name: str, value: Any, least: int, hint: str = "") -> int:
    """`value` as an int; TypeError if it is no integer (a bool is none), ValueError if it is below `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r} is not an integer: use {least} or more{hint}.")
    if value < least:
        raise ValueError(f"{name}={value} is too small: use {least} or more{hint}.")
    return int(value)


def check_number(name: str, value: Any, low: float, high: float = LARGEST, *, above: bool = False) -> float:
    """`value` as a float; TypeError if it is no real number, ValueError outside of the bounds.

    Bounds are inclusive, the lower one not if the number must lie `above` it.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={value!r} is not a number: use a float.")
    number = float(value)  # numpy compares narrow floats in their own type, where the bounds overflow
    if not low <= number <= high or (above and number == low):
        bounds = f"above {low:g}" if above else f"from {low:g}"
        bounds += f" to {high:g}" if high < LARGEST else ""
        raise ValueError(f"{name}={value} is out of range: use a finite number {bounds}.")
    return number


def check_flag(name: str, value: Any) -> bool:
    """`value` as a bool; TypeError for anything that is neither True nor False."""
    if type(value).__name__ not in ("bool", "bool_"):  # numpy's is no subclass
        raise TypeError(f"{name}={value!r} is neither True nor False.")
    return bool(value)


def check_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """`value`; ValueError if it is none of the choices."""
    choices = list(choices)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; use one of {', '.join(map(repr, choices))}.")
    return value


def check_text(name: str, value: Any, what: str) -> str:
    """`value`; TypeError if it is no text, ValueError if it is empty. `what` it is the name of, for the error."""
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r} must be {what}, a string, and not {type(value).__name__}.")
    if not value:
        raise ValueError(f"{name}='' is empty: it must be {what}.")
    return value


def check_texts(name: str, value: Any, what: str) -> list[str]:
    """`value`, a list, tuple, array or index, as a list of distinct texts, an empty one for None.

    A text alone is an error, since it would be cut.
    """
    if value is None:
        return []
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, str):
        raise TypeError(f"{name}={value!r} must be a list: {name}=[{value!r}].")
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name}={value!r} must be a list of {what}, and not {type(value).__name__}.")
    wrong = [item for item in value if not isinstance(item, str)]
    if wrong:
        raise TypeError(f"{name} must be a list of {what}, all strings; it has {wrong[0]!r}.")
    repeated = [item for item, n in Counter(value).items() if n > 1]
    if repeated:
        raise ValueError(f"{name} names {repeated[0]!r} more than once.")
    return list(value)


def check_mapping(name: str, value: Any) -> dict[str, Any]:
    """`value` as a dict, an empty one for None; TypeError if it is no mapping from names of arguments."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"{name}={value!r} must be a dict of arguments, such as {{'name': value}}.")
    return dict(value)


def settings_of(kind: type[Settings], arguments: Mapping[str, Any]) -> Settings:
    """Settings, a dataclass, from the arguments of a function that have the names of its fields."""
    return kind(**{each.name: arguments[each.name] for each in fields(kind)})  # type: ignore[arg-type]  # a dataclass


def setting(default: Any, check: Callable[..., Any], **bounds: Any) -> Any:
    """Field of :class:`Checked`, whose value goes through one of the checks above; None is free where it is default."""
    return field(default=default, metadata={"check": partial(check, **bounds)})


class Checked:
    """Base of frozen dataclasses: values are checked and become Python's own, by the check of each field."""

    def __post_init__(self) -> None:
        for known in fields(self):  # type: ignore[arg-type]  # its subclasses are dataclasses
            value = getattr(self, known.name)
            if "check" in known.metadata and not (value is None and known.default is None):
                object.__setattr__(self, known.name, known.metadata["check"](known.name, value))
