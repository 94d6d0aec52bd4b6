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

pytestmark = pytest.mark.usefixtures("few_steps")

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
# blocks of code and of shell; of other blocks the words are those of a page
_ANY_BLOCK = re.compile(r"^```(?:\{code-block\} )?(?:python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_WIDTH = 76  # characters that a page shows without scrolling


@pytest.fixture(scope="module")
def screen():
    return rg.datasets.simulate(80, 5, n_doubles=3, n_control_cells=120, n_cells_per_perturbation=40, seed=0)


@pytest.fixture
def short(monkeypatch):
    """Few updates where a page names no number of epochs."""
    for start in ("_FROM_EFFECTS", "_FROM_NOTHING"):
        monkeypatch.setattr(_training, start, (10, 2))


@pytest.mark.parametrize("page", sorted(page for page in PAGES if _BLOCK.search((DOCS / page).read_text())))
def test_code_runs(page, screen, short, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scvi.settings, "seed", None)  # pages set it
    names = {"rg": rg, "adata": screen.copy()}
    for block in _BLOCK.findall((DOCS / page).read_text()):
        exec(compile(block, str(DOCS / page), "exec"), names)
    plt.close("all")


def written_pages():
    """Pages that are in the repository: those of the API are listed there, and made by the builder."""
    folders = [DOCS, *(DOCS / name for name in ("api", "concepts", "howto", "results"))]
    return [ROOT / "README.md", *sorted(path for folder in folders for path in folder.glob("*.md"))]


@pytest.mark.parametrize("page", written_pages(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_code_fits_on_a_page(page):
    lines = [line for block in _ANY_BLOCK.findall(page.read_text(encoding="utf-8")) for line in block.splitlines()]
    # one option of a command cannot be broken
    assert [line for line in lines if len(line) > _WIDTH and not line.startswith("  --")] == []


def test_code_of_the_readme_runs(screen, short):
    (code,) = _BLOCK.findall((ROOT / "README.md").read_text())
    names = {"adata": screen.copy()}
    exec(compile(code.replace("KLF1+CEBPA", "P01+P02"), "README.md", "exec"), names)
    assert names["model"].is_trained


def slug(heading):
    """Anchor of a heading, as GitHub makes it."""
    words = re.sub(r"[^\w\- ]", "", heading.lower().strip())
    return "#" + words.replace(" ", "-")


def test_anchors_of_the_readme_exist():
    found = [(match[1], match[2]) for match in _LINK.finditer((ROOT / "README.md").read_text()) if match[2]]
    assert found
    for link, anchor in found:
        headings = re.findall(r"^#+ (.*)$", (ROOT / link).read_text(), re.MULTILINE)
        assert anchor in map(slug, headings), link


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
