"""The whole way from the shell with names that hold whatever a name can hold."""

import html

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raptorgraph import datasets
from raptorgraph.cli._commands import main

pytestmark = pytest.mark.usefixtures("few_steps")

NAMES = [
    "IFNA/B",
    "a.b, c",
    "ß漢",
    "\"x'",
    "<b>P</b>",
    "back\\slash",
    "__lead",
    "two\nlines",
    "L" * 200,
    "[red]$x$\\frac",
]


@pytest.mark.filterwarnings("ignore:Glyph .* missing from")
def test_tables_and_page_have_the_names_as_they_are(tmp_path, capsys):
    adata = datasets.simulate(
        30, 10, n_doubles=3, n_control_cells=60, n_cells_per_perturbation=12, n_truth_cells=10, seed=0
    )
    del adata.uns["simulation"]
    name_of = {f"P{i:02d}": name for i, name in enumerate(NAMES, 1)}
    adata.var_names = [name_of.get(name, name) for name in adata.var_names]
    labels = ["+".join(name_of.get(gene, gene) for gene in label.split("+")) for label in adata.obs["perturbation"]]
    adata.obs["perturbation"] = pd.Categorical(labels)
    adata.write_h5ad(tmp_path / "screen.h5ad")
    out = tmp_path / "a folder, ß"
    arguments = ["run", tmp_path / "screen.h5ad", "--out", out, "--max-epochs", 1, "--report", "--resamples", 0]
    assert main([str(argument) for argument in arguments]) == 0
    capsys.readouterr()

    # "\r\n" and "\n" alike are read as they were written
    table = pd.read_csv(out / "effects.csv", keep_default_na=False)
    assert set(NAMES) < set(table["perturbation"])
    assert set(table["gene"]) == set(adata.var_names)
    pairs = pd.read_csv(out / "interactions.csv", keep_default_na=False)
    assert set(pairs["gene_a"]) | set(pairs["gene_b"]) == set(NAMES)
    assert len(pairs) == 45

    written = ad.read_h5ad(out / "annotated.h5ad")
    effects = written.uns["raptorgraph"]["effects"]
    kept = table[table["perturbation"].isin(list(effects["perturbation"].cat.categories))]
    both = kept.merge(effects.astype({"perturbation": str, "gene": str}), on=["perturbation", "gene"])
    assert len(both) == len(effects)
    np.testing.assert_allclose(both["effect_x"], both["effect_y"], rtol=1e-5, atol=1e-6)

    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<b>P</b>" not in page
    assert html.escape("<b>P</b>") in page
    assert all((out / name).is_file() for name in ("dag.csv", "perturbations.csv", "summary.csv", "training.png"))
