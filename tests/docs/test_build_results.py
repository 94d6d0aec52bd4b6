import importlib.util
import json
from pathlib import Path

import pytest

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
