"""Downloads of public screens whose connection is cut."""

import gzip
import hashlib

import numpy as np
import pytest

from raptorgraph.datasets._download import Source, fetch

pytestmark = pytest.mark.slow

CONTENT = b"\x89HDF\r\n\x1a\n" + np.random.default_rng(0).bytes(3_000_000)
# nothing, in the first line, in the head, after it, in the content, and but for its last byte
PLACES = [0, 9, 40, 0.0, 0.00001, 0.1, 0.5, 0.9, 0.9999, -1]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("resets", [False, True], ids=["ends", "is reset"])
@pytest.mark.parametrize("kind", ["checksum", "no checksum", "packed, no length"])
def test_cuts(kind, place, resets, cutting, record, tmp_path):
    pytest.importorskip("pooch")
    packed = kind == "packed, no length"
    name, content = ("cells.gz", gzip.compress(CONTENT, 1)) if packed else ("screen.h5ad", CONTENT)
    http, url = cutting({name: content})
    http.resets, http.says_length, http.places = resets, not packed, [place]
    known_hash = f"sha256:{hashlib.sha256(content).hexdigest()}" if kind == "checksum" else None
    source = Source(f"{url}/{name}", name, known_hash)
    (tmp_path / "other.h5ad").write_bytes(b"earlier")
    with pytest.raises(ConnectionError, match=f"{name} could not be downloaded to"):
        fetch([source], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other.h5ad"]
    assert (tmp_path / "other.h5ad").read_bytes() == b"earlier"
    assert fetch([source], tmp_path).read_bytes() == content
    ended = "a ConnectionError that says what to do; no part of the file is left, and the next call gives it whole"
    record("a connection that is cut", f"a download ({kind})", ended)


@pytest.mark.parametrize("kind", ["checksum", "no checksum"])
def test_what_somebody_left_half(kind, cutting, record, tmp_path):
    pytest.importorskip("pooch")
    _, url = cutting({"screen.h5ad": CONTENT})
    known_hash = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}" if kind == "checksum" else None
    (tmp_path / "screen.h5ad.part").write_bytes(CONTENT[:1000])
    assert fetch([Source(f"{url}/screen.h5ad", "screen.h5ad", known_hash)], tmp_path).read_bytes() == CONTENT
    record("half a download by another program", f"the folder of downloads ({kind})", "not taken for the file")
