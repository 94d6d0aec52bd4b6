"""Files of saved models: they run no code when they are read, and are whole, or named."""

import hashlib
import itertools
import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scvi.model.base import BaseModelClass

import raptorgraph as rg
from raptorgraph.model import _records


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    """Folder of a model with its data."""
    folder = tmp_path_factory.mktemp("saved") / "m"
    trained("default").save(folder, save_anndata=True)
    return folder


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def weights_of(folder, prefix=""):
    (path,) = folder.glob(f"{prefix}model-*.safetensors")
    return path


def file_of(folder, kind):
    return {"json": folder / "model.json", "tensors": weights_of(folder), "data": folder / "adata.h5ad"}[kind]


@pytest.mark.parametrize("kind", ["json", "tensors", "data"])
def test_a_byte_that_changed_is_noticed(saved, kind, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "m")
    path = file_of(folder, kind)
    whole = path.read_bytes()
    places = [0, 1, 9, 30, 77, 80, 81, *np.linspace(100, len(whole) - 1, 12).astype(int)]
    for i, place in enumerate(places):
        changed = bytearray(whole)
        changed[place] ^= 1 << (i % 8)
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=re.escape(repr(str(path))[1:-1])):
            rg.RaptorGraph.load(folder)
    path.write_bytes(whole)
    rg.RaptorGraph.load(folder)


@pytest.mark.parametrize("kind", ["json", "tensors", "data"])
@pytest.mark.parametrize("left", [None, 0, 20, 0.5, -1], ids=str)
def test_a_file_that_is_cut_or_missing_is_named(saved, kind, left, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "m")
    path = file_of(folder, kind)
    whole = path.read_bytes()
    path.unlink()
    if left is not None:
        path.write_bytes(whole[: int(left * len(whole)) if isinstance(left, float) else left])
    words = "no file 'model.json'" if kind == "json" and left is None else path.name
    with pytest.raises(ValueError, match=words):
        rg.RaptorGraph.load(folder)
    if kind == "data":
        assert rg.RaptorGraph.load(folder, adata=False).is_trained


def test_weights_of_another_model_are_refused(saved, trained, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "m")
    trained("normal").save(tmp_path / "other")
    weights_of(folder).write_bytes(weights_of(tmp_path / "other").read_bytes())
    with pytest.raises(ValueError, match=r"belongs to another model|does not have the SHA-256"):
        rg.RaptorGraph.load(folder)


def rewritten(folder, change):
    """Change what the JSON says, with the hash that it should have."""
    path = folder / "model.json"
    content = json.loads(path.read_bytes())
    del content["sha256"]
    change(content)
    rest = b"\n" + json.dumps(content).encode()[1:]
    path.write_bytes(b'{"sha256": "' + hashlib.sha256(rest).hexdigest().encode() + b'",' + rest)


def test_a_later_format_is_refused_in_words(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "m")
    rewritten(folder, lambda content: content.update(format_version=2, raptorgraph="9.1.0"))
    with pytest.raises(ValueError, match=r"has format 2.*pip install \"raptorgraph>=9.1.0\""):
        rg.RaptorGraph.load(folder)


def leave_out(name):
    return lambda content: content["content"].pop(name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.update(format="something else"), "is no raptorgraph model"),
        (lambda content: content.update(format_version="1"), "has format 1"),
        (leave_out("weights"), "lacks 'weights'"),
        (lambda content: content["content"]["attributes"].pop("registry_"), "registry_"),
        (lambda content: content["content"]["attributes"].update(__class__="x"), "is no model"),
        (lambda content: content["content"]["weights"].pop("center"), "do not fit its settings"),
        (lambda content: content["content"]["attributes"].update(x_={"$": "code"}), "no values of the kind 'code'"),
        (lambda content: content["tensors"].update(sha256="../" * 9), "is no SHA-256"),
        (lambda content: content.pop("tensors"), "holds what no raptorgraph model does"),
        (lambda content: content["content"]["attributes"]["registry_"].update(model_name="SCVI"), "class SCVI"),
    ],
)
def test_files_that_were_made_by_others_are_refused_in_words(saved, change, words, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "m")
    rewritten(folder, change)
    with pytest.raises(ValueError, match=words):
        rg.RaptorGraph.load(folder, adata=False)


