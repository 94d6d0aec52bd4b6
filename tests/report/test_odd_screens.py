"""Screens that lack something get a report too, which says what they lack."""

import re

import numpy as np
import pytest

from raptorgraph.cli import _run

pytestmark = pytest.mark.usefixtures("few_steps")


def log_values(adata):
    adata.X = np.log1p(1e4 * adata.X.toarray() / adata.obs["total_counts"].to_numpy()[:, None])
    return adata


def only(adata, keep):
    return adata[adata.obs["perturbation"].map(lambda label: label == "control" or keep(label)).to_numpy(bool)].copy()


def few_controls(adata):
    controls = np.flatnonzero(adata.obs["perturbation"] == "control")
    return adata[np.setdiff1d(np.arange(adata.n_obs), controls[3:])].copy()


def three_genes(adata):
    labels = adata.obs["perturbation"].astype(str)
    adata.obs["perturbation"] = labels.mask(labels == "P01+P02", "P01+P02+P03")
    return adata


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (log_values, {}, "The values are log-normalized, not counts"),
        (lambda x: only(x, lambda label: "+" in label), {}, "9 combinations with a gene that was not perturbed alone"),
        (lambda x: only(x, lambda label: "+" not in label), {}, "this screen has no combinations"),
        (lambda x: only(x, lambda label: label == "P01"), {}, "There is no pair: only one gene was perturbed"),
        (few_controls, {}, "Only 3 control cells"),
        (three_genes, {}, "1 combination of more than two genes"),
        (lambda x: x, {"preset": "paper"}, "The preset “paper” has no intervals"),
        (lambda x: x, {"singles_only": True}, "As in this run, the fit saw no combination"),
    ],
    ids=["log values", "pairs alone", "singles", "one gene", "few controls", "three genes", "paper", "singles only"],
)
def test_report(adata, tmp_path, monkeypatch, change, options, said):
    monkeypatch.setattr("raptorgraph.evaluation._held_out._N_FOLDS", 1)
    monkeypatch.setattr(
        "raptorgraph.report._stages.write_figures", lambda *arguments, **keywords: None
    )  # tested elsewhere
    change(adata.copy()).write_h5ad(tmp_path / "screen.h5ad")
    result = _run.run(
        tmp_path / "screen.h5ad",
        tmp_path / "out",
        library_size_key="total_counts",
        max_epochs=1,
        report=True,
        resamples=2,
        say=lambda line: None,
        **options,
    )
    page = result.report.read_text(encoding="utf-8")
    assert said in page
    text = re.sub(r"data:[^\"]*", "", page)
    assert not re.search(r"\b(nan|inf)\b|>None<", text.split("<main>")[1].split("</main>")[0])
