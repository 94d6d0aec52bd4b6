import gzip
import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from raptorgraph.datasets import _download, norman2019, replogle2020
from raptorgraph.datasets._download import Source, cache_folder, fetch


@pytest.fixture
def download(server):
    """Served file, a function that makes its sources, and the paths asked for; pooch is needed."""
    pytest.importorskip("pooch")
    folder, url, asked = server
    content = b"\x89HDF\r\n\x1a\n some file"
    (folder / "good.h5ad").write_bytes(content)
    (folder / "page.h5ad").write_text("<!DOCTYPE html>Download anyway?")

    def sources(*names, known_hash=None):
        return [Source(f"{url}/{name}", "screen.h5ad", known_hash) for name in names]

    return content, sources, asked


def test_first_mirror_fails_and_second_gives_the_file(download, tmp_path):
    content, sources, asked = download
    mirrors = sources("gone.h5ad", "page.h5ad", "good.h5ad")
    path = fetch(mirrors, tmp_path / "cache")
    assert path == tmp_path / "cache" / "screen.h5ad"
    assert path.read_bytes() == content
    assert asked == ["/gone.h5ad", "/page.h5ad", "/good.h5ad"]
    sha256 = hashlib.sha256(content).hexdigest()
    assert (tmp_path / "cache" / "screen.h5ad.sha256").read_text() == f"{sha256}  screen.h5ad\n"
    assert sorted(file.name for file in path.parent.iterdir()) == ["screen.h5ad", "screen.h5ad.sha256"]

    assert fetch(mirrors, tmp_path / "cache", sha256=sha256) == path
    assert len(asked) == 3  # not downloaded again


def test_changed_file_is_noticed(download, tmp_path):
    _, sources, _ = download
    path = fetch(sources("good.h5ad"), tmp_path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"has changed since it was downloaded.*screen.h5ad.sha256.*Delete both"):
        fetch(sources("good.h5ad"), tmp_path)


def test_checksums_are_enforced(download, tmp_path):
    content, sources, _ = download
    md5 = f"md5:{hashlib.md5(content).hexdigest()}"
    assert fetch(sources("good.h5ad", known_hash=md5), tmp_path / "a").is_file()
    with pytest.raises(ConnectionError, match="good.h5ad .*does not match the known hash"):
        fetch(sources("good.h5ad", known_hash="md5:" + "0" * 32), tmp_path / "b")
    with pytest.raises(ConnectionError, match="does not match the known hash"):
        fetch(sources("good.h5ad", known_hash=md5), tmp_path / "b", sha256="0" * 64)
    assert not list((tmp_path / "b").iterdir())
    with pytest.raises(ValueError, match="not the expected 0000"):
        fetch(sources("good.h5ad", known_hash=md5), tmp_path / "a", sha256="0" * 64)


def test_file_put_there_by_hand_is_compared_with_the_published_one(download, tmp_path):
    content, sources, asked = download
    (tmp_path / "screen.h5ad").write_bytes(content)
    with pytest.raises(ValueError, match="the published file 0000"):
        fetch(sources("good.h5ad", known_hash="md5:" + "0" * 32), tmp_path)
    fetch(sources("good.h5ad", known_hash=f"md5:{hashlib.md5(content).hexdigest()}"), tmp_path)
    assert (tmp_path / "screen.h5ad.sha256").is_file()
    assert not asked


def test_error_lists_all_mirrors_and_reasons(download, tmp_path):
    _, sources, _ = download
    nobody = Source("http://127.0.0.1:9/screen.h5ad", "screen.h5ad")  # nothing listens there
    with pytest.raises(ConnectionError) as caught:
        fetch([*sources("gone.h5ad", "page.h5ad"), nobody], tmp_path)
    lines = str(caught.value).split("\n")
    assert lines[0].startswith("screen.h5ad could not be downloaded to")
    assert "gone.h5ad (to screen.h5ad): 404" in lines[1]
    assert "page.h5ad (to screen.h5ad): what it sends is no .h5ad file" in lines[2]
    assert nobody.url in lines[3]
    assert "Connection refused" in lines[3]
    assert "by hand" in lines[4]
    assert not list(tmp_path.glob("screen*"))


