import importlib.util
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from raptorgraph.benchmark._experiments import experiment

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("build_results", DOCS / "build_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_what_the_files_say(builder):
    assert {"results", "results/prediction", "results/graphs"} <= set(builder.pages())
    for page in builder.pages():
        assert (DOCS / f"{page}.md").read_text() == builder.build(page=page)


def test_every_number_comes_with_a_command(builder):
    template = "".join((DOCS / f"{page}.md.in").read_text() for page in builder.pages())
    for folder in (DOCS / "benchmark").iterdir():
        for facts in folder.glob("*.json"):
            name = json.loads(facts.read_text())["experiment"]
            assert f"{{{{ {folder.name}/{name}: command }}}}" in template, (folder.name, name)
    assert not [page for page in builder.pages() if "{{" in builder.build(page=page)]


def test_a_page_is_built_when_its_results_are_there(builder, tmp_path):
    (tmp_path / "cost.md.in").write_text("{{ cost/scale }}\n")
    (tmp_path / "plain.md.in").write_text("Text.\n")
    assert builder.pages(tmp_path) == ["plain"]
    place = tmp_path / "benchmark" / "cost"
    place.mkdir(parents=True)
    assert builder.pages(tmp_path) == ["cost", "plain"]
    (place / "scale.csv").write_text("stage,cells\nsums,1.00\n")
    assert builder.build(tmp_path, "cost") == "| stage | cells |\n|---|---|\n| sums | 1.00 |\n"
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "speed.md.in").write_text("{{ cost/scale: figure }}\n")
    (place / "scale.png").write_bytes(b"")
    assert builder.pages(tmp_path) == ["cost", "plain", "results/speed"]
    assert builder.build(tmp_path, "results/speed") == "![scale on cost](../benchmark/cost/scale.png)\n"


def test_placeholders(builder, tmp_path):
    place = tmp_path / "benchmark" / "toy"
    place.mkdir(parents=True)
    (place / "losses.csv").write_text("loss,value\nMSE,1.000 +- 0.100\n")
    facts = {
        "experiment": "losses",
        "screen": "/data/toy.h5ad",
        "setup": {"perturbation_key": "perturbation", "control": "nt", "delimiter": "+", "library_size_key": None},
        "seeds": [0, 1],
        "quick": False,
        "n_top_genes": None,
        "options": {"methods": ["a", "b c"], "betas": [0, 1], "predictions": {"x": "/tmp/x.csv"}},
    }
    (place / "losses.json").write_text(json.dumps(facts))
    (place / "losses.png").write_bytes(b"")
    (tmp_path / "results.md.in").write_text(
        "{{ toy/losses: command }}\n\n{{ toy/losses }}\n\n{{ toy/losses: figure }}\n"
    )
    command = (
        "raptorgraph benchmark losses --screen toy.h5ad --control nt --seeds 2 \\\n"
        "  --methods 'a,b c' --set betas='[0, 1]' --predictions x=x.csv"
    )
    assert builder.build(tmp_path) == (
        f"```bash\n{command}\n```\n\n| loss | value |\n|---|---|\n| MSE | 1.000 ± 0.100 |\n\n"
        "![losses on toy](benchmark/toy/losses.png)\n"
    )


def test_a_missing_file_is_an_error(builder, tmp_path):
    (tmp_path / "results.md.in").write_text("{{ toy/losses: figure }}\n")
    with pytest.raises(FileNotFoundError, match="no figure"):
        builder.build(tmp_path)


def test_lines_of_a_command_fit_on_a_page(builder):
    words = ["raptorgraph benchmark", *(f"--set option-{k}='[{k}]'" for k in range(9)), "--methods '" + "a" * 90 + "'"]
    lines = builder._wrapped(words).split("\n")
    assert " ".join(line.removesuffix(" \\").strip() for line in lines) == " ".join(words)
    assert all(len(line) <= 76 for line in lines[:-1])
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert lines[-1] == "  " + words[-1]  # which has a line of its own


