"""What a file binds, and what its statements use."""

import pytest

from raptorgraph.benchmark._names import Source


@pytest.fixture
def read(tmp_path):
    def read(text):
        (tmp_path / "one.py").write_text(text)
        return Source(tmp_path / "one.py", "pack.one")

    return read


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("def f(x, y=one):\n    return x.a + two.b.c(y)\n", {("one",), ("two", "b", "c")}),
        ("def f(one=one):\n    return one\n", {("one",)}),
        ("@one.two\ndef f():\n    one = 3\n    return one\n", {("one",), ("one", "two")}),
        ("class f(one):\n    two = two\n", {("one",), ("two",)}),
        ("f = [one for one in two], lambda three: three\n", {("f",), ("two",)}),
        ("def f():\n    def g():\n        return one\n    one = 1\n    return g\n", set()),
        ("def f() -> one:\n    x: two = 1\n    return x\n", set()),
    ],
)
def test_names_that_come_from_the_module(read, text, names):
    [uses] = read(text).bindings["f"]
    assert uses.names == names


def test_imports_within_a_function(read):
    source = read("def f():\n    import pack.two as t\n    from .three import g as h\n    return t.a.b, h.c\n")
    [uses] = source.bindings["f"]
    assert uses.imported >= {("pack.two", ("a", "b")), ("pack.three", ("g", "c"))}
    assert ("t", "a", "b") not in uses.names


def test_imports_of_the_module(read):
    source = read("import a.b\nimport c.d as e\nfrom . import f\nfrom .g import h as i\nfrom j import *\nx = e\n")
    assert source.imports == {
        "a": [("a", ())],
        "e": [("c.d", ())],
        "f": [("pack", ("f",))],
        "i": [("pack.g", ("h",))],
    }
    assert source.stars == ["j"]
    assert set(source.bindings) == {"x"}