def test_download_needs_pooch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    monkeypatch.delenv("RAPTORGRAPH_CACHE", raising=False)
    with pytest.raises(ImportError, match=r'pip install "raptorgraph\[datasets\]"'):
        norman2019()
    with pytest.raises(ImportError, match=r'pip install "raptorgraph\[datasets\]"'):
        replogle2020(tmp_path)


def test_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RAPTORGRAPH_CACHE", str(tmp_path / "set"))
    assert cache_folder() == tmp_path / "set"
    assert cache_folder(tmp_path) == tmp_path
    pooch = pytest.importorskip("pooch")
    monkeypatch.delenv("RAPTORGRAPH_CACHE")
    assert cache_folder() == pooch.os_cache("raptorgraph")


@pytest.mark.parametrize("known", [True, False])
def test_what_somebody_left_half_is_not_taken_for_the_file(known, download, tmp_path):
    content, sources, asked = download
    known_hash = f"md5:{hashlib.md5(content).hexdigest()}" if known else None
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "screen.h5ad.part").write_bytes(content[:-3])  # as earlier versions did, and where pooch looks
    path = fetch(sources("good.h5ad", known_hash=known_hash), cache)
    assert path.read_bytes() == content
    assert asked == ["/good.h5ad"]


def test_a_download_that_is_broken_off_leaves_nothing(download, tmp_path, monkeypatch):
    content, sources, _ = download
    import pooch

    def stops(self, url, output_file, pooch, check_only=False):
        Path(str(output_file)).write_bytes(content[:5])
        raise KeyboardInterrupt

    cache = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(pooch.HTTPDownloader, "__call__", stops)
        with pytest.raises(KeyboardInterrupt):
            fetch(sources("good.h5ad"), cache)
    assert not list(cache.iterdir())
    assert fetch(sources("good.h5ad"), cache).read_bytes() == content


