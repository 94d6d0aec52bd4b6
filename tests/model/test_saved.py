"""Saved models give the same answers to the last bit, run no code when they are read, and are whole or named."""

import hashlib
import json
import pickle
import re
import shutil
from pathlib import Path

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scvi.model.base import BaseModelClass

import raptorgraph as rg
from raptorgraph.model import _records

GOLDEN = Path(__file__).parent / "golden"
SCREEN = {
    "n_genes": 30, "n_perturbed": 4, "n_doubles": 2, "n_control_cells": 60, "n_cells_per_perturbation": 20,
    "n_truth_cells": 5, "n_batches": 2, "seed": 0,
}  # fmt: skip


def screen():
    adata = rg.datasets.simulate(**SCREEN)
    adata.obs["age"] = np.arange(adata.n_obs) % 7.0
    adata.obs["donor"] = np.resize(["a", "b", "c"], adata.n_obs)
    return adata


def guides(adata):
    """The same screen with the labels as guides in a modality of their own."""
    labels = adata.obs.pop("perturbation")
    targets = [f"P0{i}" for i in range(1, 5)] + ["control"]
    counts = np.array([[20.0 * (target in label.split("+")) for target in targets] for label in labels])
    var = pd.DataFrame({"target": targets}, index=[f"{target}_guide" for target in targets])
    return md.MuData({"rna": adata, "guides": ad.AnnData(counts, obs=adata.obs[[]], var=var)})


def embedding():
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.normal(size=(6, 3)), index=[*(f"P0{i}" for i in range(1, 5)), "NEW", "G0010"])


def plain(**model):
    def make(tmp_path):
        adata = screen()
        rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
        return rg.RaptorGraph(adata, **{"n_hidden": 4, **model})

    return make


def paper(tmp_path):
    adata = screen()
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    return rg.RaptorGraph.from_preset(adata, "paper", n_hidden=4)


def covariates(tmp_path):
    adata = screen()
    rg.RaptorGraph.setup_anndata(
        adata, control=["control"], library_size_key="total_counts", batch_key="batch",
        categorical_covariate_keys=["donor"], continuous_covariate_keys=["age"],
    )  # fmt: skip
    return rg.RaptorGraph(adata, n_hidden=4)


def embedded(tmp_path):
    adata = screen()
    rg.RaptorGraph.setup_anndata(adata, gene_embedding=embedding())
    return rg.RaptorGraph(adata, n_hidden=4)


def multimodal(tmp_path):
    mdata = guides(screen())
    rg.RaptorGraph.setup_mudata(
        mdata, modalities={"expression": "rna", "guides": "guides"}, library_size_key="total_counts",
        guide_kwargs={"min_counts": 5},
    )  # fmt: skip
    return rg.RaptorGraph(mdata, n_hidden=4)


def backed(tmp_path):
    screen().write_h5ad(tmp_path / "cells.h5ad")
    adata = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    return rg.RaptorGraph(adata, n_hidden=4)


MODELS = {
    "default": plain(),
    "paper": paper,
    "no posterior": plain(effect_posterior=False),
    "settings of the posterior": plain(effect_posterior={"noise_fraction": 0.7}),
    "more latents": plain(n_latent=9, n_layers=2, n_subgraphs=1),
    "normal": plain(likelihood="normal"),
    "no prior": plain(perturbed_prior=False, graph="dagma"),
    "fixed graph": plain(graph="fixed"),
    "covariates": covariates,
    "embedding": embedded,
    "guides": multimodal,
    "file": backed,
}


@pytest.fixture(scope="module")
def trained(few_steps, tmp_path_factory):
    """Trained models by their names, each made once."""
    known = {}

    def get(name):
        if name not in known:
            scvi.settings.seed = 0
            model = MODELS[name](tmp_path_factory.mktemp("cells"))
            model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
            known[name] = model
        return known[name]

    return get


def attributes(model):
    """All that is saved of a model, but for random names."""
    found = {name: value for name, value in vars(model).items() if name.endswith("_") and name != "run_name_"}
    registry = dict(found["registry_"])
    registry.pop("_scvi_uuid", None)
    return {**dict(sorted(found.items())), "registry_": dict(sorted(registry.items()))}


@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_of_the_model(name, trained, answers, same, tmp_path):
    model = trained(name)
    cells = screen() if name == "file" else model.adata.copy()
    expected = answers(model, cells)
    model.save(tmp_path / "m")
    alone = rg.RaptorGraph.load(tmp_path / "m", adata=False)
    for found in (alone, rg.RaptorGraph.load(tmp_path / "m", cells.copy())):
        assert same(answers(found, cells), expected)
        assert found.summary_string == model.summary_string
    assert same(attributes(alone), attributes(model))
    frozen, wanted = ([p.requires_grad for p in each.module.parameters()] for each in (alone, model))
    assert frozen == wanted
    layout, as_before = ([t.stride() for t in tensors(m)] for m in (alone, model))
    assert layout == as_before
    if name == "embedding":
        assert same(alone.predict_effects("NEW"), model.predict_effects("NEW"))
    alone.save(tmp_path / "again")
    assert {path.name for path in (tmp_path / "again").iterdir()} == {path.name for path in (tmp_path / "m").iterdir()}
    assert (tmp_path / "again" / "model.json").read_bytes() == (tmp_path / "m" / "model.json").read_bytes()


def tensors(model):
    for value in model.module.state_dict().values():
        yield from value.values() if isinstance(value, dict) else [value]


def test_what_training_reads_beside_the_weights_is_saved(trained, tmp_path):
    model = trained("normal")
    assert model.module.distribution.least_spread > 0
    model.save(tmp_path / "m")
    again = rg.RaptorGraph.load(tmp_path / "m", model.adata.copy())
    assert again.module.distribution.least_spread == model.module.distribution.least_spread


def test_data_are_saved_and_compressed(trained, answers, same, tmp_path):
    model = trained("covariates")
    model.save(tmp_path / "m", save_anndata=True, compression="gzip")
    loaded = rg.RaptorGraph.load(tmp_path / "m")
    assert same(answers(loaded), answers(model))
    assert same(loaded.get_latent_representation(), model.get_latent_representation())
    with pytest.raises(TypeError, match=r"\['compression'\] are arguments for the data: give save_anndata=True"):
        model.save(tmp_path / "n", compression="gzip")
    assert not (tmp_path / "n").exists()


# -- files -----------------------------------------------------------------------------------------------------------
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


def test_the_same_model_gives_the_same_files(trained, tmp_path):
    for name in ("one", "two"):
        trained("covariates").save(tmp_path / name)
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


# -- every format that there was -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "folder", sorted(path for path in GOLDEN.iterdir() if path.is_dir()), ids=lambda path: path.name
)
def test_models_of_every_format_load_and_answer(folder):
    """Each was written once, by the release that had the format (make_golden.py), with what it answered then."""
    model = rg.RaptorGraph.load(folder, adata=False)
    effects = pd.read_csv(folder / "effects.csv", index_col=0)
    pd.testing.assert_frame_equal(
        model.predict_effects(list(effects.index)), effects, rtol=1e-5, atol=1e-7, check_names=False, check_dtype=False
    )
    edges = pd.read_csv(folder / "edges.csv")
    pd.testing.assert_frame_equal(
        model.get_edges()[["source", "target", "weight"]], edges, rtol=1e-5, check_dtype=False
    )
    assert model.history["train_loss"].shape == (2, 1)
