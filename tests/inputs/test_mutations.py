"""Damaged h5ad files end in a line that says what is wrong, or in the right answer: never in a crash without a word."""

import select
import subprocess
import sys
from collections import Counter
from pathlib import Path

import mutations
import pytest

SILENT = 120  # seconds without a line, the start of the process included

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is limited by what /proc says")


def outcomes(folder, first, last):
    """What the process says of each file; ``died`` and ``hung`` where it says nothing."""
    found = {}
    while first < last:
        arguments = [sys.executable, "-W", "ignore", mutations.__file__, str(folder), str(first), str(last)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
            number, rest = first - 1, b""
            while select.select([process.stdout], [], [], SILENT)[0]:
                part = process.stdout.read(65536)
                if not part:
                    break
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    word, name, *said = line.decode().split(" ", 2)
                    number = int(name)
                    if word == "end":
                        found[number] = said[0]
            else:
                process.kill()
                found.setdefault(number, "hung")
            error = process.stderr.read().decode(errors="replace")
        if number not in found:
            assert number >= first, error  # it did not even begin
            found[number] = f"died with code {process.returncode}: {error[-300:]}"
        first = number + 1
    return found


def check(found, n):
    assert sorted(found) == list(range(n))
    kinds = {number: mutations.kind_of(number) for number in found}
    bad = {
        number: (kinds[number], said)
        for number, said in found.items()
        if not said.startswith(("read: ", "error: ")) or "RAPTORGRAPH_DEBUG" in said or "too slow" in said
    }
    assert bad == {}
    assert all(len(said) > len("error: ") + 10 for said in found.values() if said.startswith("error"))
    assert len({said[:5] for said in found.values()}) == 2  # some are read, some are not


def test_forty_mutated_files(tmp_path):
    check(outcomes(tmp_path, 0, 40), 40)


@pytest.mark.slow
def test_five_hundred_mutated_files(tmp_path):
    found = outcomes(tmp_path, 0, 500)
    check(found, 500)
    by_kind = Counter((mutations.kind_of(number), said.split(":")[0]) for number, said in found.items())
    # of a file that was cut nothing is read
    assert by_kind["truncated", "read"] == 0
