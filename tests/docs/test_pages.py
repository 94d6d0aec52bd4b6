"""Code on the pages runs, block after block on a small screen, and links in the repository's files lead somewhere.

A block that begins with ```python is run; what needs a file of the reader's own is written as a ``{code-block}``. The
builder checks the links between the pages.
"""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import scvi

import raptorgraph as rg
from raptorgraph.model import _training

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ELSEWHERE = {"autotune.md", "hub.md"}  # tests/model: they need packages of their own
PAGES = [
    "quickstart.md",
    "concepts/pairing.md",
    *(f"howto/{path.name}" for path in (DOCS / "howto").glob("*.md") if path.name not in ELSEWHERE),
]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)]*)?\)")


@pytest.fixture(scope="module")
def screen():
    return rg.datasets.simulate(80, 5, n_doubles=3, n_control_cells=120, n_cells_per_perturbation=40, seed=0)


@pytest.mark.parametrize("page", sorted(page for page in PAGES if _BLOCK.search((DOCS / page).read_text())))
def test_code_runs(page, screen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_training, "_FROM_EFFECTS", (10, 2))
    monkeypatch.setattr(scvi.settings, "seed", None)  # pages set it
    names = {"rg": rg, "adata": screen.copy()}
    for block in _BLOCK.findall((DOCS / page).read_text()):
        exec(compile(block, str(DOCS / page), "exec"), names)
    plt.close("all")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_into_the_repository(name):
    links = [match[1] for match in _LINK.finditer((ROOT / name).read_text())]
    assert [link for link in links if not (ROOT / link).exists()] == []
    if name == "README.md":
        assert "docs/judging.md" in links  # the pattern finds links


def test_attributes_of_classes_that_pages_name_exist():
    files = [info.name for info in pkgutil.walk_packages(rg.__path__, "raptorgraph.") if "__main__" not in info.name]
    found = (item for file in files for item in vars(importlib.import_module(file)).items())
    classes = {
        name: kind for name, kind in found if inspect.isclass(kind) and kind.__module__.startswith("raptorgraph")
    }
    named = {
        (match[1], match[2])
        for page in [
            *DOCS.glob("*.md"),
            *(DOCS / "concepts").glob("*.md"),
            ROOT / "README.md",
            ROOT / "CONTRIBUTING.md",
        ]
        for match in re.finditer(r"`(?:~?[a-z][\w.]*\.)?([A-Z]\w+)\.(\w+)[^`]*`", page.read_text(encoding="utf-8"))
        if match[1] in classes
    }
    assert ("EffectPosterior", "mean_and_sd") in named
    assert [name for kind, name in named if not hasattr(classes[kind], name)] == []
