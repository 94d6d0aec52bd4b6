import contextlib
import html
import io
import json
import re
import shlex
import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raptorgraph import __version__, datasets
from raptorgraph.cli._commands import main

pytestmark = pytest.mark.usefixtures("few_steps")

FILES = [
    "annotated.h5ad",
    "dag.csv",
    "dag.png",
    "effects.csv",
    "effects.png",
    "effects_map.png",
    "facts.csv",
    "interactions.csv",
    "model",
    "next_pairs.csv",
    "perturbations.csv",
    "run.json",
    "similarity.png",
    "summary.csv",
    "top_genes.csv",
    "training.png",
    "umap.png",
    "volcano.png",
]
OF_REPORT = ["heldout.csv", "report.html", "responders.csv"]
PLAIN = ["--max-epochs", 1, "--library-size-key", "total_counts"]


def names(folder):
    """What is in a folder but for hidden files."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.fixture(scope="module")
def adata():
    adata = datasets.simulate(
        40, 4, n_doubles=3, n_control_cells=80, n_cells_per_perturbation=30, n_truth_cells=20, seed=3
    )
    adata.obs["construct"] = adata.obs["perturbation"].astype(str) + np.resize(["_a", "_b"], adata.n_obs)
    return adata


@pytest.fixture
def screen(adata, tmp_path):
    path = tmp_path / "screen.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def plain(adata, few_steps, tmp_path_factory):
    """Folder and printed lines of a run without a report."""
    folder = tmp_path_factory.mktemp("plain")
    adata.write_h5ad(folder / "screen.h5ad")
    arguments = ["run", folder / "screen.h5ad", "--out", folder / "out", *PLAIN]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([str(argument) for argument in arguments]) == 0
    return folder / "out", printed.getvalue()


def failure(arguments, capsys):
    """The one line on stderr of a run that must fail."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_demo_compares_unseen_doubles_with_the_truth(tmp_path):
    from raptorgraph.cli import _run

    lines, out = [], tmp_path / "deep" / "demo"
    result = _run.demo(
        out,
        seed=1,
        max_epochs=2,
        n_genes=40,
        n_perturbed=4,
        n_doubles=3,
        n_control_cells=80,
        n_cells_per_perturbation=30,
        say=lines.append,
    )
    assert names(out) == sorted([*FILES, *OF_REPORT])
    assert all(path.stat().st_size > 0 for path in out.iterdir())
    assert result.report == out / "report.html"
    assert "Against the truth" in result.report.read_text(encoding="utf-8")
    scores = result.summary.set_index("method")
    assert list(scores.index) == ["raptorgraph", "sum of measured singles", "no change"]
    assert (scores["conditions"] == 3).all()
    assert scores.loc["no change", "relative_mse"] == 1
    assert np.isnan(scores.loc["no change", "pearson"])

    annotated = ad.read_h5ad(out / "annotated.h5ad")
    truth = annotated.uns["simulation"]["adjacency"]
    edges, perturbed = pd.read_csv(out / "dag.csv"), ["P01", "P02", "P03", "P04"]
    right = sum(truth.loc[s, t] != 0 for s, t in zip(edges["source"], edges["target"], strict=True))
    n_true = np.count_nonzero(truth.loc[perturbed, perturbed])
    expected = f"{len(edges)}, of which {right} are among the {n_true} true ones"
    assert result.facts["edges of the graph"] == expected
    assert len(annotated) == 80 + 4 * 30
    assert not annotated.obs["perturbation"].str.contains("+", regex=False).any()
    assert np.isfinite(annotated.obsm["X_raptorgraph"]).all()

    table = pd.read_csv(out / "effects.csv")
    assert list(table.columns) == ["perturbation", "gene", "effect", "sd", "effect_low", "effect_high"]
    for end, sign in (("effect_low", -1), ("effect_high", 1)):
        np.testing.assert_allclose(table[end], table["effect"] + sign * 1.645 * table["sd"], atol=1e-4)
    effects = table.pivot(index="perturbation", columns="gene", values="effect")
    assert effects.shape == (4 + 3, 40)
    truth = annotated.uns["simulation"]["effects"].loc[effects.index, effects.columns]
    doubles = effects.index[effects.index.str.contains("+", regex=False)]
    errors = ((effects - truth) ** 2).loc[doubles].to_numpy().sum() / (truth.loc[doubles] ** 2).to_numpy().sum()
    assert scores.loc["raptorgraph", "relative_mse"] == pytest.approx(errors, rel=1e-3)

    pairs = pd.read_csv(out / "interactions.csv", index_col=0)
    assert len(pairs) == 6
    assert set(pairs.index[pairs["measured"]]) == set(doubles)
    assert lines


def test_run_reports_the_fit(plain):
    out, printed = plain
    assert "Pearson" in printed
    assert "no test of predictions" in " ".join(printed.split())
    assert "GPU" not in printed
    assert "Only 80 control cells" in printed
    assert "In short:" in printed
    assert "cannot be said: --report tests them on held-out cells." in " ".join(printed.split())
    pairs = pd.read_csv(out / "interactions.csv", keep_default_na=False)
    assert {f"{score}_{end}" for score in ("synergy", "magnitude") for end in ("low", "high")} < set(pairs)
    assert pairs["measured"].is_monotonic_increasing
    assert names(out) == FILES
    summary = pd.read_csv(out / "summary.csv")
    assert set(summary["set"]) == {"singles", "combinations"}
    singles = summary[summary["set"] == "singles"]
    assert list(singles["method"]) == ["raptorgraph", "no change"]
    assert (singles["conditions"] == 4).all()


