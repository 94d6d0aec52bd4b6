import pytest
import torch

from raptorgraph.nn._threads import one_thread


@pytest.mark.parametrize(("when", "inside"), [(True, 1), (False, 2)])
def test_number_of_threads_comes_back(when, inside):
    torch.set_num_threads(2)
    with pytest.raises(RuntimeError, match="stop"), one_thread(when):
        assert torch.get_num_threads() == inside
        raise RuntimeError("stop")
    assert torch.get_num_threads() == 2
