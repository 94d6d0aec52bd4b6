"""The process that waits for the command says how it ended, in one line, and neither outlives the other."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
import tomllib
from pathlib import Path

import pytest

from raptorgraph.cli._supervisor import _words

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have one process")

# the command line is a function of the test, since the real one takes seconds to import
CODE = """
import ctypes, os, resource, signal, subprocess, sys, time, types

def main():
    {body}

sys.modules["raptorgraph.cli._commands"] = types.SimpleNamespace(main=main)
from raptorgraph.cli._supervisor import main
sys.exit(main())
"""
AGAIN = "; the same command goes on where it stopped\n"
LESS = "; fewer genes (--n-top-genes) need less" + AGAIN


def argv(body):
    return [sys.executable, "-c", CODE.format(body=textwrap.indent(textwrap.dedent(body), "    ").strip())]


def ended(body, **options):
    """Exit code, stdout and stderr of a command."""
    done = subprocess.run(argv(body), capture_output=True, text=True, check=False, timeout=60, **options)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("body", "code", "err"),
    [
        ("return 0", 0, ""),
        ("print('error: wrong', file=sys.stderr); return 2", 2, "error: wrong\n"),
        ("sys.exit(141)", 141, ""),
        ("ctypes.CDLL(None).abort()", 134, f"error: SIGABRT ended the work{AGAIN}"),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            137,
            f"error: SIGKILL ended the work, as the system does where memory runs out{LESS}",
        ),
        # as a library in C++ and the allocator of Rust do
        (
            "os.write(2, b'terminate called\\n  what():  std::bad_alloc\\n'); os.abort()",
            134,
            f"error: the memory does not suffice, SIGABRT ended the work (what():  std::bad_alloc){LESS}",
        ),
        ("raise KeyError('gene')", 2, f"error: the work failed (KeyError: 'gene'){AGAIN}"),
        (
            "raise MemoryError('bad_alloc')",
            2,
            f"error: the memory does not suffice, the work failed (MemoryError: bad_alloc){LESS}",
        ),
        # what is written past Python is shown where all went well, and is no second line beside an error
        ("os.write(2, b'a note\\n'); return 0", 0, "a note\n"),
        ("os.write(2, b'a note\\n'); print('error: wrong', file=sys.stderr); return 2", 2, "error: wrong\n"),
        ("subprocess.run(['sh', '-c', 'echo a note >&2'], check=True); return 0", 0, "a note\n"),
    ],
)  # fmt: skip
def test_how_a_command_ends(body, code, err):
    assert ended(f"print('line')\nsys.stdout.flush()\n{body}") == (code, "line\n", err)


def test_memory_that_is_limited():
    code, out, err = ended(
        """
        return os.kill(os.getpid(), signal.SIGSEGV)
        """,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40)),
    )
    assert (code, out) == (139, "")
    assert err == f"error: the memory does not suffice, SIGSEGV ended the work{LESS}"
    assert _words(signal.SIGSEGV, "", limited=False) + "\n" == f"SIGSEGV ended the work{AGAIN}"


def test_all_is_shown_on_request():
    code, _, err = ended("raise KeyError('gene')", env=os.environ | {"RAPTORGRAPH_DEBUG": "1"})
    assert code == 2
    assert "Traceback" in err
    assert err.endswith(f"error: the work failed (KeyError: 'gene'){AGAIN}")


WAITING = """
came = []
signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
print(os.getpid(), flush=True)
end = time.monotonic() + 30
while not came and time.monotonic() < end:
    time.sleep(0.01)
time.sleep(0.2)
print(len(came), flush=True)
return 128 + came[0]
"""


@pytest.fixture
def waiting():
    """A command that waits for a signal, in a group of processes of its own, and the process that it works in."""
    process = subprocess.Popen(argv(WAITING), stdout=subprocess.PIPE, text=True, start_new_session=True)
    yield process, int(process.stdout.readline())
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_passed_on(number, waiting):
    process, pid = waiting
    assert pid != process.pid
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == "1\n"
    assert process.returncode == 128 + number


def test_who_waits_takes_the_work_along(waiting):
    process, pid = waiting
    process.kill()
    process.communicate(timeout=30)  # returns when nobody holds its stdout any more
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_module_and_the_command_are_this_one():
    root = Path(__file__).parents[2]
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"raptorgraph": "raptorgraph.cli._supervisor:main"}
    assert "from raptorgraph.cli._supervisor import main" in (root / "src/raptorgraph/__main__.py").read_text()
