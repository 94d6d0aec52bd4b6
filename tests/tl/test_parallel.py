import time

import pytest

from raptorgraph.tl._parallel import in_threads


def test_threads_keep_the_order_and_pass_errors_on():
    done = []
    found = in_threads(lambda x: x**2, range(20), threads=3, advance=lambda: done.append(1))
    assert found == [x**2 for x in range(20)]
    assert len(done) == 20
    done = []

    def task(x):
        if x == 0:
            raise ValueError("bad item")
        time.sleep(0.01)
        done.append(x)

    with pytest.raises(ValueError, match="bad item"):
        in_threads(task, range(200), threads=2, advance=lambda: None)
    assert len(done) < 50  # what had not begun was not begun
