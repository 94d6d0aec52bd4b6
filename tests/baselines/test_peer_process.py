"""A task goes to a process, and files come back."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raptorgraph.baselines._peer_environments import log_file, peers_folder
from raptorgraph.baselines._peer_process import answered, environment, labels_for, stamp

ECHO = """
    import os
    import anndata as ad
    import numpy as np
    import pandas as pd

    def run(cells, task):
        np.ones(5_000_000)
        values = np.array([[task["seed"], task["threads"], int(os.environ["OMP_NUM_THREADS"]), np.random.rand()]])
        return {
            "effects.csv": pd.DataFrame(values, index=["A+B"], columns=["seed", "threads", "omp", "drawn"]),
            "cells.h5ad": cells[cells.obs["perturbation"] == "A"].copy(),
            "seconds": {"fit": 1, "predict": 0.5},
        }
"""


@pytest.fixture
def cells():
    obs = pd.DataFrame({"perturbation": ["control", "A", "A"], "library": [10.0, 20.0, 30.0]}, index=list("xyz"))
    return ad.AnnData(np.arange(6.0, dtype=np.float32).reshape(3, 2), obs=obs, var=pd.DataFrame(index=["g", "h"]))


def test_a_task_and_its_answer(fake_peer, cells):
    tool = fake_peer(ECHO)
    task = {"seed": 7}
    with answered(tool, cells, task, log="one", threads=2) as answer:
        table = pd.read_csv(answer.folder / "effects.csv", index_col=0)
        given = ad.read_h5ad(answer.folder / "cells.h5ad")
        assert not log_file("one").exists() or log_file("one").read_text() == ""
    assert table.loc["A+B", ["seed", "threads", "omp"]].tolist() == [7, 2, 2]
    np.random.seed(7)
    assert table.at["A+B", "drawn"] == pytest.approx(np.random.rand(), rel=1e-12)  # through a text
    np.testing.assert_array_equal(given.X, [[2, 3], [4, 5]])
    assert given.obs["library"].tolist() == [20, 30]
    assert answer.seconds == {"fit": 1.0, "predict": 0.5}
    assert 5_000_000 * 8 / 2**20 < answer.megabytes < 2000
    assert not answer.folder.exists()
    assert not log_file("one").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def run(cells, task):\n    raise ValueError('no such gene')", "exit code 1: ValueError: no such gene"),
        (
            "import pandas as p\ndef run(cells, task):\n    return {'effects.csv': p.DataFrame({'g': [float('nan')]})}",
            r"effects\.csv has values that are missing or infinite\.",
        ),
        ("import os\ndef run(cells, task):\n    os._exit(0)", "ended without an answer"),
    ],
    ids=["fails", "no number", "silent"],
)
def test_a_tool_that_fails_leaves_its_log(fake_peer, cells, code, message):
    tool = fake_peer()
    tool.adapter.write_text(code)
    with (
        pytest.raises(RuntimeError, match=rf"Fake .*{message}") as error,
        answered(tool, cells, {"seed": 0}, log="one"),
    ):
        pass
    assert str(log_file("one")) in str(error.value)
    assert log_file("one").is_file()
    assert list((peers_folder() / "work").iterdir()) == []


def test_a_tool_that_takes_too_long(fake_peer, cells):
    tool = fake_peer("import time\ndef run(cells, task):\n    time.sleep(60)")
    with (
        pytest.raises(TimeoutError, match=r"Fake took longer than 0\.2 s and was stopped; its log is .*one\.log"),
        answered(tool, cells, {"seed": 0}, log="one", timeout=0.2),
    ):
        pass


def test_a_tool_that_is_not_installed(fake_peer, cells):
    with pytest.raises(ValueError, match="Fake is not installed: raptorgraph peers install fake"):
        environment(fake_peer(installed=False))


def test_the_stamp_follows_adapter_pins_and_files(fake_peer, tmp_path):
    tool = fake_peer("a = 1")
    terms = tmp_path / "terms.json"
    terms.write_text("{}")
    found = [stamp(tool, {"gene2go": str(terms)})]
    for path in (tool.adapter, tool.pins, terms):
        path.write_text(path.read_text() + " ")
        found.append(stamp(tool, {"gene2go": str(terms)}))
    assert len(set(found)) == 4


def test_labels():
    assert labels_for([(), ("A",), ("A", "B")]) == ["control", "A", "A+B"]
    with pytest.raises(ValueError, match=r"gene 'A\+' has a '\+'"):
        labels_for([("B",), ("A+", "B")])