def test_lines_that_wait_for_an_experiment(builder, tmp_path):
    (tmp_path / "paper.md.in").write_text(
        "Before.\n{{ if toy/losses }}\n{{ toy/losses }}\n{{ else }}\nNot measured yet.\n{{ end }}\nAfter.\n"
        "{{ if toy/losses }}\nMore.\n{{ end }}\n"
    )
    assert builder.pages(tmp_path) == ["paper"]
    assert builder.build(tmp_path, "paper") == "Before.\nNot measured yet.\nAfter.\n"
    place = tmp_path / "benchmark" / "toy"
    place.mkdir(parents=True)
    (place / "losses.csv").write_text("loss\nMSE\n")
    assert builder.build(tmp_path, "paper") == "Before.\nNot measured yet.\nAfter.\n"  # nobody says how it was made
    (place / "losses.json").write_text("{}")
    assert builder.build(tmp_path, "paper") == "Before.\n| loss |\n|---|\n| MSE |\nAfter.\nMore.\n"


def test_published_numbers_stand_beside_measured_ones(builder, tmp_path):
    place = tmp_path / "benchmark" / "toy"
    place.mkdir(parents=True)
    (place / "prediction.csv").write_text(
        'regime,method,mmd,"MSE, other"\npaper,no change,0.3,-\npaper,dVAE,0.1 +- 0.01,0.2\nsingles,dVAE,9,9\n'
    )
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "table_1.csv").write_text('method,mmd,"MSE, other"\nscGPT,0.17,0.07\ndVAE,0.08,0.06\n')
    (tmp_path / "paper.md.in").write_text(
        "{{ published/table_1 }}\n\n{{ toy/prediction: beside table_1 where regime=paper }}\n"
    )
    assert builder.pages(tmp_path) == ["paper"]
    assert builder.build(tmp_path, "paper") == (
        "| method | mmd | MSE, other |\n|---|---|---|\n| scGPT | 0.17 | 0.07 |\n| dVAE | 0.08 | 0.06 |\n\n"
        "| method | mmd, published | mmd, measured | MSE, other, published | MSE, other, measured |\n"
        "|---|---|---|---|---|\n"
        "| scGPT | 0.17 | - | 0.07 | - |\n"
        "| dVAE | 0.08 | 0.1 ± 0.01 | 0.06 | 0.2 |\n"
        "| no change | - | 0.3 | - | - |\n"
    )
    (tmp_path / "paper.md.in").write_text("{{ toy/prediction: beside table_1 }}\n")
    with pytest.raises(ValueError, match="3 rows of the measured table are left"):
        builder.build(tmp_path, "paper")


def test_published_tables_name_what_the_experiments_measure():
    """Columns and methods by which they are matched, and the numbers that the package has itself."""
    from raptorgraph.benchmark import _enrichment, _pairing, _prediction
    from raptorgraph.evaluation._methods import MODELS
    from raptorgraph.evaluation._scores import TYPES

    def table(name):
        return pd.read_csv(DOCS / "published" / f"{name}.csv")

    for name in ("table_1", "table_s6"):
        assert set(table(name).columns) - {"method"} <= set(_prediction._SHOWN)
    assert list(table("table_2").columns[1:]) == list(TYPES)
    assert [column.partition(" @ ")[0] for column in table("table_3").columns[1:]] == ["relevant"] * 3
    for name in ("table_1", "table_2", "table_3", "table_s6"):
        assert set(table(name)["method"]) - set(MODELS) <= {"scGPT", "GEARS"}
    pairs = table("table_s8").set_index("interaction")
    assert {name: tuple(row) for name, row in pairs.iterrows()} == _pairing._TABLE_S8
    latents = table("figure_s7")
    found = {(row["latent"], _enrichment._plain_name(row["gene set"])): row["NES"] for _, row in latents.iterrows()}
    assert found == _enrichment._FIGURE_S7


def test_the_page_of_the_paper_has_each_of_its_tables_and_figures():
    text = (DOCS / "paper.md.in").read_text()
    headings = "\n".join(line for line in text.splitlines() if line.startswith(("#", "| ")))
    tables = [f"Table {i}" for i in (1, 2, 3, "S6", "S7", "S8", "S9")] + ["Tables S4 and S5"]
    figures = ["Figures 1, 2 and S4", "Figure 3", "Figures S5 and S6", "Figure S7"]
    assert [name for name in [*tables, *figures] if name not in headings] == []
    # every command names an experiment and options that there are
    commands = re.findall(r"^raptorgraph benchmark ([\w-]+)((?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert len(commands) > 12
    for name, rest in commands:
        given = {option.replace("-", "_") for option in re.findall(r"--([\w-]+)", rest)} - {"screen", "set"}
        given |= set(re.findall(r"--set '(\w+)=", rest))
        assert given <= set(experiment(name).options), (name, given)
