"""The folder of a run, without a model: what is kept, what is refused, and how a whole set is replaced."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from raptorgraph.report import _folder
from raptorgraph.report._folder import check_room, check_used, read_manifest, run_folder

STAGES = ("first", "second", "third")
PRODUCTS = ("a.csv", "b.csv", "c.csv")
MADE = {"seed": 0, "control": ("x", "y"), "version": {"numpy": "2.0"}}


def opened(out, made=MADE, *, overwrite=False, said=None):
    said = [] if said is None else said
    return run_folder(out, made, PRODUCTS, command="raptorgraph run x", overwrite=overwrite, say=said.append)


def write(folder, number, text):
    with folder.stage(STAGES[number]), folder.product(PRODUCTS[number]) as part:
        part.write_text(text)


def work(out, text="1", **options):
    """Do what is to be done, and say what that was."""
    with opened(out, **options) as folder:
        todo = folder.begin(STAGES)
        for name in todo:
            write(folder, STAGES.index(name), text)
    return todo


def broken_off(out, text, *stages, **options):
    """Do some stages, and be interrupted in the next one."""
    with opened(out, **options) as folder:
        folder.begin(STAGES)
        for name in stages:
            write(folder, STAGES.index(name), text)
        with folder.stage("third"), folder.product("c.csv") as part:
            part.write_text("half")
            raise KeyboardInterrupt


def contents(out):
    return {path.name: path.read_text() for path in out.iterdir() if path.is_file() and path.name != "run.json"}


def test_stages_are_done_once_and_from_the_first_that_is_not_whole(tmp_path):
    out = tmp_path / "new" / "out"
    assert work(out) == [*STAGES]
    assert work(out) == []
    (out / "b.csv").write_text("changed")
    assert work(out) == ["second", "third"]
    assert contents(out) == {"a.csv": "1", "b.csv": "1", "c.csv": "1"}
    (out / "a.csv").unlink()
    assert work(out) == [*STAGES]
    manifest = read_manifest(out)
    assert manifest["command"] == "raptorgraph run x"
    assert manifest["made"] == json.loads(json.dumps(MADE))
    assert all(len(known) == 1 for known in manifest["products"].values())
    assert [path.name for path in (out / ".run").iterdir()] == ["lock"]


def test_a_stage_that_was_broken_off_is_done_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        broken_off(tmp_path, "1", "first")
    assert contents(tmp_path) == {"a.csv": "1"}
    assert work(tmp_path) == ["second", "third"]


def test_later_stages_do_not_count_once_an_earlier_one_is_done_again(tmp_path):
    work(tmp_path)
    (tmp_path / "b.csv").unlink()
    with pytest.raises(KeyboardInterrupt):  # in the third, which is still that of the earlier second
        broken_off(tmp_path, "2", "second")
    assert work(tmp_path, "2") == ["third"]


@pytest.mark.parametrize("stopped", ["before", "after"])
def test_a_product_of_two_stages_is_known_whether_or_not_the_second_got_to_its_place(stopped, tmp_path, monkeypatch):
    work(tmp_path)
    replace = Path.replace

    def stops(part, path):
        if path.name != "a.csv" or stopped == "after":
            replace(part, path)
        if path.name == "a.csv":
            raise KeyboardInterrupt

    def again():
        with opened(tmp_path) as folder, folder.stage("second"):
            folder.table("a.csv", pd.DataFrame({"x": [2]}))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stops)
        with pytest.raises(KeyboardInterrupt):
            again()
    assert (tmp_path / "a.csv").read_text() == {"before": "1", "after": "x\n2\n"}[stopped]
    with opened(tmp_path) as folder:
        assert folder.begin(STAGES) == []


def test_what_failed_is_tried_again(tmp_path):
    def run(error):
        said = []
        with opened(tmp_path, said=said) as folder:
            todo = folder.begin(STAGES)
            for name in todo:
                with folder.stage(name), folder.optional("thing"):
                    if name == "second" and error:
                        raise error
                    folder.table(PRODUCTS[STAGES.index(name)], pd.DataFrame({"x": [0.1]}))
                    folder.keep(x=1.5)
            assert bool(folder.failed("second")) == bool(error)
            assert folder.found("third") == {"x": 1.5}
            assert folder.found("none") == {}
            assert folder.seconds("third") < 60
        return todo, said

    assert run(ValueError("no luck")) == ([*STAGES], ["There is no thing: ValueError: no luck"])
    assert not (tmp_path / "b.csv").exists()
    assert run(None) == (["second", "third"], [])
    assert run(None) == ([], [])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"seed": 1}, "with seed 0 and not 1: choose another --out, or replace them with --overwrite"),
        ({"version": {"numpy": "2.1"}}, "with version of numpy 2.0 and not 2.1"),
        ({"n_top_genes": 10}, "with n top genes not given and not 10"),
    ],
)
def test_results_of_another_run_are_refused(change, match, tmp_path):
    work(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.is_file()}
    for attempt in (
        lambda: check_used(tmp_path, MADE | change, PRODUCTS, overwrite=False),
        lambda: work(tmp_path, made=MADE | change),
    ):
        with pytest.raises(FileExistsError, match=match):
            attempt()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    check_used(tmp_path, MADE, PRODUCTS, overwrite=False)
    check_used(tmp_path, MADE | change, PRODUCTS, overwrite=True)


def test_a_run_that_left_nothing_gives_way_to_another(tmp_path):
    with opened(tmp_path) as folder:
        folder.begin(STAGES)
        (folder.inside / "training").mkdir()
    assert read_manifest(tmp_path)["made"]["seed"] == 0
    with opened(tmp_path) as folder:
        assert (folder.inside / "training").exists()  # of the same one
    other = MADE | {"seed": 1}
    check_used(tmp_path, other, PRODUCTS, overwrite=False)
    assert work(tmp_path, made=other) == [*STAGES]
    assert not (tmp_path / ".run" / "training").exists()
    assert work(tmp_path, made=other) == []


@pytest.mark.parametrize("text", [None, "", "{", "[1]", '{"made": 1}'])
def test_results_of_which_nothing_is_known_are_refused(text, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    check_used(tmp_path, MADE, PRODUCTS, overwrite=False)
    (tmp_path / "b.csv").write_text("theirs")
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(FileExistsError, match=r"has b.csv, and no run.json that says of what"):
        work(tmp_path)
    assert work(tmp_path, overwrite=True) == [*STAGES]
    assert contents(tmp_path) == {"a.csv": "1", "b.csv": "1", "c.csv": "1", "notes.txt": "mine"}


def test_overwriting_replaces_the_whole_set_when_the_new_one_is_complete(tmp_path):
    work(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    other = MADE | {"seed": 1}
    with pytest.raises(KeyboardInterrupt):
        broken_off(tmp_path, "2", "first", made=other, overwrite=True)
    assert contents(tmp_path) == {"a.csv": "1", "b.csv": "1", "c.csv": "1", "notes.txt": "mine"}
    assert work(tmp_path) == []  # the earlier command still has its results
    with opened(tmp_path, other, overwrite=True) as folder:
        assert folder.begin(STAGES) == ["second", "third"]  # the other one goes on
        write(folder, 1, "2")
        with folder.stage("third"):
            pass  # which writes nothing this time
        assert contents(tmp_path)["a.csv"] == "1"
    assert contents(tmp_path) == {"a.csv": "2", "b.csv": "2", "notes.txt": "mine"}
    assert read_manifest(tmp_path)["made"]["seed"] == 1
    assert work(tmp_path, made=other) == []
    assert [path.name for path in (tmp_path / ".run").iterdir()] == ["lock"]


def test_another_set_that_was_not_completed_is_forgotten(tmp_path):
    work(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        broken_off(tmp_path, "2", "first", made=MADE | {"seed": 1}, overwrite=True)
    assert work(tmp_path, "3", made=MADE | {"seed": 2}, overwrite=True) == [*STAGES]
    assert set(contents(tmp_path).values()) == {"3"}


@pytest.mark.parametrize("moved", range(4))
def test_a_replacing_that_was_broken_off_is_finished_by_the_next_run(moved, tmp_path, monkeypatch):
    work(tmp_path)
    other, done = MADE | {"seed": 1}, []

    def put(part, path):
        if len(done) == moved:
            raise KeyboardInterrupt
        done.append(path)
        part.replace(path)

    with monkeypatch.context() as patch:
        patch.setattr(_folder, "put", put)
        patch.setattr(_folder, "remove", lambda path: None)  # as after a kill
        if moved < len(PRODUCTS):
            with pytest.raises(KeyboardInterrupt):
                work(tmp_path, "2", made=other, overwrite=True)
        else:
            work(tmp_path, "2", made=other, overwrite=True)
    assert work(tmp_path, "2", made=other) == []
    assert set(contents(tmp_path).values()) == {"2"}


def test_a_second_run_is_told_who_writes(tmp_path):
    match = rf"is written to by process {os.getpid()} on .* since 20.*\(raptorgraph run x\): wait for it, or choose"
    with opened(tmp_path):
        with pytest.raises(RuntimeError, match=match):
            check_used(tmp_path, MADE, PRODUCTS, overwrite=True)
        with pytest.raises(RuntimeError, match=match):
            work(tmp_path)
        (tmp_path / ".run" / "holder.json").write_text("")
        with pytest.raises(RuntimeError, match="is written to by another process"):
            work(tmp_path)
    work(tmp_path)


def test_room_is_counted_before_any_work(tmp_path):
    check_room(tmp_path, 1)
    with pytest.raises(OSError, match=r"take about 1,000,000,000,000 MB, and there are [\d,]+ MB: free some"):
        check_room(tmp_path, 1e18)
