"""Values that are saved come back as they were, with their types; others are named."""

from collections import OrderedDict, defaultdict

import numpy as np
import pandas as pd
import pytest
import torch

from raptorgraph.model._encoding import Decoder, Encoder

TABLE = pd.DataFrame({"loss": np.array([1.5, np.nan], dtype=object)}, index=pd.Index([0, 1], name="epoch"))
VALUES = {
    "plain": [None, True, 3, -(2**80), 0.1, 1e-310, "a\n\ud800é", "", [], {}],
    "infinite": (float("inf"), -float("inf")),
    "keys": {1: "a", (2, "b"): [1], None: 2, "$": 3},
    "a dict with the tag": {"$": "tuple", "items": [1]},
    "keys with a slash": {"a/b": np.ones(2), "a": {"b": np.zeros(2)}},
    "order": {"b": 1, "a": 2},
    "sets": [{1, 2}, frozenset({"x"})],
    "defaultdict": defaultdict(dict, {"X": {"n": 1}}),
    "scalars": [np.float32(0.1), np.float64(0.1), np.int8(-3), np.bool_(True), np.str_("é"), np.uint64(2**63)],
    "arrays": [np.arange(6.0).reshape(2, 3), np.zeros((0, 3), np.float32), np.array(5), np.array([True, False])],
    "numbers": [np.array([1, 2], dtype) for dtype in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4")],
    "texts": [np.array(["a", "bcd"]), np.array([["a", None], [1.5, True]], dtype=object), np.array([], dtype=object)],
    "tensors": [torch.arange(4.0), torch.tensor(2), torch.zeros(0, 2), torch.ones(2, dtype=torch.bfloat16)],
    "tables": [TABLE, TABLE.iloc[:0], pd.DataFrame({"a": [1, 2]}), pd.DataFrame([[1, 2.5]], columns=["x", "x"])],
    "indices": [pd.Index(["a", "b"], name="n"), pd.RangeIndex(2, 9, 3), pd.Index([1.5])],
}


def round_trip(value):
    encoder = Encoder()
    tree = encoder.encode(value, "value")
    return Decoder(encoder.tensors).decode(tree)


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back(name, same):
    value = VALUES[name]
    assert same(round_trip(value), value)


def test_ordered_dicts_are_dicts():
    assert round_trip(OrderedDict(b=1, a=2)) == {"b": 1, "a": 2}


def test_what_is_nan_stays_so():
    found = round_trip([float("nan"), np.float32("nan"), np.array([1, np.nan])])
    assert np.isnan(found[0])
    assert type(found[1]) is np.float32
    np.testing.assert_array_equal(found[2], [1, np.nan])


@pytest.mark.parametrize("made", [np.array, torch.tensor])
def test_axes_lie_in_memory_as_before(made, same):
    rows = made(np.arange(24.0).reshape(2, 3, 4))
    turned = rows.transpose(2, 0, 1) if isinstance(rows, np.ndarray) else rows.permute(2, 0, 1)
    for value in (rows, turned, turned[::2], rows[:, ::2], rows[:, :, None, 0], rows[0].T):
        found = round_trip(value)
        assert same(found, value)
        dense = value.flags.forc if isinstance(value, np.ndarray) else value.is_contiguous()
        if dense or value is turned:
            strides = found.strides if isinstance(value, np.ndarray) else found.stride()
            assert strides == (value.strides if isinstance(value, np.ndarray) else value.stride())


def test_backward_arrays_and_foreign_bytes():
    value = np.arange(5.0)[::-1]
    np.testing.assert_array_equal(round_trip(value), value)
    found = round_trip(np.arange(3, dtype=">i4"))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, [0, 1, 2])


def test_what_comes_twice_is_kept_once():
    value = np.arange(5)
    encoder = Encoder()
    tree = encoder.encode({"a": value, "b": {"c": value}}, "value")
    assert list(encoder.tensors) == ["value/a"]
    found = Decoder(encoder.tensors).decode(tree)
    assert found["a"] is found["b"]["c"]


@pytest.mark.parametrize(
    "value",
    [
        object(), len, 1j, np.complex64(1), np.array([1j]), b"bytes", np.datetime64("2020-01-01"), defaultdict(list),
        pd.Series([1]), pd.Index([1]).astype("category"), pd.DataFrame({"a": pd.Categorical(["x"])}), range(3),
        torch.eye(2).to_sparse(), np.longdouble(1), pd.MultiIndex.from_tuples([(1, 2)]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_other_values_are_named(value):
    with pytest.raises(TypeError, match=r"^model/here/1 is .*, which is not saved"):
        Encoder().encode({"here": [1, value]}, "model")


@pytest.mark.parametrize(
    "tree",
    [
        {"$": "code", "value": "print()"}, {"$": "tensor", "name": "nowhere"},
        {"$": "scalar", "dtype": "zz", "value": 1},
        {"$": "texts", "dtype": "<f8", "shape": [1], "items": [1]}, {"$": "float"}, {"$": ["tuple"]}, {"$": None},
        {"$": "index", "values": [1], "dtype": "category", "name": None},
    ],
    ids=str,
)  # fmt: skip
def test_trees_that_are_none_are_refused(tree):
    with pytest.raises((LookupError, TypeError, ValueError)):
        Decoder({}).decode([tree])
