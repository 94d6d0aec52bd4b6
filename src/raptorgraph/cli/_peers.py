"""``raptorgraph peers``: environments of published tools, to compare with them in ``raptorgraph benchmark``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd


def peers_list(say: Callable[[str], None]) -> dict[str, pd.DataFrame]:
    """Tools, what they are compared in, their versions, and whether they are installed."""
    import pandas as pd

    from raptorgraph.baselines._peer_environments import peers_folder, state
    from raptorgraph.baselines._peers import PEERS

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "tool": f"{tool.title} {tool.pinned().get(tool.package, '')}".strip(),
            "experiment": tool.experiment,
            "Python": " or ".join(tool.python),
            "state": state(tool),
        }
        for name, tool in PEERS.items()
    ]
    say(f"Environments are in {peers_folder()}.")
    return {"peers": pd.DataFrame(rows)}


def peers_install(names: Sequence[str], python: Path | None, say: Callable[[str], None]) -> None:
    """Make the environments of these tools."""
    from raptorgraph.baselines import _peer_environments as environments

    tools = [environments.peer(name) for name in names]  # errors before work that takes minutes
    for tool in tools:
        made = environments.install(tool, python)
        version = made.versions.get(tool.package, "of an unknown version")
        say(
            f"{tool.title}: {tool.package} {version}, Python {made.python}, in {environments.environment_folder(tool)}."
        )


def peers_remove(names: Sequence[str], say: Callable[[str], None]) -> None:
    """Remove the environments of these tools."""
    from raptorgraph.baselines import _peer_environments as environments

    for tool in [environments.peer(name) for name in names]:
        gone = environments.uninstall(tool)
        say(f"{tool.title}: {'removed' if gone else 'it was not installed'}.")
