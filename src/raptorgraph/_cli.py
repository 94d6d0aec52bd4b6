"""Command line: ``raptorgraph demo`` and ``raptorgraph run``."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from raptorgraph import __version__

if TYPE_CHECKING:
    from raptorgraph._run import Result

_N_PAIRS = 10  # shown; the file has all


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments without the name of the program; default those of the process.

    Returns
    -------
    int
        Exit code: 0, or 2 after bad input, with one line on stderr.
    """
    args = vars(_parser().parse_args(argv))
    work = args.pop("work")
    console = Console(highlight=False, markup=False)  # names of genes are no markup
    try:
        with _quiet():
            result = work(**args, say=lambda line: console.print(line))
    except (OSError, ImportError, KeyError, TypeError, ValueError) as error:
        # the text of a KeyError would come in quotes
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
        return 2
    _show(result, console)
    return 0


def _demo(**options) -> Result:
    from raptorgraph._run import demo  # here, since torch takes seconds to import

    return demo(**options)


def _run(**options) -> Result:
    from raptorgraph._run import run

    control = options.pop("control") or ["control"]
    return run(control=control[0] if len(control) == 1 else control, **options)


class _Parser(argparse.ArgumentParser):
    """Parser that reports an error in one line."""

    def error(self, message: str):
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="raptorgraph", description="Causal models of Perturb-seq screens.")
    parser.add_argument("--version", action="version", version=f"raptorgraph {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo", help="simulate a screen, fit it and predict unseen doubles", description="A screen with known truth."
    )
    demo.set_defaults(work=_demo)
    demo.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="results (default: demo)")

    run = commands.add_parser("run", help="fit a screen of your own", description="Fit the screen in an h5ad file.")
    run.set_defaults(work=_run)
    run.add_argument("path", type=Path, metavar="SCREEN.h5ad", help="counts or log-normalized values, cells x genes")
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="results")
    run.add_argument("--perturbation-key", default="perturbation", metavar="COLUMN", help="column of obs with labels")
    run.add_argument("--control", action="append", metavar="LABEL", help="label of control cells, may be repeated")
    run.add_argument("--delimiter", default="+", metavar="TEXT", help="between the genes of a combination (default: +)")
    run.add_argument("--layer", metavar="NAME", help="layer with the values (default: X)")
    run.add_argument("--library-size-key", metavar="COLUMN", help="column of obs with total counts (default: row sums)")
    run.add_argument("--batch-key", metavar="COLUMN", help="column of obs with batches")
    run.add_argument("--n-top-genes", type=_positive, metavar="N", help="keep N variable genes and all perturbed ones")
    run.add_argument("--preset", choices=["default", "paper"], default="default", help="configuration of the model")
    run.add_argument("--singles-only", action="store_true", help="hold combinations out of training, score them")

    for command in (demo, run):
        command.add_argument("--max-epochs", type=_positive, metavar="N", help="epochs (default: chosen by the model)")
        command.add_argument("--seed", type=_seed, default=0, metavar="N", help="seed (default: 0)")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 0 to 2^32 - 1")
    return int(text)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes of the training library, and of warnings only those of this package."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module="raptorgraph", category=UserWarning)
        # not by logger, since these get their levels when the work first imports them
        logging.disable(logging.INFO)
        try:
            yield
        finally:
            logging.disable(disabled)


def _show(result: Result, console: Console) -> None:
    facts = Table(show_header=False, box=None)
    for name, value in result.facts.items():
        facts.add_row(f"{name}:", str(value))
    console.print(facts)

    table = Table(title=result.title, title_justify="left")
    for column in ("conditions", "method"):
        table.add_column(column)
    for column in ("Pearson", "relative MSE"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in result.summary.itertuples():
        pearson = "-" if row.pearson != row.pearson else f"{row.pearson:.3f}"  # NaN: no effect, no correlation
        table.add_row(f"{row.conditions} {row.set}", row.method, pearson, f"{row.relative_mse:.3f}")
    console.print(table)

    pairs = result.interactions
    unmeasured = pairs[~pairs["measured"]] if len(pairs) else pairs
    if len(unmeasured):
        title = f"Unmeasured pairs, highest predicted synergy ({len(unmeasured):,} in all)"
        table = Table(title=title, title_justify="left")
        columns = ("synergy", "neomorphism", "magnitude")
        table.add_column("pair")
        for column in columns:
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("type", no_wrap=True)
        for label, row in unmeasured.head(_N_PAIRS).iterrows():
            table.add_row(label, *(f"{row[column]:.2f}" for column in columns), str(row["interaction"]))
        console.print(table)
