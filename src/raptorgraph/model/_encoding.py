"""Values as JSON and tensors, and back: a closed set of types, so that what is read can run no code."""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

Tree: TypeAlias = Any
"""What JSON has: None, truth values, numbers, texts, lists, and dicts with texts as keys."""

_TAG = "$"  # key of a dict that stands for what JSON does not have
_NUMBERS = "biuf"  # kinds of numpy's types that are kept as tensors
_LARGEST = 8  # bytes of a number
_OF_INDEX = ("bool", "float32", "float64", "int32", "int64", "object", "str", "string", "uint32", "uint64")


@dataclass
class Encoder:
    """Turns values into trees, and collects the tensors that these name.

    An array or tensor that comes twice is kept once. Where the axes of one lie in memory in another order, they do so
    again when it is read, since rounding depends on it.
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    _known: dict[int, tuple[Any, Tree]] = field(default_factory=dict)  # by identity, with what keeps that valid

    def encode(self, value: Any, name: str) -> Tree:
        """Tree of a value; TypeError that names the part of it that is of another type."""
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {_TAG: "float", "value": repr(value)}
        if isinstance(value, np.generic):
            return self._scalar(value, name)
        if type(value) is np.ndarray or isinstance(value, torch.Tensor):
            if id(value) not in self._known:
                self._known[id(value)] = value, self._array(value, name)
            return self._known[id(value)][1]
        if type(value) is list:
            return self._items(value, name)
        if type(value) is tuple:
            return {_TAG: "tuple", "items": self._items(value, name)}
        if type(value) in (set, frozenset):
            return {_TAG: type(value).__name__, "items": self._items(sorted(value, key=repr), name)}
        if type(value) in (dict, OrderedDict, defaultdict):
            return self._dict(value, name)
        if type(value) is pd.DataFrame:
            columns = {str(i): self.encode(value.iloc[:, i].to_numpy(), f"{name}/{i}") for i in range(value.shape[1])}
            if not all(isinstance(kind, np.dtype) for kind in value.dtypes):
                raise _unknown(name, f"a DataFrame with a column of {set(map(str, value.dtypes))}")
            axes = {axis: self.encode(getattr(value, axis), f"{name}/{axis}") for axis in ("index", "columns")}
            return {_TAG: "table", "values": columns, **axes}
        if type(value) is pd.RangeIndex:
            ends = {end: getattr(value, end) for end in ("start", "stop", "step")}
            return {_TAG: "range", **ends, "name": self.encode(value.name, name)}
        if type(value) is pd.Index and str(value.dtype) in _OF_INDEX:
            values = self.encode(value.to_numpy(), f"{name}/values")
            return {_TAG: "index", "values": values, "dtype": str(value.dtype), "name": self.encode(value.name, name)}
        raise _unknown(name, f"of type {type(value).__name__}")

    def _items(self, values: Any, name: str) -> list[Tree]:
        return [self.encode(value, f"{name}/{i}") for i, value in enumerate(values)]

    def _scalar(self, value: np.generic, name: str) -> Tree:
        kind = value.dtype.kind
        if kind not in (*_NUMBERS, "U") or (kind in _NUMBERS and value.dtype.itemsize > _LARGEST):
            raise _unknown(name, f"of type {type(value).__name__}")
        return {_TAG: "scalar", "dtype": value.dtype.str, "value": self.encode(value.item(), name)}

    def _dict(self, value: dict[Any, Any], name: str) -> Tree:
        if isinstance(value, defaultdict) and value.default_factory is not dict:
            raise _unknown(name, f"a defaultdict of {value.default_factory}")
        items = [(key, self.encode(each, f"{name}/{key}")) for key, each in value.items()]
        if type(value) is not defaultdict and all(type(key) is str and key != _TAG for key, _ in items):
            return dict(items)
        pairs = [[self.encode(key, f"{name}/{key}"), each] for key, each in items]
        return {_TAG: "defaultdict" if isinstance(value, defaultdict) else "dict", "items": pairs}

    def _array(self, value: np.ndarray | torch.Tensor, name: str) -> Tree:
        kind, tensor = "tensor", value
        if isinstance(value, np.ndarray):
            dtype = value.dtype
            if dtype.kind in "OU":
                items = self._items(value.ravel().tolist(), name)
                return {_TAG: "texts", "dtype": dtype.str, "shape": list(value.shape), "items": items}
            if dtype.kind not in _NUMBERS or dtype.itemsize > _LARGEST:
                raise _unknown(name, f"an array of {dtype}")
            kind, tensor = "array", torch.from_numpy(value.astype(dtype.newbyteorder("="), order="K"))
        assert isinstance(tensor, torch.Tensor)
        if tensor.layout is not torch.strided:
            raise _unknown(name, f"a tensor of layout {tensor.layout}")
        while name in self.tensors:  # by keys with a slash
            name += "'"
        tensor = tensor.detach().cpu()
        steps = tensor.stride()
        order = sorted(range(tensor.ndim), key=lambda axis: -steps[axis])
        turned = not tensor.is_contiguous() and tensor.permute(order).is_contiguous()
        kept = tensor.permute(order) if turned else tensor
        self.tensors[name] = kept.clone(memory_format=torch.contiguous_format)
        return {_TAG: kind, "name": name, **({"order": order} if turned else {})}


@dataclass
class Decoder:
    """Inverse of :class:`Encoder`, with the tensors that it collected."""

    tensors: Mapping[str, torch.Tensor]
    _known: dict[tuple[str, str], Any] = field(default_factory=dict)

    def decode(self, tree: Tree) -> Any:
        """Value of a tree; LookupError, TypeError or ValueError where it is none."""
        if isinstance(tree, list):
            return [self.decode(each) for each in tree]
        if not isinstance(tree, dict):
            return tree
        if _TAG not in tree:
            return {key: self.decode(each) for key, each in tree.items()}
        match tree[_TAG]:
            case "float":
                return float(tree["value"])
            case "scalar":
                return np.dtype(tree["dtype"]).type(self.decode(tree["value"]))
            case "tensor" | "array" as kind:
                key = kind, tree["name"]
                if key not in self._known:
                    tensor = self.tensors[tree["name"]]
                    if "order" in tree:
                        tensor = tensor.permute(*np.argsort(tree["order"]).tolist())
                    self._known[key] = tensor if kind == "tensor" else tensor.numpy()
                return self._known[key]
            case "texts":
                return self._texts(tree)
            case "tuple" | "set" | "frozenset" as kind:
                return {"tuple": tuple, "set": set, "frozenset": frozenset}[kind](self.decode(tree["items"]))
            case "dict":
                return {self.decode(key): self.decode(each) for key, each in tree["items"]}
            case "defaultdict":
                return defaultdict(dict, {self.decode(key): self.decode(each) for key, each in tree["items"]})
            case "table":
                index, columns = self.decode(tree["index"]), self.decode(tree["columns"])
                values = {i: self.decode(tree["values"][str(i)]) for i in range(len(columns))}
                series = {i: pd.Series(each, index=index, dtype=each.dtype) for i, each in values.items()}
                return pd.DataFrame(series, index=index).set_axis(columns, axis=1)
            case "range":
                return pd.RangeIndex(tree["start"], tree["stop"], tree["step"], name=self.decode(tree["name"]))
            case "index":
                if tree["dtype"] not in _OF_INDEX:
                    raise ValueError(f"An index has values of {tree['dtype']!r}.")
                return pd.Index(self.decode(tree["values"]), dtype=tree["dtype"], name=self.decode(tree["name"]))
            case other:
                raise ValueError(f"There are no values of the kind {other!r}.")

    def _texts(self, tree: Tree) -> np.ndarray:
        dtype = np.dtype(tree["dtype"])
        if dtype.kind not in "OU":
            raise ValueError(f"An array of texts has values of {dtype}.")
        found = np.empty(len(tree["items"]), dtype=dtype)
        for i, each in enumerate(tree["items"]):
            found[i] = self.decode(each)
        return found.reshape(tree["shape"])


def _unknown(name: str, what: str) -> TypeError:
    return TypeError(
        f"{name} is {what}, which is not saved: give it as numbers, texts, lists, dicts, arrays or tables of numbers, "
        "or leave it out."
    )
