"""``raptorgraph peers`` from the shell."""

import pytest

from raptorgraph.baselines import _peer_environments as environments
from raptorgraph.cli._commands import main


def run(*arguments):
    try:
        return main(["peers", *map(str, arguments)])
    except SystemExit as exit_:
        return exit_.code


def test_list(fake_peer, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    fake_peer()
    assert run("list") == 0
    printed = capsys.readouterr().out
    assert str(environments.peers_folder()) in printed.replace("\n", "")
    rows = {line.split()[1]: line for line in printed.splitlines() if line.startswith("│")}
    assert {"gears", "cpa", "fake"} <= set(rows)
    assert "GEARS" in rows["gears"]
    assert "not installed" in rows["gears"]
    assert "Fake 1.2" in rows["fake"]
    assert "3.11" in rows["fake"]
    assert "not installed" not in rows["fake"]


def test_install_and_remove(fake_peer, capsys):
    tool = fake_peer()
    assert run("install", "fake") == 0  # it is whole, so nothing is done
    assert "Fake: fake-tool 1.2, Python 3.11.0, in " in capsys.readouterr().out
    for said in ("removed", "it was not installed"):
        assert run("remove", "fake") == 0
        assert f"Fake: {said}." in capsys.readouterr().out
    assert environments.state(tool) == "not installed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["install", "gear"], "no peer 'gear'; there are gears, cpa"),
        (["install", "fake", "--python", "/no/python"], "'/no/python' is no Python that runs; Fake needs Python 3.11."),
        (["install"], "(see raptorgraph peers install --help)"),
        ([], "(see raptorgraph peers --help)"),
    ],
)
def test_errors_are_one_line(fake_peer, capsys, arguments, message):
    fake_peer(installed=False)
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert message in printed.err
