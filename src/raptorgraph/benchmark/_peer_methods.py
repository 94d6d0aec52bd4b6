"""Published tools in environments of their own, as the methods of an experiment: what is asked of them, and checks."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from raptorgraph._arguments import check_integer, check_mapping, check_number
from raptorgraph.baselines._peer_process import labels_for, made_of
from raptorgraph.baselines._peers import PEERS, Peer
from raptorgraph.benchmark._methods import epochs_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.benchmark._settings import Settings
    from raptorgraph.evaluation import Split
    from raptorgraph.screen import Screen

OPTIONS = ("peer_epochs", "peer_options", "peer_timeout", "gene2go")
_TUNED_ON = 0.25  # of the combinations that are fitted, where the split has no part to tune on


def peers_for(experiment: str) -> list[str]:
    """Names of the tools that are methods of an experiment."""
    return [name for name, tool in PEERS.items() if tool.experiment == experiment]


def asked_peers(settings: Settings, experiment: str) -> list[str]:
    """Those of them that the settings ask for."""
    methods = settings.options.get("methods") or []
    names = [str(name).casefold() for name in ([methods] if isinstance(methods, str) else methods)]
    spelled = {name.casefold(): name for name in peers_for(experiment)}
    return [spelled[name] for name in names if name in spelled]


def label_of(name: str, settings: Settings) -> str:
    """Name of a tool in tables, with the settings that are not its own."""
    tool = PEERS[name]
    return tool.label(_epochs(tool, settings), _options(tool, settings))


def facts_of(name: str, settings: Settings, screen: Screen) -> dict[str, Any]:
    """Everything that the answers of a tool depend on beside data and split, as JSON holds it.

    Raises
    ------
    FileNotFoundError
        If a file that it needs is not there.
    TypeError, ValueError
        If an option is wrong, a file that it needs is not named or holds something else, or the screen is nothing that
        the tool can read.
    """
    tool = PEERS[name]
    timeout_of(settings)
    if tool.reads == "counts" and screen.source[1] is None:
        raise ValueError(
            f"methods: {name!r} reads counts, and the screen has log-normalized values: name the layer with counts "
            "(--layer)."
        )
    labels_for(screen.parsed.conditions)
    found: dict[str, Any] = {
        "epochs": _epochs(tool, settings),
        "options": _options(tool, settings),
        "files": {option: _file(tool, option, settings, screen) for option in tool.files},
    }
    return found | made_of(tool, found["files"])  # the last check, since an installation takes minutes


def timeout_of(settings: Settings) -> float | None:
    """Seconds after which a tool is stopped; None for never."""
    timeout = settings.options.get("peer_timeout")
    return None if timeout is None else check_number("peer_timeout", timeout, 0, above=True)


def tuned_on(split: Split, fitted: Sequence[str], screen: Screen, seed: int) -> list[str]:
    """Combinations among the fitted that a tool may choose its best epoch by.

    The split's own part where it is fitted, else a quarter of the combinations, drawn; none where none is fitted.
    """
    if split.validation and set(split.validation) <= set(fitted):
        return list(split.validation)
    combinations = sorted(label for label in fitted if len(screen.genes_of[label]) > 1)
    n = max(1, round(_TUNED_ON * len(combinations))) if len(combinations) > 1 else 0
    chosen = np.random.default_rng([seed, 4]).permutation(len(combinations))[:n]
    return [combinations[i] for i in sorted(chosen)]


def provenance(made: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each tool: its version and Python, its settings where it has any, and the hash of its pins.

    Parameters
    ----------
    made
        What the tools are made of, as `made_of` or :func:`facts_of` gives it, by their names in tables.
    """
    rows = {}
    for label, facts in made.items():
        package = PEERS[facts["name"]].package
        settings = facts.get("options", {})
        rows[label] = {
            "package": f"{package} {facts['versions'][package]}",
            "python": facts["versions"]["python"],
            **({"epochs": facts["epochs"]} if "epochs" in facts else {}),
            **({"settings": ", ".join(f"{name}={value}" for name, value in settings.items())} if settings else {}),
            "pins": facts["made of"].split()[0],
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method").reset_index()


def _epochs(tool: Peer, settings: Settings) -> int | None:
    given = _by_tool(tool, "peer_epochs", settings)
    if tool.epochs is None:
        return None
    if given is not None:
        return check_integer("peer_epochs", given, 1)
    return epochs_of(settings) or tool.epochs


def _options(tool: Peer, settings: Settings) -> dict[str, Any]:
    given = check_mapping("peer_options", settings.options.get("peer_options"))
    _check_names("peer_options", given)
    own = check_mapping(f"peer_options[{tool.name!r}]", given.get(tool.name))
    for option, value in own.items():
        if option not in tool.options:
            known = ", ".join(tool.options) or "none"
            raise ValueError(f"peer_options: {option!r} is no option of {tool.name!r}, which has {known}.")
        check_integer(f"peer_options: {option}", value, 1)
    return {**tool.options, **own}


def _by_tool(tool: Peer, option: str, settings: Settings) -> Any:
    """Value of an option that is one for all tools, or a mapping of them."""
    given = settings.options.get(option)
    if not isinstance(given, Mapping):
        return given
    _check_names(option, given)
    return given.get(tool.name)


def _check_names(option: str, given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in PEERS:
            raise ValueError(f"{option}: there is no peer {name!r}; there are {', '.join(PEERS)}.")


def _file(tool: Peer, option: str, settings: Settings, screen: Screen) -> str:
    """Absolute path of a file that a tool needs."""
    given, flag = settings.options.get(option), f"--{option.replace('_', '-')} FILE"
    if given is None:
        raise ValueError(f"methods: {tool.name!r} needs {tool.files[option]}: {flag}.")
    path = Path(given)
    if not path.is_file():
        raise FileNotFoundError(f"{option}: there is no file {str(path)!r}.")
    if option == "gene2go":
        _check_terms(path, screen)
    return str(path.resolve())


def _check_terms(path: Path, screen: Screen) -> None:
    """ValueError where a file does not hold terms of any perturbed gene."""
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            terms = json.load(file)
    except (EOFError, OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"gene2go: {str(path)!r} cannot be read as JSON, {{symbol: [terms]}}: {text}") from error
    if not isinstance(terms, dict) or not all(isinstance(value, list) for value in terms.values()):
        raise ValueError(f"gene2go: {str(path)!r} is no JSON object of lists, {{symbol: [terms]}}.")
    if not any(terms.get(gene) for gene in screen.perturbed_genes):
        raise ValueError(
            f"gene2go: {str(path)!r} has no terms of any perturbed gene, such as {screen.perturbed_genes[0]!r}: its "
            f"genes are like {', '.join(list(terms)[:3])}."
        )
