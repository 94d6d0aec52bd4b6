"""Files that are put in place as a whole, and that nothing else writes."""

import ast
import errno
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import raptorgraph
from raptorgraph import _files
from raptorgraph._files import file_hash, put_table, put_text, replaced, scratch, size_of, temporary_name, write_h5ad

SOURCE = Path(raptorgraph.__file__).parent


def there(folder):
    return sorted(path.name for path in folder.iterdir())


def make(part, kind, text):
    """A file, or a folder with one in it."""
    if kind == "folder":
        part.mkdir()
        part = part / "inside.txt"
    part.write_text(text)


def fail(part, kind, error):
    make(part, kind, "half")
    raise error


def text_of(path, kind):
    return (path / "inside.txt" if kind == "folder" else path).read_text()


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("swap", [True, False], ids=["in one call", "in two"])
def test_a_whole_one_takes_the_place_of_an_earlier_one(kind, swap, tmp_path, monkeypatch):
    if not swap:
        monkeypatch.setattr(_files, "_exchanged", lambda first, second: False)
    path = tmp_path / "result.zarr"
    for text in ("one", "two"):
        with replaced(path) as part:
            assert part.parent == tmp_path
            assert part.suffix == ".zarr"
            assert part.name.startswith(".")
            make(part, kind, text)
            assert not path.exists() or text_of(path, kind) == "one"
        assert text_of(path, kind) == text
        assert there(tmp_path) == ["result.zarr"]


def test_folders_are_exchanged_in_one_call_where_the_system_can(tmp_path):
    if sys.platform != "linux":
        pytest.skip("other systems rename twice")
    for name in ("first", "second"):
        make(tmp_path / name, "folder", name)
    assert _files._exchanged(tmp_path / "first", tmp_path / "second")
    assert text_of(tmp_path / "first", "folder") == "second"
    assert not _files._exchanged(tmp_path / "first", tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt(), SystemExit(1)])
def test_an_error_leaves_what_was_there_and_nothing_else(kind, error, tmp_path):
    path = tmp_path / "result"
    for before in ([], ["result"]):
        with pytest.raises(type(error)), replaced(path) as part:
            fail(part, kind, error)
        assert there(tmp_path) == before
        if not before:
            make(path, kind, "whole")
    assert text_of(path, kind) == "whole"


def test_a_folder_that_cannot_be_put_in_place_leaves_the_earlier_one(tmp_path, monkeypatch):
    path = tmp_path / "result"
    make(path, "folder", "whole")
    monkeypatch.setattr(_files, "_exchanged", lambda first, second: False)
    rename = Path.replace

    def failing(self, target):
        if self.name.startswith(".") and target == path and text_of(self, "folder") == "new":
            raise OSError(errno.EPERM, "no")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="no"), replaced(path) as part:
        make(part, "folder", "new")
    assert text_of(path, "folder") == "whole"
    assert there(tmp_path) == ["result"]


def test_a_file_takes_no_place_of_a_folder_nor_a_folder_that_of_a_file(tmp_path):
    for before, after in (("file", "folder"), ("folder", "file")):
        path = tmp_path / before
        make(path, before, "whole")
        with pytest.raises(OSError), replaced(path) as part:  # noqa: PT011  of two types
            make(part, after, "new")
        assert text_of(path, before) == "whole"
    assert there(tmp_path) == ["file", "folder"]


def test_permissions_and_links_stay(tmp_path):
    path = tmp_path / "deep" / "table.csv"
    path.parent.mkdir()
    put_text(path, "one")
    path.chmod(0o640)
    link = tmp_path / "link.csv"
    link.symlink_to(path)
    put_text(link, "two")
    assert link.is_symlink()
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o640
    plain = tmp_path / "plain"
    plain.touch()
    put_text(tmp_path / "other", "x")
    assert (tmp_path / "other").stat().st_mode == plain.stat().st_mode


def test_a_file_that_must_not_be_written_stays(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    path.write_text("whole")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=r"table\.csv"):
        put_text(path, "new")
    assert path.read_text() == "whole"


def test_what_is_no_file_is_written_to(tmp_path):
    put_text("/dev/null", "text")
    assert not Path("/dev/null").is_file()
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        put_text(tmp_path / "pipe", "text")
        assert os.read(reading, 10) == b"text"
    finally:
        os.close(reading)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Can't write (errno = 27, error message = 'File too large')"),
    ],
)
def test_a_full_disk_is_said_in_the_same_words(error, tmp_path):
    with (
        pytest.raises(OSError, match=r"(No space left on device|File too large): '.*x\.h5'$"),
        replaced(tmp_path / "x.h5"),
    ):
        raise error


