"""The package as it is installed: version, public names, and metadata that agree with one another."""

import importlib
import importlib.metadata
import importlib.resources
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import raptorgraph

ROOT = Path(__file__).parents[1]
PACKAGES = [
    "raptorgraph",
    *(f"raptorgraph.{m.name}" for m in pkgutil.iter_modules(raptorgraph.__path__) if not m.name.startswith("_")),
]


@pytest.fixture(scope="module")
def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(r.name): r.specifier for r in requirements}


def test_version_is_that_of_pyproject(pyproject):
    try:
        installed = importlib.metadata.version("raptorgraph")
    except importlib.metadata.PackageNotFoundError:
        assert raptorgraph.__version__ == "0+unknown"
    else:
        assert raptorgraph.__version__ == installed == pyproject["project"]["version"]


def test_citation_names_the_version(pyproject):
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited
    assert cited[1] == pyproject["project"]["version"]


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_exist(name):
    package = importlib.import_module(name)
    assert len(set(package.__all__)) == len(package.__all__) > 0
    assert [public for public in package.__all__ if not hasattr(package, public)] == []


def test_the_package_says_that_it_has_types(pyproject):
    assert (importlib.resources.files("raptorgraph") / "py.typed").is_file()
    assert "Typing :: Typed" in pyproject["project"]["classifiers"]


def test_addresses_are_those_of_one_repository(pyproject):
    urls = pyproject["project"]["urls"]
    assert {"Homepage", "Documentation", "Source", "Issues", "Changelog"} == set(urls)
    assert urls["Issues"] == f"{urls['Source']}/issues"
    assert urls["Changelog"].startswith(f"{urls['Source']}/blob/")


def test_types_are_checked_everywhere(pyproject):
    mypy = pyproject["tool"]["mypy"]
    assert mypy["strict"]
    assert "exclude" not in mypy
    assert not any("ignore_errors" in override for override in mypy["overrides"])


def test_dependencies_have_no_upper_bounds(pyproject):
    for line in pyproject["project"]["dependencies"]:
        operators = sorted(s.operator for s in Requirement(line).specifier)
        assert operators[-1] == ">=", line
        assert set(operators[:-1]) <= {"!="}, line  # an exclusion, of what is known to break


def test_installed_versions_are_those_required(pyproject):
    for line in pyproject["project"]["dependencies"]:
        requirement = Requirement(line)
        installed = Version(importlib.metadata.version(requirement.name)).public  # torch 2.13.0+cpu is torch 2.13.0
        assert requirement.specifier.contains(installed, prereleases=True), (line, installed)


def test_constraints_pin_every_dependency(pyproject, pins):
    project = pyproject["project"]
    for line in [*project["dependencies"], *project["optional-dependencies"]["test"], "mypy", "ruff", "types-tqdm"]:
        requirement = Requirement(line)
        (pin,) = pins[canonicalize_name(requirement.name)]
        assert pin.operator == "==", line
        assert Version(pin.version).local is None, line
        assert requirement.specifier.contains(pin.version), line


def test_test_extra_and_group_agree(pyproject):
    assert pyproject["project"]["optional-dependencies"]["test"] == pyproject["dependency-groups"]["test"]


def parts_of(lines):
    """Packages that are installed with the package, and those that these need."""
    found, todo = {}, [Requirement(line) for line in lines]
    while todo:
        requirement = todo.pop()
        extras = requirement.extras or {""}
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        name = canonicalize_name(requirement.name)
        if not wanted or extras <= found.get(name, set()):
            continue
        found[name] = found.get(name, set()) | extras
        for line in importlib.metadata.requires(requirement.name) or []:
            inner = Requirement(line)
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                inner.marker = None
                todo.append(inner)
    return sorted(found)


def test_no_part_has_a_license_that_would_bind_users(pyproject):
    parts = parts_of(pyproject["project"]["dependencies"])
    assert {"torch", "scvi-tools", "numpy", "h5py"} <= set(parts)  # h5py comes with anndata
    bound = {}
    for name in parts:
        about = importlib.metadata.metadata(name)
        texts = [text for text in about.get_all("Classifier") or [] if text.startswith("License ::")]
        texts += [text.splitlines()[0] for key in ("License-Expression", "License") if (text := about.get(key))]
        strict = [
            text for text in texts if re.search(r"(?<!L)GPL|General Public|Affero", text) and "Lesser" not in text
        ]
        if strict and len(strict) == len(texts):  # of several licenses one may choose
            bound[name] = strict
    assert bound == {}