def test_what_a_killed_download_left_is_removed_by_the_next(download, tmp_path):
    _, sources, _ = download
    cache = tmp_path / "cache"
    code = f"""
import os, signal, pooch
from pathlib import Path
from raptorgraph.datasets._download import Source, fetch

def stops(self, url, output_file, pooch, check_only=False):
    Path(str(output_file)).write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

pooch.HTTPDownloader.__call__ = stops
fetch([Source("http://127.0.0.1:9/good.h5ad", "screen.h5ad")], Path({str(cache)!r}))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert len(list(cache.iterdir())) == 1
    fetch(sources("good.h5ad"), cache)
    assert sorted(path.name for path in cache.iterdir()) == ["screen.h5ad", "screen.h5ad.sha256"]


# -- connections that are cut ----------------------------------------------------------------------------------------
CONTENT = b"\x89HDF\r\n\x1a\n" + np.random.default_rng(0).bytes(200_000)
PACKED = gzip.compress(CONTENT, mtime=0)


# nothing, in the first line, in the head, after it, in the content, and but for its last byte
PLACES = [0, 9, 40, 0.0, 0.00001, 0.1, 0.5, 0.9, 0.9999, -1]


@pytest.mark.parametrize("resets", [False, True], ids=["ends", "is reset"])
@pytest.mark.parametrize("known", [True, False], ids=["checksum", "no checksum"])
def test_a_connection_that_is_cut_leaves_what_was_there_and_the_next_one_gives_the_file(
    resets, known, cutting, tmp_path
):
    http, url = cutting({"screen.h5ad": CONTENT})
    http.resets = resets
    known_hash = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}" if known else None
    source = Source(f"{url}/screen.h5ad", "screen.h5ad", known_hash)
    (tmp_path / "other.h5ad").write_bytes(b"earlier")
    for place in PLACES:
        http.places = [place]
        with pytest.raises(ConnectionError) as caught:
            fetch([source], tmp_path)
        first, reason, last = str(caught.value).split("\n")
        assert first == f"screen.h5ad could not be downloaded to {str(tmp_path)!r}:"
        assert reason.startswith(f"- {url}/screen.h5ad (to screen.h5ad): ")
        assert "by hand" in last
        assert [path.name for path in tmp_path.iterdir()] == ["other.h5ad"]
        assert fetch([source], tmp_path).read_bytes() == CONTENT
        assert hashlib.sha256(CONTENT).hexdigest() in (tmp_path / "screen.h5ad.sha256").read_text()
        for name in ("screen.h5ad", "screen.h5ad.sha256"):
            (tmp_path / name).unlink()
    assert (tmp_path / "other.h5ad").read_bytes() == b"earlier"


def test_a_second_mirror_gives_what_the_first_one_cut(cutting, tmp_path):
    http, url = cutting({"one.h5ad": CONTENT, "two.h5ad": CONTENT})
    http.places = [0.5]
    mirrors = [Source(f"{url}/{name}.h5ad", "screen.h5ad") for name in ("one", "two")]
    assert fetch(mirrors, tmp_path).read_bytes() == CONTENT
    assert not http.places


def test_the_end_of_a_packed_file_shows_where_its_length_is_not_said(cutting, tmp_path):
    http, url = cutting({"cells.gz": PACKED})
    http.says_length = False
    source = Source(f"{url}/cells.gz", "cells.gz")
    for place in PLACES[5:]:
        http.places = [place]
        with pytest.raises(ConnectionError, match=r"what it sends is not whole \("):
            fetch([source], tmp_path)
        assert not list(tmp_path.iterdir())
    assert fetch([source], tmp_path).read_bytes() == PACKED


def test_checksums_of_addresses_are_kept_and_compared(download, tmp_path):
    """Of a file whose publisher names none: what an address gave once is what it has to give again."""
    content, sources, asked = download
    fetch(sources("good.h5ad"), tmp_path / "a")
    record = cache_folder() / "checksums.json"
    sha256 = hashlib.sha256(content).hexdigest()
    assert json.loads(record.read_text()) == {sources("good.h5ad")[0].url: sha256}
    fetch(sources("good.h5ad"), tmp_path / "b")

    served = tmp_path / "served" / "good.h5ad"
    served.write_bytes(content + b" changed")
    with pytest.raises(ConnectionError, match=f"had {sha256} when it was downloaded from .*checksums.json"):
        fetch(sources("good.h5ad"), tmp_path / "c")
    assert not list((tmp_path / "c").iterdir())
    # put there by hand it is compared, too
    (tmp_path / "c" / "screen.h5ad").write_bytes(served.read_bytes())
    with pytest.raises(ValueError, match=f"had {sha256} when it was downloaded"):
        fetch(sources("good.h5ad"), tmp_path / "c")
    # what the user expects counts for more, and is kept from then on
    new = hashlib.sha256(served.read_bytes()).hexdigest()
    fetch(sources("good.h5ad"), tmp_path / "d", sha256=new)
    assert json.loads(record.read_text()) == {sources("good.h5ad")[0].url: new}
    fetch(sources("good.h5ad"), tmp_path / "e")


def test_damaged_checksums_are_named(download, tmp_path):
    _, sources, _ = download
    (cache_folder() / "checksums.json").write_text("{")
    with pytest.raises(ConnectionError, match="checksums.json', the checksums of earlier downloads, is damaged"):
        fetch(sources("good.h5ad"), tmp_path / "a")


def test_a_cache_that_must_not_be_written_costs_no_download(download, tmp_path, monkeypatch):
    content, sources, _ = download
    written = _download.put_text

    def refuse(path, text):
        if Path(path).name == "checksums.json":
            raise PermissionError("no")
        written(path, text)

    monkeypatch.setattr(_download, "put_text", refuse)
    assert fetch(sources("good.h5ad"), tmp_path / "a").read_bytes() == content