def test_run_with_other_labels_and_held_out_combinations(adata, tmp_path):
    other = adata.copy()
    labels = other.obs["perturbation"].astype(str).str.replace("+", "_", regex=False)
    controls = np.flatnonzero(labels == "control")
    labels.iloc[controls[::2]] = "nt"
    other.obs["guide"] = labels
    del other.obs["perturbation"]
    other.write_h5ad(tmp_path / "screen.h5ad")
    out = tmp_path / "out"
    arguments = ["run", tmp_path / "screen.h5ad", "--out", out, "--max-epochs", 1, "--singles-only", "--delimiter", "_"]
    arguments += ["--perturbation-key", "guide", "--control", "nt", "--control", "control", "--n-top-genes", 20]
    assert main([str(argument) for argument in arguments]) == 0
    summary = pd.read_csv(out / "summary.csv")
    assert list(summary["set"]) == ["singles"] * 2 + ["unseen combinations"] * 3
    annotated = ad.read_h5ad(out / "annotated.h5ad")
    assert len(annotated) == 80 + 4 * 30
    assert 20 <= annotated.n_vars <= 24
    # total counts over all genes, not over those that were kept
    assert (annotated.obs["raptorgraph_library_size"] >= annotated.X.sum(axis=1).A1 - 1e-3).all()


def test_a_control_with_another_name(adata, tmp_path):
    adata = adata.copy()
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace("control", "NT")
    adata.write_h5ad(tmp_path / "screen.h5ad")
    arguments = ["run", tmp_path / "screen.h5ad", "--out", tmp_path / "out", "--max-epochs", 1, "--control", "NT"]
    assert main([str(argument) for argument in arguments]) == 0


def test_run_writes_a_report(screen, plain, tmp_path, capsys):
    out, sets = tmp_path / "out", tmp_path / "sets.gmt"
    genes = [f"P{k:02d}" for k in range(1, 5)] + [f"G{k:04d}" for k in range(5, 41)]
    sets.write_text("".join(f"SET_{k}\tna\t" + "\t".join(genes[k::4]) + "\n" for k in range(4)))
    arguments = ["run", screen, "--out", out, *PLAIN, "--report"]
    arguments = [
        str(argument) for argument in [*arguments, "--resamples", 0, "--gene-sets", sets, "--guide-key", "construct"]
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"The report is {out / 'report.html'}" in printed
    # the terminal tells what the page does
    kept = json.loads((out / "run.json").read_text(encoding="utf-8"))["stages"]["report"]["found"]
    text = " ".join(html.unescape(re.sub("<[^>]*>", " ", (out / "report.html").read_text(encoding="utf-8"))).split())
    assert any("the relative squared error is" in sentence for sentence in kept["short"])
    for sentence in [*kept["short"], *kept["unsaid"]]:
        assert sentence in text
        assert f"- {sentence}" in " ".join(printed.split())
    written = names(out)
    assert written == sorted([*FILES, *OF_REPORT, "enrichment.csv", "latents.csv", "guides.csv"])
    page = (out / "report.html").read_text(encoding="utf-8")
    assert shlex.join(["raptorgraph", *arguments]) in html.unescape(page)
    assert "frequency" not in pd.read_csv(out / "dag.csv")
    assert "compared with 4 gene sets" in page
    assert "column construct" in text
    assert {"P01_a", "P01_b"} < set(pd.read_csv(out / "responders.csv")["guide"])
    assert set(pd.read_csv(out / "enrichment.csv")["gene_set"]) == {f"SET_{k}" for k in range(4)}
    # what the files hold does not depend on whether there is a report
    without, _ = plain
    for name in ("effects.csv", "dag.csv", "summary.csv", "interactions.csv"):
        assert (without / name).read_bytes() == (out / name).read_bytes()


def test_missing_and_foreign_files(tmp_path, capsys):
    out = tmp_path / "out"
    assert "nowhere.h5ad" in failure(["run", tmp_path / "nowhere.h5ad", "--out", out], capsys)
    text = tmp_path / "screen.h5ad"
    text.write_text("gene,cell\n")
    assert "not an h5ad file" in failure(["run", text, "--out", out], capsys)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("sets.txt", b"A\tna\tG0005\n", "cannot be read as a GMT file"),
        ("sets.gmt", b"\xff\xfe\x00binary", "cannot be read as a GMT file"),
        ("sets.gmt", b"one two three\n", "cannot be read as a GMT file"),
        ("sets.gmt", b"", "cannot be read as a GMT file"),
        ("sets.gmt", b"OTHER\tna\tTP53\tMDM2\n", "None of the 1 gene sets"),
    ],
)
def test_gene_sets_that_do_not_fit(screen, tmp_path, capsys, name, content, match):
    path, out = tmp_path / name, tmp_path / "out"
    path.write_bytes(content)
    assert match in failure(["run", screen, "--out", out, "--report", "--gene-sets", path], capsys)
    assert not out.exists()


def test_singles_only_without_combinations(adata, tmp_path, capsys):
    singles = adata[~adata.obs["perturbation"].str.contains("+", regex=False)].copy()
    singles.write_h5ad(tmp_path / "screen.h5ad")
    arguments = ["run", tmp_path / "screen.h5ad", "--out", tmp_path / "out", "--singles-only"]
    assert "without --singles-only" in failure(arguments, capsys)
    assert not (tmp_path / "out").exists()


def test_output_inside_a_file(screen, capsys):
    assert "is a file" in failure(["run", screen, "--out", screen / "out"], capsys)


def test_unknown_command(capsys):
    assert "COMMAND" in failure(["fly"], capsys)


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"raptorgraph {__version__}\n"


@pytest.mark.parametrize("command", ["demo", "run"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    assert re.search(r"--max-epochs N", capsys.readouterr().out)


def test_module_runs():
    done = subprocess.run([sys.executable, "-m", "raptorgraph", "run"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""
