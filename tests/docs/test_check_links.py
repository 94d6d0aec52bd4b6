"""What leads nowhere among built pages is found, and nothing else."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "check_links.py"


@pytest.fixture(scope="module")
def checker():
    spec = importlib.util.spec_from_file_location("check_links", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_pictures_and_anchors(checker, tmp_path):
    (tmp_path / "deeper").mkdir()
    (tmp_path / "a b.png").touch()
    (tmp_path / "deeper" / "there.html").write_text(
        '<p id="here"></p><a name="old"></a><a href="../index.html#top">x</a>'
    )
    (tmp_path / "index.html").write_text(
        '<h1 id="top"></h1><img src="a%20b.png"><img src="gone.png"><img src="data:image/png;base64,AA">'
        '<a href="deeper/there.html#here">1</a><a href="deeper/there.html#old">2</a>'
        '<a href="deeper/there.html#new">3</a><a href="deeper/there.html#module-a">9</a>'
        '<a href="#top">4</a><a href="#end">5</a><a href="https://example.org/x#y">6</a><a href="mailto:a@b.c">7</a>'
        '<a href="missing.html?x=1#top">8</a><link rel="stylesheet" href="style.css">'
        '<script src="//example.org/x.js"></script>'
    )
    assert checker.broken(tmp_path) == [
        "index.html: gone.png",
        "index.html: deeper/there.html#new (no such anchor)",
        "index.html: #end (no such anchor)",
        "index.html: missing.html?x=1#top",
        "index.html: style.css",
    ]


def test_exit_code(checker, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checker.sys, "argv", ["check_links.py", str(tmp_path)])
    (tmp_path / "index.html").write_text('<a href="index.html">x</a>')
    assert checker.main() == 0
    (tmp_path / "index.html").write_text('<a href="other.html">x</a>')
    assert checker.main() == 1
    assert capsys.readouterr().err == "index.html: other.html\n"
