"""Every function of ``rg.pl`` has a figure on its page."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

import raptorgraph as rg

SCRIPT = Path(__file__).parents[2] / "docs" / "_ext" / "pl_figures.py"


@pytest.fixture(scope="module")
def figures():
    spec = importlib.util.spec_from_file_location("pl_figures", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(rg.pl.__all__))
def test_every_function_is_drawn(figures, name):
    code = figures.FIGURES[name]
    assert code.rpartition("\n")[2].startswith(f"rg.pl.{name}(")
    compile(code, name, "exec")
    assert all(len(line) <= 76 for line in code.splitlines())


def test_the_figure_comes_below_the_first_paragraph(figures):
    lines = ["Draw the graph", "in layers.", "", "More."]
    figures.show_figure(None, "function", "raptorgraph.pl.dag", None, None, lines)
    assert lines[:4] == ["Draw the graph", "in layers.", "", ".. figure:: /api/generated/figures/dag.png"]
    assert "   :alt: Draw the graph in layers." in lines
    assert "   ``rg.pl.dag(model)``" in lines
    assert lines[-2:] == ["", "More."]
    for name in ("raptorgraph.tl.dag_stability", "raptorgraph.pl.no_figure"):
        other = ["One line."]
        figures.show_figure(None, "function", name, None, None, other)
        assert other == ["One line."]


def test_figures_are_drawn_again_only_when_a_file_changed(figures, tmp_path, monkeypatch):
    calls = []

    def run(command, **options):
        calls.append(command)
        (Path(command[-1]) / "made.json").write_text(f'"{figures.digest()}"')

    monkeypatch.setattr(figures.subprocess, "run", run)
    app = SimpleNamespace(srcdir=str(tmp_path))
    figures.draw_figures(app)
    figures.draw_figures(app)
    assert len(calls) == 1
    monkeypatch.setattr(figures, "digest", lambda: "another")
    figures.draw_figures(app)
    assert len(calls) == 2
