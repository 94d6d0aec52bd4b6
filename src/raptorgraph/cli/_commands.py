"""Command line: ``raptorgraph demo``, ``run``, ``benchmark`` and ``peers``."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import shlex
import signal
import sys
import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.table import Table

from raptorgraph._failures import causes, told
from raptorgraph._version import __version__
from raptorgraph.baselines._peers import PEERS
from raptorgraph.benchmark import EXPERIMENTS
from raptorgraph.benchmark._executors import EXECUTORS
from raptorgraph.cli._signals import WORDS, interruptible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd

    from raptorgraph.report._results import Result

_FOLDED = 16  # characters of a column of words that is too wide for its neighbours


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments without the name of the program; default those of the process.

    Returns
    -------
    int
        Exit code: 0; or with one line on stderr 2 after bad input or a failure, 130 after an interruption, 143 after a
        SIGTERM, 141 where the reader of stdout has gone. ``RAPTORGRAPH_DEBUG=1`` in the environment shows the traceback
        of a failure too.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    args = vars(_parser().parse_args(argv))
    work, show = args.pop("work"), args.pop("show")
    if work in (_demo, _run):
        args["command"] = shlex.join(["raptorgraph", *argv])
    console = _Console(highlight=False, markup=False)  # names of genes are no markup
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may have no letter for a name
    with interruptible() as came:
        try:
            with _quiet():
                result = work(**args, say=console.print)
            show(result, console)
            sys.stdout.flush()
        except BrokenPipeError:
            console.on_broken_pipe()
            return 141
        except BaseException as error:  # noqa: BLE001  the last place to turn what went wrong into one line
            # a library may turn an interruption into an exit, or into an error of its own
            if came or any(isinstance(each, KeyboardInterrupt) for each in causes(error)):
                number = came[0] if came else int(signal.SIGINT)
                return _failed(f"{WORDS[number]}; the same command goes on where it stopped", 128 + number)
            if isinstance(error, SystemExit):
                return _failed(f"the work ended with exit code {error.code}")
            return _failed(told(error))
    return 0


class _Console(Console):
    """Console that goes on in silence where its reader has gone: the files are worth more than the lines."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        with contextlib.suppress(OSError, ValueError):  # a stream that is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(message: str, code: int = 2) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _demo(**options: Any) -> Result:
    from raptorgraph.cli._run import demo  # here, since torch takes seconds to import

    return demo(**options)


def _run(**options: Any) -> Result:
    from raptorgraph.cli._run import run

    return run(control=_control(options), **options)


def _benchmark(**options: Any) -> dict[str, pd.DataFrame]:
    from raptorgraph.benchmark import run

    name, out, say = options.pop("name"), options.pop("out"), options.pop("say")
    predictions = _once(options.pop("predictions"), "--predictions {}=...")
    special = _once(options.pop("set"), "--set {}=...")
    for key in {*options, "name", "out", "predictions", "control"}.intersection(special):
        raise ValueError(f"--set {key}=...: there is an option --{key.replace('_', '-')}, use that one.")
    tables: dict[str, pd.DataFrame] = run(
        name, out=out, control=_control(options), predictions=predictions or None, **options, **special
    )
    say(f"Tables and figure are in {out}.")
    return tables


def _peers(action: str, say: Callable[[str], None], **options: Any) -> dict[str, pd.DataFrame] | None:
    from raptorgraph.cli import _peers as peers

    if action == "list":
        return peers.peers_list(say)
    if action == "install":
        peers.peers_install(options["names"], options["python"], say)
    else:
        peers.peers_remove(options["names"], say)
    return None


def _once(pairs: Sequence[tuple[str, Any]] | None, what: str) -> dict[str, Any]:
    """Values by their names, each of which must be given once."""
    found: dict[str, Any] = {}
    for name, value in pairs or []:
        if name in found:
            raise ValueError(f"{what.format(name)} is given twice.")
        found[name] = value
    return found


def _control(options: dict[str, Any]) -> str | list[str]:
    control: list[str] = options.pop("control") or ["control"]
    return control[0] if len(control) == 1 else control


