"""Mutated h5ad files, each made from a number, and a process that reads them and says what it found.

``python mutations.py FOLDER FIRST LAST [LIVE]`` writes a line before and after each file. It may die: whoever reads its
lines goes on behind the file that killed it.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY = 2**31  # bytes that reading a file of a few kB may take
SECONDS = 20


def base(path: Path) -> None:
    """A file with all that an AnnData holds."""
    import anndata as ad
    import pandas as pd
    from scipy import sparse

    rng = np.random.default_rng(0)
    X = sparse.csr_matrix(rng.poisson(1.5, (40, 12)).astype(np.float32) + (np.arange(12) == 0))
    labels = np.resize(["control", "control", "G1", "G2", "G1+G2"], 40)
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical(labels),
            "lane": pd.Categorical(np.resize(["x", "y"], 40)),
            "total": np.asarray(X.sum(1)).ravel() + 9,
            "note": pd.array(np.resize([1, None], 40), dtype="Int64"),
        },
        index=[f"cell{i}" for i in range(40)],
    )
    adata = ad.AnnData(X, obs=obs, var=pd.DataFrame({"n": np.arange(12)}, index=[f"G{i}" for i in range(12)]))
    adata.layers["more"] = sparse.csc_matrix(X)
    adata.obsm["map"], adata.obsp["near"] = rng.normal(size=(40, 2)), sparse.eye_array(40, format="csr")
    adata.uns["notes"] = {"by": "us", "table": pd.DataFrame({"a": [1, 2]})}
    adata.raw = adata.copy()
    adata.write_h5ad(path)


# -- bytes ---------------------------------------------------------------------------------------------------------
def flipped(content: bytearray, rng: np.random.Generator) -> bytearray:
    for place in rng.integers(0, len(content), rng.integers(1, 30)):
        content[place] ^= 1 << int(rng.integers(8))
    return content


def flipped_in_the_head(content: bytearray, rng: np.random.Generator) -> bytearray:
    for place in rng.integers(0, 4096, rng.integers(1, 10)):
        content[place] = int(rng.integers(256))
    return content


def truncated(content: bytearray, rng: np.random.Generator) -> bytearray:
    return content[: int(rng.integers(0, len(content)))]


def zeroed(content: bytearray, rng: np.random.Generator) -> bytearray:
    start, n = int(rng.integers(0, len(content))), int(rng.integers(1, 4096))
    content[start : start + n] = bytes(len(content[start : start + n]))
    return content


def swapped_blocks(content: bytearray, rng: np.random.Generator) -> bytearray:
    n = 512
    first, second = (int(place) for place in rng.integers(0, len(content) - n, 2))
    content[first : first + n], content[second : second + n] = content[second : second + n], content[first : first + n]
    return content


def inserted(content: bytearray, rng: np.random.Generator) -> bytearray:
    place = int(rng.integers(0, len(content)))
    return content[:place] + bytearray(rng.bytes(int(rng.integers(1, 64)))) + content[place:]


# -- parts of the file -----------------------------------------------------------------------------------------------
def names(file: h5py.File, kind: type) -> list[str]:
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, kind) else None)
    return found


def some(file: h5py.File, kind: type, rng: np.random.Generator) -> str:
    """A part of the file, mostly one that the package reads."""
    found = names(file, kind)
    read = [name for name in found if name.split("/")[0] in ("X", "obs", "var")]
    return str(rng.choice(read if read and rng.random() < 0.7 else found))


def put(file: h5py.File, name: str, values: Any) -> None:
    attributes = dict(file[name].attrs)
    del file[name]
    file[name] = values
    file[name].attrs.update(attributes)


def deleted(file: h5py.File, rng: np.random.Generator) -> None:
    del file[some(file, (h5py.Dataset, h5py.Group)[rng.integers(2)], rng)]


def other_shape(file: h5py.File, rng: np.random.Generator) -> None:
    name = some(file, h5py.Dataset, rng)
    values = file[name][()]
    flat = np.atleast_1d(values)
    made = [flat[: len(flat) // 2], flat.ravel()[0], flat[:, None], np.concatenate([flat, flat]), flat[:0], flat[None]]
    put(file, name, made[int(rng.integers(len(made)))])


def other_type(file: h5py.File, rng: np.random.Generator) -> None:
    name = some(file, h5py.Dataset, rng)
    shape = file[name].shape
    made: list[Any] = [
        np.full(shape, "text", dtype=object),
        np.full(shape, 0.5),
        np.full(shape, 3, dtype=np.int16),
        np.zeros(shape, bool),
        np.full(shape, 1j),
        np.full(shape, b"ab", dtype="S2"),
        np.zeros(shape, [("a", "i4"), ("b", "f4")]),
    ]
    chosen = made[int(rng.integers(len(made)))]
    attributes = dict(file[name].attrs)
    del file[name]
    if chosen.dtype == object:
        file.create_dataset(name, data=chosen, dtype=h5py.string_dtype())
    else:
        file[name] = chosen
    file[name].attrs.update(attributes)


def of_another_kind(file: h5py.File, rng: np.random.Generator) -> None:
    """A group in the place of an array, or an array in that of a group."""
    name = some(file, (h5py.Dataset, h5py.Group)[rng.integers(2)], rng)
    is_group = isinstance(file[name], h5py.Group)
    attributes = dict(file[name].attrs)
    del file[name]
    if is_group:
        file[name] = np.arange(3)
    else:
        file.create_group(name)
    file[name].attrs.update(attributes)


def swapped(file: h5py.File, rng: np.random.Generator) -> None:
    kind = (h5py.Dataset, h5py.Group)[rng.integers(2)]
    first, second = some(file, kind, rng), some(file, kind, rng)
    if first.startswith(second) or second.startswith(first):
        return
    file.move(first, "between")
    file.move(second, first)
    file.move("between", second)


def without_attribute(file: h5py.File, rng: np.random.Generator) -> None:
    name = some(file, (h5py.Dataset, h5py.Group)[rng.integers(2)], rng)
    for key in [key for key in file[name].attrs if rng.random() < 0.6]:
        del file[name].attrs[key]


def other_attribute(file: h5py.File, rng: np.random.Generator) -> None:
    name = some(file, (h5py.Dataset, h5py.Group)[rng.integers(2)], rng)
    attributes = file[name].attrs
    kinds = [
        "csr_matrix",
        "csc_matrix",
        "dataframe",
        "dict",
        "array",
        "categorical",
        "string-array",
        "anndata",
        "",
        "new",
    ]
    if not len(attributes):
        return
    key = str(rng.choice(list(attributes)))
    made: list[Any] = [str(rng.choice(kinds)), -1, 10**12, "text", [], [[1, 2]], np.nan]
    attributes[key] = [10**9, 10**9] if key == "shape" and rng.random() < 0.5 else made[int(rng.integers(len(made)))]
    if key == "encoding-type":
        attributes[key] = str(rng.choice(kinds))


def positions(file: h5py.File, rng: np.random.Generator) -> None:
    """Positions of a sparse matrix beyond it, or in another order."""
    place = ["X", "layers/more", "raw/X", "obsp/near"][int(rng.choice(4, p=[0.7, 0.1, 0.1, 0.1]))]
    part = ["indices", "indptr"][int(rng.integers(2))]
    values = file[f"{place}/{part}"][()].astype(np.int64)
    made: list[Any] = [
        values * 10**6,
        values - 7,
        values[::-1].copy(),
        rng.permutation(values),
        values + 2**40,
        -values,
        values[:-2],
        np.append(values, values[-1] + 10**6),
        values % 2,
        np.full_like(values, np.iinfo(np.int64).max),
        values.astype(np.float64) + 0.25,
        values.astype(np.uint64) + np.uint64(2**63),
    ]
    put(file, f"{place}/{part}", made[int(rng.integers(len(made)))])


def odd_values(file: h5py.File, rng: np.random.Generator) -> None:
    """Numbers that no count is."""
    name = str(rng.choice(["X/data", "obs/total", "layers/more/data"]))
    values = file[name][()].astype(np.float64)
    values[rng.integers(len(values))] = rng.choice([np.nan, np.inf, -np.inf, -1.0, 1e300, 0.5, 1e-300])
    put(file, name, values)


def odd_codes(file: h5py.File, rng: np.random.Generator) -> None:
    """Codes of a category that is not there."""
    name = str(rng.choice(["obs/perturbation/codes", "obs/lane/codes"]))
    values = file[name][()].astype(np.int64)
    values[rng.integers(len(values), size=3)] = rng.choice([-1, -2, 99, 127, 2**40])
    put(file, name, values)


def odd_names(file: h5py.File, rng: np.random.Generator) -> None:
    """Names twice, empty, of other letters, or no text at all."""
    name = str(rng.choice(["obs/_index", "var/_index", "obs/perturbation/categories"]))
    values = [text.decode() if isinstance(text, bytes) else text for text in file[name][()]]
    values[int(rng.integers(len(values)))] = str(rng.choice([values[0], "", "ß" * 3000, "a\nb", "nan"]))
    attributes = dict(file[name].attrs)
    del file[name]
    if rng.random() < 0.2:
        file[name] = np.array([b"\xff\xfe" + text.encode() for text in values], dtype="S")
    else:
        file.create_dataset(name, data=values, dtype=h5py.string_dtype())
    file[name].attrs.update(attributes)


def odd_columns(file: h5py.File, rng: np.random.Generator) -> None:
    """A list of columns that are not those of the table."""
    table = file[str(rng.choice(["obs", "var"]))]
    columns = [str(name) for name in table.attrs.get("column-order", [])]
    made = [[*columns, "missing"], columns[:1], columns * 2, ["_index", *columns], [""], ["perturbation/codes"]]
    table.attrs["column-order"] = np.array(made[int(rng.integers(len(made)))], dtype=h5py.string_dtype())


def linked(file: h5py.File, rng: np.random.Generator) -> None:
    """A link in the place of a part: to nowhere, to another file, to what it is part of."""
    name = some(file, h5py.Dataset, rng)
    other = some(file, h5py.Group, rng)
    del file[name]
    links = [h5py.SoftLink("/nowhere"), h5py.ExternalLink("nowhere.h5", "/X"), h5py.SoftLink(f"/{other}"), file[other]]
    file[name] = links[int(rng.integers(len(links)))]


def of_huge_size(file: h5py.File, rng: np.random.Generator) -> None:
    """An array that says it is far larger than the file."""
    name = some(file, h5py.Dataset, rng)
    attributes, dtype = dict(file[name].attrs), file[name].dtype
    del file[name]
    file.create_dataset(name, shape=(int(10 ** rng.integers(10, 15)),), dtype=dtype, chunks=(1024,))
    file[name].attrs.update(attributes)


IN_BYTES: list[Callable[[bytearray, np.random.Generator], bytearray]] = [
    flipped,
    flipped_in_the_head,
    truncated,
    zeroed,
    swapped_blocks,
    inserted,
]
IN_PARTS: list[Callable[[h5py.File, np.random.Generator], None]] = [
    deleted,
    other_shape,
    other_type,
    of_another_kind,
    swapped,
    without_attribute,
    other_attribute,
    positions,
    odd_values,
    odd_codes,
    odd_names,
    odd_columns,
    linked,
    of_huge_size,
]
KINDS = [*IN_BYTES, *IN_PARTS]


def kind_of(number: int) -> str:
    """What is done to the file of a number."""
    return KINDS[number % len(KINDS)].__name__


def mutate(content: bytes, path: Path, number: int) -> None:
    """Write the file of a number, made from the bytes of a whole one."""
    rng, change = np.random.default_rng(number), KINDS[number % len(KINDS)]
    if change in IN_BYTES:
        path.write_bytes(change(bytearray(content), rng))  # type: ignore[arg-type]
        return
    path.write_bytes(content)
    with h5py.File(path, "a") as file:
        change(file, rng)  # type: ignore[arg-type]


def read(path: Path, *, in_file: bool) -> str:
    """Take the way of ``raptorgraph run`` up to the training; what comes of it, in a line."""
    import raptorgraph as rg
    from raptorgraph._failures import told
    from raptorgraph.screen._files import open_cells, read_cells, values_bytes

    arguments = {"library_size_key": "total", "batch_key": "lane"}
    try:
        values_bytes(path)
        cells = open_cells(path) if in_file else read_cells(path)
        rg.RaptorGraphModel.setup_anndata(cells, **arguments)
        effects = rg.screen.Screen(cells, arguments).effects
    except Exception as error:  # noqa: BLE001  as the command line does
        return f"error: {told(error)}"
    if not np.isfinite(effects.to_numpy()).all():
        return "wrong: an effect is not finite"
    return f"read: {len(effects)} effects"


def main(folder: Path, first: int, last: int) -> None:
    """Read the files of some numbers, within limits of time and memory."""
    warnings.simplefilter("ignore")
    base(folder / "base.h5ad")
    content = (folder / "base.h5ad").read_bytes()
    for in_file in (False, True):  # with all libraries loaded, before memory is limited
        assert read(folder / "base.h5ad", in_file=in_file) == "read: 3 effects"
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGALRM, _too_slow)
    for number in range(first, last):
        print(f"start {number}", flush=True)
        path = folder / f"{number}.h5ad"
        mutate(content, path, number)
        signal.alarm(SECONDS)
        found = read(path, in_file=number // len(KINDS) % 3 == 2)
        signal.alarm(0)
        path.unlink()
        print(f"end {number} {' '.join(found.split())}" + (" (more lines)" if "\n" in found else ""), flush=True)


def _too_slow(*_: object) -> None:
    raise TimeoutError("too slow")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    except Exception:  # noqa: BLE001  it is shown
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)  # what libraries do at the end needs memory, too
