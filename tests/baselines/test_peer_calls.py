"""Programs that end, fail, take too long, or are left behind."""

import os
import subprocess
import sys
import textwrap
import time

import pytest

from raptorgraph.baselines._peer_calls import call, last_line
from raptorgraph.baselines._peers import DRIVER

SLEEPER = "import time; time.sleep(60)"


def test_what_it_prints_is_in_the_log(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    code = """if True:
        import os, sys
        print(os.getcwd(), os.environ["SEED"], "PYTHONPATH" in os.environ)
        print("end", file=sys.stderr)
    """
    log, folder = tmp_path / "logs" / "one.log", tmp_path / "here"
    folder.mkdir()
    call("it", [sys.executable, "-c", code], log, folder=folder, variables={"SEED": "3"})
    assert set(log.read_text().splitlines()) == {f"{folder} 3 False", "end"}


def test_a_failure_says_the_last_line_and_where_the_others_are(tmp_path):
    log = tmp_path / "one.log"
    with pytest.raises(RuntimeError) as error:
        call("The tool", [sys.executable, "-c", "print('a'); raise ValueError('no genes')"], log)
    assert str(error.value) == f"The tool ended with exit code 1: ValueError: no genes. The whole log is {log}."
    with pytest.raises(RuntimeError, match=r"was killed by signal 9: it printed nothing\."):
        call("The tool", [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], log)


def test_the_last_line(tmp_path):
    log = tmp_path / "log"
    for text, last in [(b"", "it printed nothing."), (b"x" * 9000 + b"\n\xff end!\n\n \n", "\ufffd end!")]:
        log.write_bytes(text)
        assert last_line(log) == last


@pytest.mark.parametrize("how", ["too long", "interrupted"])
def test_what_it_started_ends_with_it(how, tmp_path, monkeypatch):
    """The pipe is closed when the last process that holds it has ended."""
    os.mkfifo(tmp_path / "held")
    held = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    code = f"""
        import subprocess, sys, time
        subprocess.Popen([sys.executable, "-c", {SLEEPER!r}], stdout=open({str(tmp_path / "held")!r}, "w"))
        print("started", flush=True)
        time.sleep(60)
    """
    code = textwrap.dedent(code)
    log, wait = tmp_path / "log", subprocess.Popen.wait

    def interrupted(self, timeout=None):
        if timeout is None and not self.returncode and not stopped:
            while "started" not in log.read_text():
                time.sleep(0.01)
            stopped.append(True)
            raise KeyboardInterrupt
        return wait(self, timeout)

    stopped = []
    if how == "interrupted":
        monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            call("The tool", [sys.executable, "-c", code], log)
    else:
        with pytest.raises(TimeoutError, match=rf"The tool took longer than 1 s and was stopped; its log is {log}\."):
            call("The tool", [sys.executable, "-c", code], log, timeout=1)
    monkeypatch.undo()
    began = time.monotonic()
    os.set_blocking(held, True)
    assert os.read(held, 1) == b""
    os.close(held)
    assert time.monotonic() - began < 20


def test_a_tool_ends_when_its_parent_is_killed():
    code = f"""
        import importlib.util, sys, time
        spec = importlib.util.spec_from_file_location("driver", {str(DRIVER)!r})
        driver = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(driver)
        driver.end_with(int(sys.argv[1]))
        print("watches", flush=True)
        time.sleep(60)
    """
    start = f"""
        import os, subprocess, sys, time
        code = {textwrap.dedent(code)!r}
        subprocess.Popen([sys.executable, "-c", code, str(os.getpid())], start_new_session=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(start)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "watches\n"
        began = time.monotonic()
        parent.kill()
        assert parent.stdout.read() == ""  # the pipe is closed when the last process that holds it has ended
        assert time.monotonic() - began < 20