class _Help(argparse.HelpFormatter):
    """Help that keeps names with a hyphen in one piece."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class _Parser(argparse.ArgumentParser):
    """Parser that reports an error in one line."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(formatter_class=_Help, **arguments)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="raptorgraph", description="Causal models of Perturb-seq screens.")
    parser.add_argument("--version", action="version", version=f"raptorgraph {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo", help="simulate a screen, fit it and predict unseen doubles", description="A screen with known truth."
    )
    demo.set_defaults(work=_demo, show=_show)
    demo.add_argument("--out", type=_path, default=Path("demo"), metavar="DIR", help="results (default: demo)")

    run = commands.add_parser(
        "run", help="fit a screen of your own", description="Fit the screen in an h5ad file or a zarr store."
    )
    run.set_defaults(work=_run, show=_show)
    add = run.add_argument
    add("path", type=_path, metavar="SCREEN", help="h5ad file or zarr store: counts or log-normalized values")
    add("--out", type=_path, required=True, metavar="DIR", help="results")
    add("--preset", choices=["default", "paper", "paper-literal"], default="default", help="configuration of the model")
    add("--guide-key", metavar="COLUMN", help="column of obs with the guide of each cell")
    add("--singles-only", action="store_true", help="hold combinations out of training, score them")
    add("--gene-sets", type=_path, metavar="FILE", help="gene sets as GMT, to compare the latents with")
    text = "cells in a wanted state, of the same genes: ranks the perturbations that bring cells there"
    add("--query", type=_path, metavar="FILE", help=text)
    text = "write report.html too: tests predictions on held-out cells, about twice the time"
    add("--report", action="store_true", help=text)
    add("--resamples", type=_count, metavar="N", help="resampled graphs for the report (default: 20, 0 for none)")

    benchmark = commands.add_parser(
        "benchmark", help="compare models and baselines on a screen", description="Run one of the experiments."
    )
    benchmark.set_defaults(work=_benchmark, show=_show_tables)
    add = benchmark.add_argument
    add("name", metavar="NAME", help=", ".join(EXPERIMENTS))
    text = "an h5ad file, a zarr store, norman2019, papalexi2021, replogle2020 or simulated"
    add("--screen", type=_text, metavar="SCREEN", help=text)
    add("--out", type=_path, default=Path("benchmark"), metavar="DIR", help="default: benchmark")
    text = "repetitions, or A-B (default: 3, of ablation and design 5, of speed 1)"
    add("--seeds", type=_seeds, metavar="N", help=text)
    add("--quick", action="store_true", help="small version whose numbers mean nothing")
    add("--n-jobs", type=_positive, metavar="N", help="processes at a time (default: all cores)")
    add("--n-threads", type=_positive, default=1, metavar="N", help="threads of each (default: 1)")
    text = "where these run: on this machine, or on a cluster of Dask or Ray"
    add("--executor", choices=EXECUTORS, default="processes", help=text)
    add("--methods", type=_list, metavar="A,B", help="methods to compare (default: all)")
    add("--regimes", type=_list, metavar="A,B", help="singles, doubles, paper, seen")
    add("--pair", type=_text, metavar="A+B", help="combination that the profile shows (default: of largest effect)")
    add("--gene-sets", type=_text, metavar="FILE", help="gene sets as GMT, for SENA and enrichment")
    add("--predictions", type=_named, action="append", metavar="NAME=FILE", help="of another tool; may be repeated")
    add("--max-epochs", type=_positive, metavar="N", help="epochs of every model")
    add("--peer-epochs", type=_positive, metavar="N", help="epochs of the tools that `raptorgraph peers` installs")
    add("--gene2go", type=_text, metavar="FILE", help="GO terms of each gene as JSON, which gears needs")
    text = "further option of an experiment, as JSON"
    add("--set", type=_option, action="append", metavar="KEY=VALUE", help=text)

    peers = commands.add_parser(
        "peers",
        help="install published tools to compare with",
        description="Published tools in environments of their own, as methods of the benchmark.",
    ).add_subparsers(required=True, metavar="ACTION")
    listed = peers.add_parser("list", help="tools, their versions, and whether they are installed")
    listed.set_defaults(work=_peers, show=_show_tables, action="list")
    install = peers.add_parser("install", help="make the environments of tools, from pinned versions")
    install.set_defaults(work=_peers, show=_show_tables, action="install")
    install.add_argument("names", type=_text, nargs="+", metavar="NAME", help=", ".join(PEERS))
    text = "Python to make it with (default: one of the needed version that is found)"
    install.add_argument("--python", type=_path, metavar="PATH", help=text)
    removed = peers.add_parser("remove", help="remove the environments of tools")
    removed.set_defaults(work=_peers, show=_show_tables, action="remove")
    removed.add_argument("names", type=_text, nargs="+", metavar="NAME", help=", ".join(PEERS))

    for command in (run, benchmark):
        add = command.add_argument
        add("--perturbation-key", default="perturbation", metavar="COLUMN", help="column of obs with labels")
        add("--control", action="append", metavar="LABEL", help="label of control cells, may be repeated")
        add("--delimiter", default="+", metavar="TEXT", help="between the genes of a combination (default: +)")
        add("--layer", metavar="NAME", help="layer with the values (default: X)")
        add("--library-size-key", metavar="COLUMN", help="column of obs with total counts (default: row sums)")
        add("--batch-key", metavar="COLUMN", help="column of obs with batches")
        add("--n-top-genes", type=_positive, metavar="N", help="keep N variable and all perturbed genes")

    for command in (demo, run):
        command.add_argument("--max-epochs", type=_positive, metavar="N", help="epochs (default: chosen by the model)")
        command.add_argument("--seed", type=_seed, default=0, metavar="N", help="seed (default: 0)")
        text = "replace the results of another run; without it the same command goes on where it stopped"
        command.add_argument("--overwrite", action="store_true", help=text)
    return parser


