"""Where a run came from."""

import hashlib
from datetime import UTC, datetime
from types import SimpleNamespace

from raptorgraph.report._record import of_run, source_of_file


def test_a_file_and_a_folder_by_what_they_hold(tmp_path):
    file = tmp_path / "screen.h5ad"
    file.write_bytes(b"cells")
    found = dict(source_of_file(file))
    assert found == {
        "file": str(file),
        "size": "0.0 MB",
        "SHA-256 of the file": hashlib.sha256(b"cells").hexdigest(),
    }
    store = tmp_path / "screen.zarr"
    (store / "X").mkdir(parents=True)
    (store / "b").write_bytes(b"two")
    (store / "X" / "a").write_bytes(b"one")
    assert dict(source_of_file(store))["SHA-256 of the file"] == hashlib.sha256(b"X/aonebtwo").hexdigest()


def test_settings_and_times_of_a_run():
    model = SimpleNamespace(summary_string="A model.\nMore of it.", history={"loss": [3, 2, 1]}, device="cpu")
    options = {"max_epochs": None, "singles_only": True, "gene_sets": ["a", "b"]}
    date = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    found = dict(of_run(SimpleNamespace(model=model, options=options, seconds={"training": 61.7}, date=date)))
    assert found["date"] == "2026-01-02 03:04 UTC"
    assert found["max epochs"] == "not given"
    assert found["singles only"] == "yes"
    assert found["gene sets"] == "a, b"
    assert found["model"] == "A model."
    assert found["epochs of the network"] == "3"
    assert found["times"] == "training 62 s"