# -- no code ---------------------------------------------------------------------------------------------------------
class Evil:
    """Leaves a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "was here"))


@pytest.mark.parametrize("form", ["zip", "pickle"])
@pytest.mark.parametrize("beside", [True, False], ids=["beside a model", "alone"])
def test_a_pickle_is_not_read(saved, form, beside, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "m")
    for path in folder.glob("model*") if not beside else ():
        path.unlink()
    evil = Evil(tmp_path / "executed")
    if form == "zip":
        torch.save(evil, folder / "model.pt")
    else:
        (folder / "model.pt").write_bytes(pickle.dumps(evil))
    for read in (rg.RaptorGraph.load, rg.RaptorGraph.load_registry, rg.RaptorGraph.view_setup_args):
        if beside:
            read(folder)
        else:
            with pytest.raises(ValueError, match=r"model.pt.*a pickle, which runs what code.*allow_pickle=True"):
                read(folder)
    if beside:  # what is safe goes first, even where pickles are allowed
        rg.RaptorGraph.load(folder, allow_pickle=True)
    with pytest.raises(ValueError, match=r"backup_url='https://x' .* allow_pickle=True"):
        rg.RaptorGraph.load(folder, backup_url="https://x")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["default", "covariates", "guides"])
def test_models_of_earlier_releases_load_on_request(name, trained, answers, same, tmp_path):
    model = trained(name)
    BaseModelClass.save(model, tmp_path / "m", save_anndata=True)
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"model.pt", "adata.h5ad"}
    with pytest.raises(ValueError, match="allow_pickle=True"):
        rg.RaptorGraph.load(tmp_path / "m")
    with pytest.warns(UserWarning, match="is a pickle, which runs what code it holds") as said:
        old = rg.RaptorGraph.load(tmp_path / "m", allow_pickle=True)
    assert said[0].filename == __file__
    assert same(answers(old, model.adata.copy()), answers(model, model.adata.copy()))
    old.save(tmp_path / "m", overwrite=True, save_anndata=True)
    assert not (tmp_path / "m" / "model.pt").exists()
    assert same(answers(rg.RaptorGraph.load(tmp_path / "m")), answers(model))


# -- whole or not at all ---------------------------------------------------------------------------------------------
class Died(BaseException):
    """What a kill looks like from the inside."""


@pytest.mark.parametrize("at", ["tensors", "data", "json"])
def test_a_save_that_dies_leaves_the_model_before(at, saved, trained, answers, same, tmp_path, monkeypatch):
    folder = shutil.copytree(saved, tmp_path / "m")
    before, expected = files(folder), answers(trained("default"))
    replaced = _records.replaced

    def dies(path):
        if path.suffix == {"tensors": ".safetensors", "data": ".h5ad", "json": ".json"}[at]:
            raise Died
        return replaced(path)

    monkeypatch.setattr(_records, "replaced", dies)
    with pytest.raises(Died):
        trained("normal").save(folder, overwrite=True, save_anndata=True)
    assert files(folder) == before
    assert same(answers(rg.RaptorGraph.load(folder)), expected)


def test_the_weights_stay_until_the_model_is_in_place(saved, trained, answers, same, tmp_path, monkeypatch):
    """Killed after the new files are there, but for the JSON, and before the old ones are gone."""
    folder = shutil.copytree(saved, tmp_path / "m")
    with monkeypatch.context() as patch:
        patch.setattr(_records, "remove", lambda *args, **kwargs: None)
        trained("normal").save(folder, overwrite=True)
    assert len(list(folder.glob("model-*.safetensors"))) == 2
    assert same(answers(rg.RaptorGraph.load(folder, False)), answers(trained("normal")))
    shutil.copy(saved / "model.json", folder)
    assert same(answers(rg.RaptorGraph.load(folder, False)), answers(trained("default")))
    trained("normal").save(folder, overwrite=True)
    assert len(list(folder.glob("model-*.safetensors"))) == 1


def test_an_attribute_that_cannot_be_saved_is_named_before_anything_is_written(saved, trained, tmp_path, monkeypatch):
    folder, model = shutil.copytree(saved, tmp_path / "m"), trained("default")
    before = files(folder)
    monkeypatch.setattr(model, "mine_", {"a": [object()]}, raising=False)
    for where in (folder, tmp_path / "new"):
        with pytest.raises(TypeError, match="attributes/mine_/a/0 is of type object, which is not saved"):
            model.save(where, overwrite=True)
    assert files(folder) == before
    assert not (tmp_path / "new").exists()


def test_attributes_of_the_user_are_saved(trained, same, tmp_path, monkeypatch):
    model = trained("default")
    mine = {"when": "2024-03", "counts": np.arange(3), ("a", 1): {None}, "table": pd.DataFrame({"x": [1.5]})}
    monkeypatch.setattr(model, "mine_", mine, raising=False)
    model.save(tmp_path / "m")
    assert same(rg.RaptorGraph.load(tmp_path / "m", False).mine_, mine)


def test_models_of_several_prefixes_share_a_folder(trained, answers, same, tmp_path):
    names = {"": "default", "a_": "normal", "a_b": "paper"}
    for prefix, name in names.items():
        trained(name).save(tmp_path / "m", prefix=prefix, overwrite=True)
    (tmp_path / "m" / "notes.txt").write_text("mine")
    trained("normal").save(tmp_path / "m", prefix="a_", overwrite=True)
    for prefix, name in names.items():
        assert same(answers(rg.RaptorGraph.load(tmp_path / "m", False, prefix=prefix)), answers(trained(name)))
    assert len(list((tmp_path / "m").iterdir())) == 7
    with pytest.raises(ValueError, match="no file 'c_model.json'"):
        rg.RaptorGraph.load(tmp_path / "m", prefix="c_")


def test_a_folder_that_exists_is_not_overwritten(saved, trained):
    before = files(saved)
    with pytest.raises(ValueError, match="already exists: choose another folder, or give overwrite=True"):
        trained("normal").save(saved)
    assert files(saved) == before


def test_data_that_were_not_saved_with_the_model_are_not_taken(saved, trained, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "m")
    trained("normal").save(folder, overwrite=True)
    assert (folder / "adata.h5ad").is_file()
    with pytest.warns(UserWarning, match=r"No data were saved .* loaded without anndata"):
        assert rg.RaptorGraph.load(folder).adata is None


def test_the_same_training_gives_the_same_files(few_steps, tmp_path):
    for name in ("one", "two"):
        adata = rg.datasets.simulate(
            20, 3, n_doubles=1, n_control_cells=30, n_cells_per_perturbation=10, n_truth_cells=5
        )
        rg.RaptorGraph.setup_anndata(adata)
        scvi.settings.seed = 0
        model = rg.RaptorGraph(adata, n_hidden=4)
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
        model.save(tmp_path / name)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_registry_and_setup_are_shown(saved, trained, capsys):
    registry = rg.RaptorGraph.load_registry(saved)
    assert registry["setup_args"] == trained("default").setup_args
    rg.RaptorGraph.view_setup_args(saved)
    assert "'library_size_key': 'total_counts'" in capsys.readouterr().out


def test_only_its_own_class_loads_it(saved):
    class Other(rg.RaptorGraphModel):
        pass

    with pytest.raises(ValueError, match="of the class RaptorGraphModel, not Other"):
        Other.load(saved, adata=False)


def save_until(step, folder):
    """Save another model with other cells, and die before a file gets its name for the `step`-th time."""
    model, replace, steps = rg.RaptorGraph.load(folder), Path.replace, itertools.count(1)
    model.mark_, model.adata.obs["mark"] = "new", "new"
    with torch.no_grad():
        model.module.decoder.base += 1.0

    def dying(self, target):
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    Path.replace = dying
    model.save(folder, overwrite=True, save_anndata=True)


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_save_that_is_killed_leaves_a_model_with_its_own_cells(saved, tmp_path):
    first = rg.RaptorGraph.load(saved)
    first.mark_, first.adata.obs["mark"] = "old", "old"
    first.save(tmp_path / "old", save_anndata=True)
    usual, found = len(files(tmp_path / "old")), []
    for step in itertools.count(1):
        folder = shutil.copytree(tmp_path / "old", tmp_path / str(step))
        process = multiprocessing.get_context("fork").Process(target=save_until, args=(step, folder))
        process.start()
        process.join(60)
        loaded = rg.RaptorGraph.load(folder)  # compares all files with their hashes
        assert set(loaded.adata.obs["mark"]) == {loaded.mark_}
        found.append(loaded.mark_)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        loaded.save(folder, overwrite=True, save_anndata=True)
        assert len(files(folder)) == usual
        assert set(rg.RaptorGraph.load(folder).adata.obs["mark"]) == {loaded.mark_}
    assert len(files(folder)) == usual
    # weights, cells twice and the record itself; and then the name of the cells alone
    assert found == ["old"] * 4 + ["new"] * 2
