"""Runs whose clock goes back, while the disk's goes on."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>

typedef int (*Ask)(clockid_t, struct timespec *);

/* From a year ago on, a minute back in each second. */
int clock_gettime(clockid_t which, struct timespec *now)
{
    static Ask ask = 0;
    if (!ask)
        ask = (Ask) dlsym(RTLD_NEXT, "clock_gettime");
    int failed = ask(which, now);
    if (which == CLOCK_REALTIME && !failed) {
        struct timespec passed;
        ask(CLOCK_MONOTONIC, &passed);
        now->tv_sec = %(start)dL - 60 * passed.tv_sec;
        now->tv_nsec = 999999999 - passed.tv_nsec;
    }
    return failed;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now)
        *now = found.tv_sec;
    return found.tv_sec;
}
"""


@pytest.fixture(scope="module")
def back(tmp_path_factory):
    """Environment of processes whose clock goes back."""
    folder = tmp_path_factory.mktemp("clock")
    if shutil.which("cc") is None:
        pytest.skip("no compiler of C, with which the clock is made")
    start = int(time.time()) - 365 * 86_400
    (folder / "clock.c").write_text(CLOCK % {"start": start})
    library = folder / "clock.so"
    argv = ["cc", "-shared", "-fPIC", "-o", library, folder / "clock.c", "-ldl"]
    subprocess.run(argv, check=True, capture_output=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LD_PRELOAD": str(library)}
    code = "import time; one = time.time(); time.sleep(1.1); print(one, time.time())"
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, env=environment, check=True, capture_output=True, text=True)
    first, second = map(float, done.stdout.split())
    assert second < first - 30 < time.time() - 300 * 86_400
    return environment


def test_a_run(back, screen, record, tmp_path):
    code, _, err = screen.command.run(tmp_path, environment=back)
    assert (code, err) == (0, "")
    screen.check_same(tmp_path)
    record("a clock that goes back", "`run`", "the results of an unbroken run")


def test_a_run_that_was_broken_off(back, screen, tools, record, tmp_path):
    """Files are of a time that is still to come."""
    process = screen.command.start(tmp_path)
    tools["until"](lambda: "network" in tools["manifest"](tmp_path)["stages"], process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for path in tmp_path.rglob("*"):
        os.utime(path, (time.time() + 1e6, time.time() + 1e6))
    code, out, err = screen.command.run(tmp_path, environment=back)
    assert (code, err) == (0, "")
    assert "Network" in out.partition("there already, and kept")[0]
    screen.check_same(tmp_path)
    record(
        "a clock that goes back", "SIGKILL of `run`", "goes on at the first part that is missing, to the same results"
    )


def test_a_run_that_finds_another_one(back, screen, tools, record, tmp_path):
    first = screen.command.start(tmp_path)
    tools["until"]((tmp_path / "out" / ".run" / "holder.json").exists, first)
    first.send_signal(signal.SIGSTOP)
    code, _, err = screen.command.run(tmp_path, environment=back)
    first.send_signal(signal.SIGCONT)
    first.communicate()
    assert code == 2
    assert err.startswith(f"error: 'out' is written to by process {first.pid} on ")
    assert first.returncode == 0
    screen.check_same(tmp_path)
    record("a clock that goes back", "two runs at once", "the second has exit code 2 and one line that names the first")
