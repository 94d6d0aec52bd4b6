import time

import numpy as np

from raptorgraph.benchmark._measure import Measured


def test_seconds_and_memory_of_a_block():
    with Measured() as work:
        block = np.ones(30_000_000)  # 229 MiB
        time.sleep(0.1)
        del block
    assert 0.1 <= work.seconds < 10
    assert 200 < work.megabytes < 400


def test_memory_that_is_not_used_is_not_counted():
    with Measured() as work:
        pass
    assert work.megabytes < 20
