"""Build pages such as ``docs/results.md`` from their ``.md.in`` and the benchmark's files under ``docs/benchmark``.

Templates are those of ``docs`` and of ``docs/results``. A page is built as soon as all the folders that it names are
there. A line ``{{ FOLDER/TABLE }}`` in the template becomes the table of ``docs/benchmark/FOLDER/TABLE.csv``; a line
``{{ FOLDER/EXPERIMENT: command }}`` the command that made it, and ``{{ FOLDER/EXPERIMENT: figure }}`` its figure.
Every number on the page comes from these files: ``python docs/build_results.py`` (or ``make results``), with
``--check`` only to say whether the pages are up to date.

Numbers that were published stand in ``docs/published``: ``{{ published/TABLE }}`` is such a table, and
``{{ FOLDER/TABLE: beside PUBLISHED }}`` a table of the benchmark with the published numbers beside its own, matched by
the first column of the published table. ``where COLUMN=VALUE, COLUMN=VALUE`` behind it takes some rows of the
benchmark's table.

Lines between ``{{ if FOLDER/EXPERIMENT }}`` and ``{{ end }}`` are on the page where that experiment has been run, those
behind ``{{ else }}`` where it has not; the page does not wait for it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pandas as pd

from raptorgraph.benchmark._report import to_markdown

DOCS = Path(__file__).parent
_WIDTH = 76  # characters of a line of code that a page shows without scrolling
PUBLISHED = "published"
_PLACE = r"(?P<folder>[\w.-]+)/(?P<name>[\w.-]+)"
_WHAT = r"(: (?P<what>command|figure|beside (?P<published>[\w.-]+)( where (?P<where>[^}]+))?))?"
_LINE = re.compile(rf"^\{{\{{ {_PLACE}{_WHAT} \}}\}}$", re.MULTILINE)
_IF = re.compile(
    rf"^\{{\{{ if {_PLACE} \}}\}}\n(?P<there>.*?)(^\{{\{{ else \}}\}}\n(?P<absent>.*?))?^\{{\{{ end \}}\}}\n",
    re.MULTILINE | re.DOTALL,
)


def pages(docs: Path = DOCS) -> list[str]:
    """Names of the pages whose results are there, such as ``results`` and ``results/graphs``."""

    def places(template: Path) -> set[Path]:
        lines = _LINE.finditer(_IF.sub("", template.read_text()))
        return {_folder(docs, match["folder"]) for match in lines}

    return [
        template.relative_to(docs).as_posix().removesuffix(".md.in")
        for template in sorted([*docs.glob("*.md.in"), *docs.glob("results/*.md.in")])
        if all(place.is_dir() for place in places(template))
    ]


def build(docs: Path = DOCS, page: str = "results") -> str:
    """Text of a page."""
    to_docs = "../" * page.count("/")
    text = _IF.sub(lambda match: _chosen(docs, **match.groupdict()), (docs / f"{page}.md.in").read_text())
    return _LINE.sub(lambda match: _fill(docs, to_docs, **match.groupdict()), text)


def _folder(docs: Path, folder: str) -> Path:
    return docs / PUBLISHED if folder == PUBLISHED else docs / "benchmark" / folder


def _chosen(docs: Path, folder: str, name: str, there: str, absent: str | None) -> str:
    run = (_folder(docs, folder) / f"{name}.json").is_file()
    return there if run else absent or ""


def _fill(
    docs: Path, to_docs: str, folder: str, name: str, what: str | None, published: str | None, where: str | None
) -> str:
    place = _folder(docs, folder)
    if what == "command":
        return command(json.loads((place / f"{name}.json").read_text()))
    if what == "figure":
        if not (place / f"{name}.png").is_file():
            raise FileNotFoundError(f"There is no figure {place / name}.png.")
        return f"![{name} on {folder}]({to_docs}benchmark/{folder}/{name}.png)"
    table = _read(place / f"{name}.csv")
    if published is not None:
        table = beside(table, _read(docs / PUBLISHED / f"{published}.csv"), _conditions(where))
    return to_markdown(table).replace("+-", "±").rstrip()


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)  # texts as they are in the file


def _conditions(where: str | None) -> dict[str, str]:
    return dict(item.strip().split("=", 1) for item in where.split(",")) if where else {}


def beside(measured: pd.DataFrame, published: pd.DataFrame, where: dict[str, str]) -> pd.DataFrame:
    """Published and measured columns in turn, the published rows first; a dash where there is none.

    Parameters
    ----------
    measured
        Table of the benchmark.
    published
        Published table, whose first column names the rows and whose other columns are among those measured.
    where
        Values of columns that the rows to take have; ValueError where no row or several of a name are left.
    """
    for column, value in where.items():
        measured = measured[measured[column] == value]
    key, *metrics = published.columns
    if measured.empty or not measured[key].is_unique:
        raise ValueError(f"{len(measured)} rows of the measured table are left for {where}: each {key} must come once.")
    measured, published = measured.set_index(key), published.set_index(key)
    names = [*published.index, *(name for name in measured.index if name not in published.index)]
    found = pd.DataFrame({key: names})
    for metric in metrics:
        for kind, table in (("published", published), ("measured", measured)):
            found[f"{metric}, {kind}"] = table[metric].reindex(names).fillna("-").to_numpy()
    return found


def command(facts: dict) -> str:
    """Shell command that an experiment was run with."""
    words = ["raptorgraph benchmark", facts["experiment"]]
    if facts["screen"]:
        words.append(f"--screen {Path(facts['screen']).name}")
    for key, value in facts["setup"].items():
        default = {"perturbation_key": "perturbation", "control": "control", "delimiter": "+"}.get(key)
        if value != default:
            words.append(f"--{key.replace('_', '-')} {value}")
    if facts["n_top_genes"]:
        words.append(f"--n-top-genes {facts['n_top_genes']}")
    seeds = facts["seeds"]
    words.append(f"--seeds {len(seeds)}" if seeds == [*range(len(seeds))] else f"--seeds {seeds[0]}-{seeds[-1]}")
    for key, value in facts["options"].items():
        words.append(_option(key, value))
    return "```bash\n" + _wrapped(words) + "\n```"


def _wrapped(words: list[str]) -> str:
    """The words as lines of one command; a word that is longer than a line has one of its own."""
    lines = words[:1]
    for word in words[1:]:
        if len(f"{lines[-1]} {word} \\") <= _WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(f"  {word}")
    return " \\\n".join(lines)


def _option(key: str, value) -> str:
    flag = f"--{key.replace('_', '-')}"
    if key in ("methods", "regimes"):
        return f"{flag} '{','.join(value)}'"
    if key == "pair":
        return f"{flag} '{value}'"
    if key in ("gene_sets", "max_epochs"):
        return f"{flag} {Path(value).name if isinstance(value, str) else value}"
    if key == "predictions":
        return " ".join(f"{flag} {name}={Path(path).name}" for name, path in value.items())
    return f"--set {key.replace('_', '-')}='{json.dumps(value)}'"


def main() -> int:
    """Write the pages, or with ``--check`` compare them."""
    wrong = [page for page in pages() if "--check" in sys.argv[1:] and not _is_built(page)]
    for page in wrong:
        print(f"docs/{page}.md is not what docs/build_results.py makes: run `make results`.", file=sys.stderr)
    if "--check" not in sys.argv[1:]:
        for page in pages():
            (DOCS / f"{page}.md").write_text(build(page=page))
    return int(bool(wrong))


def _is_built(page: str) -> bool:
    path = DOCS / f"{page}.md"
    return path.is_file() and path.read_text() == build(page=page)


if __name__ == "__main__":
    sys.exit(main())
