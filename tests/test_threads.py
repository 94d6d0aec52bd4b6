import contextlib

import pytest
import torch

from raptorgraph._threads import one_thread


@pytest.mark.parametrize(("when", "inside"), [(True, 1), (False, 2)])
def test_number_of_threads_comes_back(when, inside):
    torch.set_num_threads(2)
    with contextlib.suppress(RuntimeError), one_thread(when):
        assert torch.get_num_threads() == inside
        raise RuntimeError
    assert torch.get_num_threads() == 2