def left_by(code):
    """What a process that is killed leaves in a folder."""
    imports = "import os, signal\nfrom pathlib import Path\nfrom raptorgraph._files import replaced, scratch\n"
    code = imports + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path):
    left_by(
        f"""
        folder = Path({str(tmp_path)!r})
        with scratch(folder) as place, replaced(folder / "a.csv") as part:
            (place / "piece").write_text("half")
            part.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert len(there(tmp_path)) == 2
    running = temporary_name(tmp_path / "b.csv")  # of this process, which runs
    elsewhere = tmp_path / running.name.replace(_files._machine(), "00000000")
    mine = tmp_path / ".raptorgraph-notes"
    for path in (running, elsewhere, mine):
        path.write_text("kept")
    put_text(tmp_path / "a.csv", "whole")
    assert there(tmp_path) == sorted(["a.csv", running.name, elsewhere.name, mine.name])


def test_a_kill_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("whole")
    left_by(
        f"""
        with replaced({str(path)!r}) as part:
            part.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert path.read_text() == "whole"


def test_a_scratch_folder_is_gone_after_the_block(tmp_path):
    with pytest.raises(RuntimeError, match="end"), scratch(tmp_path) as folder:
        fail(folder / "a", "file", RuntimeError("end"))
    assert not there(tmp_path)


def test_tables_checksums_and_sizes(tmp_path):
    table = pd.DataFrame({"x": [1 / 3]}, index=pd.Index(["a"], name="name"))
    put_table(tmp_path / "a.csv", table)
    assert (tmp_path / "a.csv").read_text() == "x\n0.333333\n"
    put_table(tmp_path / "a.csv", table, index=True, digits=None)
    assert (tmp_path / "a.csv").read_text() == f"name,x\na,{1 / 3}\n"
    folder = tmp_path / "folder"
    (folder / "X").mkdir(parents=True)
    (folder / "b").write_bytes(b"two")
    (folder / "X" / "a").write_bytes(b"one")
    assert file_hash(folder / "b") == hashlib.sha256(b"two").hexdigest()
    assert file_hash(folder / "b", "md5") == hashlib.md5(b"two").hexdigest()
    assert file_hash(folder) == hashlib.sha256(b"X/aonebtwo").hexdigest()
    assert (size_of(folder), size_of(folder / "b"), size_of(folder / "none")) == (6, 3, 0)


def test_cells_are_not_begun_where_the_disk_does_not_take_them(tmp_path, monkeypatch):
    cells = ad.AnnData(
        np.ones((50, 40), dtype=np.float32), obs=pd.DataFrame({"a": np.arange(50.0)}, index=list(map(str, range(50))))
    )
    with replaced(tmp_path / "cells.h5ad") as part:
        write_h5ad(part, cells)
    asked = []

    def full(number, start, size):
        asked.append(size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(ad.AnnData, "write_h5ad", lambda *args, **kwargs: pytest.fail("written"))
    with pytest.raises(OSError, match="No space left on device: '.*cells.h5ad'"):  # noqa: SIM117
        with replaced(tmp_path / "cells.h5ad") as part:
            write_h5ad(part, cells)
    assert asked[0] > cells.X.nbytes
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["cells.h5ad"]
    assert ad.read_h5ad(tmp_path / "cells.h5ad").X.sum() == 2000


# -- nothing else writes -----------------------------------------------------------------------------------------------
WRITE = {
    *(
        "dump",
        "save",
        "save_file",
        "savefig",
        "savez",
        "to_csv",
        "to_excel",
        "to_json",
        "to_parquet",
        "touch",
        "tofile",
    ),
    *(
        "write_bytes",
        "write_h5ad",
        "write_graphml",
        "write_h5ad",
        "write_h5mu",
        "write_image",
        "write_text",
        "write_zarr",
    ),
}
GIVE_A_NAME = {"product", "replaced", "scratch"}
LONGER = "the name is that of `replaced` or `scratch`, in a block that a stack holds open"
ADAPTER = "runs in the environment of another tool, in a folder of `scratch`"
OTHERS = {
    ("baselines/_peer_calls.py", "open"): "the log of another program, which is read where that fails",
    ("baselines/peers/gears_adapter.py", "dump"): ADAPTER,
    ("baselines/peers/gears_adapter.py", "open"): ADAPTER,
    ("baselines/peers/run_adapter.py", "to_csv"): ADAPTER,
    ("baselines/peers/run_adapter.py", "write_h5ad"): ADAPTER,
    ("baselines/peers/run_adapter.py", "write_text"): ADAPTER,
    ("benchmark/_cost.py", "write_text"): "asks Linux to forget the largest memory so far",
    ("benchmark/_executors.py", "write_bytes"): "hands work to another process, in a temporary folder of the system",
    ("model/_distributed.py", "save"): "sends a model to other processes, from memory",
    ("model/_records.py", "save"): "makes bytes in memory",
    ("model/_saved.py", "write_h5ad"): "is called with a name in a folder of `scratch`",
    ("report/_figures.py", "savefig"): "draws into memory",
    ("screen/_room.py", "File"): LONGER,
    ("screen/_cells_file.py", "open_group"): LONGER,
}


def writes(tree):
    """Line and name of the calls that write, outside of a block that gives them a temporary name."""

    def walk(node, covered):
        if isinstance(node, ast.With):
            called = [item.context_expr.func for item in node.items if isinstance(item.context_expr, ast.Call)]
            names = {getattr(func, "attr", getattr(func, "id", None)) for func in called}
            covered = covered or bool(names & GIVE_A_NAME)
        if isinstance(node, ast.Call) and not covered:
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            modes = [
                arg.value for arg in [*node.args, *(k.value for k in node.keywords)] if isinstance(arg, ast.Constant)
            ]
            opens = name in ("open", "File", "open_group") and any(
                mode in ("w", "wb", "a", "x", "xb", "w-", "r+") for mode in modes
            )
            if name in WRITE or opens:
                yield node.lineno, name
        for child in ast.iter_child_nodes(node):
            yield from walk(child, covered)

    return list(walk(tree, False))


def test_the_search_finds_what_writes():
    code = """
        table.to_csv(path)
        open(path, "w").write(text)
        with replaced(path) as part:
            table.to_csv(part)
        with path.open("rb") as file:
            figure.savefig(path)
    """
    assert writes(ast.parse(textwrap.dedent(code))) == [(2, "to_csv"), (3, "open"), (7, "savefig")]


def test_nothing_is_written_but_as_a_whole():
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if name != "_files.py":
            lines = writes(ast.parse(path.read_text(encoding="utf-8")))
            found |= {(name, what): line for line, what in lines}
    assert {where: line for where, line in found.items() if where not in OTHERS} == {}
    assert OTHERS.keys() <= found.keys()  # no more exceptions than there are
