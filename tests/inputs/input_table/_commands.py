"""Arguments of the command line: one line on stderr, exit code 2, nothing trained."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

import pytest

import raptorgraph as rg
from input_table._row import Case, Row, plain

if TYPE_CHECKING:
    from collections.abc import Callable

R, B = "`raptorgraph run`", "`raptorgraph benchmark`"


class Refused(Exception):
    """What the command line said with exit code 2."""

    shown = "error"


def words(case: Case, *arguments: str) -> list[str]:
    """Arguments, in which SCREEN and OUT are paths."""
    places = {"SCREEN": case.folder / "screen.h5ad", "OUT": case.folder / "out"}
    return [str(places.get(word, word)) for word in arguments]


def command(
    group: str, have: str, says: tuple[str, ...], *arguments: str, make: Callable[[Case], Any] | None = None
) -> Row:
    """Row of arguments that do not do."""

    def act(case: Case) -> None:
        from raptorgraph.cli._commands import main

        plain().write_h5ad(case.folder / "screen.h5ad")
        if make is not None:
            make(case)
        case.monkeypatch.setattr(rg.RaptorGraphModel, "train", lambda self, **kwargs: pytest.fail("trained"))
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            try:
                code = main(words(case, *arguments))
            except SystemExit as ended:
                code = ended.code
        said = err.getvalue()
        assert code == 2
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert not (case.folder / "out").exists()
        raise Refused(said)

    return Row(group, have, "", act, Refused, says)


def run(have: str, says: str | tuple[str, ...], *options: str, make: Callable[[Case], Any] | None = None) -> Row:
    """Row of ``raptorgraph run SCREEN --out OUT`` with options."""
    says = (says,) if isinstance(says, str) else says
    return command(R, have, says, "run", "SCREEN", "--out", "OUT", *options, make=make)


def benchmark(have: str, says: str, *arguments: str, make: Callable[[Case], Any] | None = None) -> Row:
    """Row of ``raptorgraph benchmark`` with arguments."""
    return command(B, have, (says,), "benchmark", *arguments, "--out", "OUT", "--quick", make=make)


def gene_sets(content: str) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        (case.folder / "sets.gmt").write_text(content, encoding="utf-8")
        case.monkeypatch.chdir(case.folder)

    return make


def pairs_alone(case: Case) -> None:
    adata = plain()
    adata = adata[~adata.obs["perturbation"].isin(["KLF1", "BAK1"])].copy()
    adata.write_h5ad(case.folder / "screen.h5ad")


SIMULATED = ("prediction", "--screen", "simulated")

ROWS: list[Row] = [
    command(R, "no file named", ("the following arguments are required",), "run"),
    command(R, "no folder for the results", ("the following arguments are required: --out",), "run", "SCREEN"),
    command(R, "an empty name", ("the value is empty",), "run", "", "--out", "OUT"),
    command(R, "a file that is not there", ("There is no file",), "run", "nowhere.h5ad", "--out", "OUT"),
    run("an unknown option", "unrecognized arguments: --epochs", "--epochs", "3"),
    run("an unknown preset", "invalid choice: 'papers'", "--preset", "papers"),
    run("`--max-epochs 0`", "'0' is not a positive integer", "--max-epochs", "0"),
    run("`--max-epochs 1.5`", "'1.5' is not a positive integer", "--max-epochs", "1.5"),
    run("`--seed -1`", "'-1' is not an integer from 0 to 2^32 - 1", "--seed", "-1"),
    run("`--seed 4294967296`", "is not an integer from 0 to 2^32 - 1", "--seed", "4294967296"),
    run("`--n-top-genes none`", "'none' is not a positive integer", "--n-top-genes", "none"),
    run("`--resamples 5` without `--report`", "resamples=5 is for the report: add --report", "--resamples", "5"),
    run("`--resamples some`", "'some' is not 0 or a positive integer", "--report", "--resamples", "some"),
    run("`--resamples 1`", "resamples=1 gives no frequency", "--report", "--resamples", "1"),
    run(
        "a column of labels that is not there", "perturbation_key='gene' is not a column", "--perturbation-key", "gene"
    ),
    run("controls of another name", "No cell is labeled as control", "--control", "NT"),
    run("an empty delimiter", "must be a non-empty string", "--delimiter", ""),
    run("a layer that is not there", "spliced", "--layer", "spliced"),
    run("a column of batches that is not there", "batch_key='plate' is not a column", "--batch-key", "plate"),
    run("a column of guides that is not there", "guide_key='sgrna' is not a column", "--guide-key", "sgrna"),
    run(
        "a column of totals that is not there", "library_size_key='umis' is not a column", "--library-size-key", "umis"
    ),
    run(
        "`--singles-only`, with singles of other genes than the pairs",
        "no combination of genes that were perturbed alone",
        "--singles-only",
        make=pairs_alone,
    ),
    run("gene sets that are not there", "no file of gene sets 'sets.gmt'", "--gene-sets", "sets.gmt"),
    run("an empty file of gene sets", "cannot be read as a GMT file", "--gene-sets", "sets.gmt", make=gene_sets("")),
    run(
        "gene sets without genes of the screen",
        "None of the 1 gene sets",
        "--gene-sets",
        "sets.gmt",
        make=gene_sets("a\t\tNONE1\tNONE2\tNONE3\tNONE4\tNONE5\tNONE6\n"),
    ),
    run("results into a file", "is a file: choose another directory", "--max-epochs", "1", "--out", "SCREEN"),
    command(B, "no experiment named", ("the following arguments are required: NAME",), "benchmark"),
    benchmark("an unknown experiment", "There is no experiment 'guess'", "guess"),
    benchmark("no screen", "Name a screen", "prediction"),
    benchmark("a screen that is not there", "nowhere.h5ad", "prediction", "--screen", "nowhere.h5ad"),
    benchmark("an unknown method", "'guess' is unknown", *SIMULATED, "--methods", "guess"),
    benchmark("`--seeds 0`", "'0' is not a positive integer", "losses", "--seeds", "0"),
    benchmark("`--seeds 9-5`", "a range such as 5-9", "losses", "--seeds", "9-5"),
    benchmark("`--seeds many`", "'many' is not a positive integer", "losses", "--seeds", "many"),
    benchmark("`--n-jobs 0`", "'0' is not a positive integer", "losses", "--n-jobs", "0"),
    benchmark("an unknown executor", "invalid choice: 'cloud'", "losses", "--executor", "cloud"),
    benchmark(
        "an option that the experiment does not have", "'color' is not an option", "losses", "--set", "color=red"
    ),
    benchmark("an option without a value", "not of the form NAME=FILE", "losses", "--set", "color"),
    benchmark("an option twice", "--set k=... is given twice", "losses", "--set", "k=1", "--set", "k=2"),
    benchmark("predictions without a name", "not of the form NAME=FILE", *SIMULATED, "--predictions", "x.csv"),
    benchmark(
        "predictions by the name of a method",
        "'additive' is the name of a method",
        *SIMULATED,
        "--predictions",
        "additive=x.csv",
    ),
]
