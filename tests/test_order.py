"""The order of names, and what undoes it."""

import numpy as np

from raptorgraph._order import name_order, places


def test_order_of_names():
    names = ["b", "a10", "a2", "B"]
    order = name_order(names)
    assert [names[i] for i in order] == sorted(names)
    np.testing.assert_array_equal(np.array(names)[order][places(order)], names)


def test_names_that_repeat_keep_the_order_that_they_have():
    assert name_order(["b", "a", "b"]).tolist() == [0, 1, 2]
