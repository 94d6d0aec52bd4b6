import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from raptorgraph._threads import in_turn, one_thread


@pytest.mark.parametrize(("when", "inside"), [(True, 1), (False, 2)])
def test_number_of_threads_comes_back(when, inside):
    torch.set_num_threads(2)
    with contextlib.suppress(RuntimeError), one_thread(when):
        assert torch.get_num_threads() == inside
        raise RuntimeError
    assert torch.get_num_threads() == 2


def test_threads_take_turns():
    inside, most = [], []

    @in_turn
    def work(deeper):
        inside.append(threading.get_ident())
        most.append(len(set(inside)))
        time.sleep(0.01)
        if deeper:
            work(False)
        inside.pop()
        return deeper

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, [True, False] * 4)) == [True, False] * 4
    assert len(most) == 12
    assert set(most) == {1}
    assert work.__name__ == "work"