def _text(text: str) -> str:
    if not text.strip():  # as of a variable of the shell that is not set
        raise argparse.ArgumentTypeError("the value is empty")
    return text


def _path(text: str) -> Path:
    return Path(_text(text))  # of an empty name Path would make the current folder


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not 0 or a positive integer")
    return int(text)


def _seeds(text: str) -> int | range:
    first, found, last = text.partition("-")
    if not found:
        return _positive(text)
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of seeds nor a range such as 5-9")
    return range(int(first), int(last) + 1)


def _list(text: str) -> list[str]:
    return [part.strip() for part in _text(text).split(",") if part.strip()]


def _named(text: str) -> tuple[str, str]:
    name, found, path = text.partition("=")
    if not (name and found and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=FILE")
    return name, path


def _option(text: str) -> tuple[str, Any]:
    key, value = _named(text)
    try:
        return key.replace("-", "_"), json.loads(value)
    except json.JSONDecodeError:
        return key.replace("-", "_"), value


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
        warnings.showwarning = lambda message, *_: print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)
        # not by logger, since these get their levels when the work first imports them
        logging.disable(logging.INFO)
        drawing = logging.getLogger("matplotlib")  # it warns where no folder for its cache can be written
        level = drawing.level
        drawing.setLevel(logging.ERROR)
        try:
            yield
        finally:
            drawing.setLevel(level)
            logging.disable(disabled)


def _show(result: Result, console: Console) -> None:
    from raptorgraph.cli._show import show

    show(result, console)


def _show_tables(tables: dict[str, pd.DataFrame] | None, console: Console) -> None:
    """The first table, which is the one to read, as far as it fits; the others are in files."""
    if tables is None:
        return
    name, table = next(iter(tables.items()))
    texts = table.map(
        lambda value: "-" if value != value else f"{value:.4g}" if isinstance(value, float) else str(value)
    )
    shown = Table(title=name, title_justify="left")
    room = console.width
    for number, column in enumerate(texts.columns):
        folds = bool(texts[column].str.contains(r"[^\W\d_]{2}").any())  # words may, so that numbers have their place
        width = max([len(str(column)), *texts[column].str.len()])
        room -= (min(width, _FOLDED) if folds else width) + 3
        if room < 0 and number:
            console.print(f"{len(texts.columns) - number} of the columns do not fit here: see {name}.md.")
            break
        shown.add_column(str(column), no_wrap=not folds)
    for row in texts.iloc[:, : len(shown.columns)].itertuples(index=False):
        shown.add_row(*row)
    console.print(shown)
