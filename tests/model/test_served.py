"""A model that serves: asked by many threads at once, asked many times, and never changed by a question."""

import gc
import itertools
import sys
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scvi
import torch

import raptorgraph as rg
from raptorgraph.inference import _draws

N_THREADS, N_ASKED = 8, 30
LABELS = ["P01", "P02", "P03", "P01+P02", "P02+P04", "P03+P04", "control", "P01+P04"]

pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module")
def screen():
    adata = rg.datasets.simulate(
        40, 4, n_doubles=3, n_control_cells=60, n_cells_per_perturbation=20, n_batches=2, n_truth_cells=20, seed=1
    )
    adata.obs["phase"] = np.resize(["G1", "S", "M"], adata.n_obs)
    return adata


@pytest.fixture(scope="module")
def model(screen, with_few_steps):
    scvi.settings.seed = 0
    adata = screen.copy()
    rg.RaptorGraphModel.setup_anndata(
        adata, library_size_key="total_counts", batch_key="batch", categorical_covariate_keys=["phase"]
    )
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    with with_few_steps():
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def query(screen):
    """Cells of another object, one of them the only one of its batch and phase."""
    cells = screen[np.r_[:7, 70:73]].copy()
    cells.obs["batch"] = [screen.obs["batch"].iloc[0]] * 9 + [screen.obs["batch"].unique()[1]]
    cells.obs["phase"] = ["G1"] * 9 + ["S"]
    return cells


QUESTIONS = {
    "effects": lambda model, query, i: model.predict_effects([LABELS[i], "P02"], return_sd=True),
    "mean effects": lambda model, query, i: model.predict_effects(LABELS[i]),
    "draws": lambda model, query, i: model.sample_effects(LABELS[i], n_draws=3 + i % 2, seed=i),
    "more draws": lambda model, query, i: model.sample_effects(LABELS[i::2], n_draws=4, seed=0),
    "cells": lambda model, query, i: model.predict(LABELS[i], n_cells=5, seed=i).X,
    "cells of a query": lambda model, query, i: model.predict(LABELS[i], query, seed=i, noise="new").X,
    "effects in a query": lambda model, query, i: model.predict_effects(LABELS[i], query),
    "latents": lambda model, query, i: model.get_latent_representation(kind=["causal", "exogenous"][i % 2]),
    "latents of a query": lambda model, query, i: model.get_latent_representation(query),
    "counterfactual": lambda model, query, i: model.get_counterfactual(LABELS[i], query),
    "responders": lambda model, query, i: model.get_response_probability(),
    "graph": lambda model, query, i: model.get_dag(),
}


def plain(answer):
    """Arrays of an answer."""
    if isinstance(answer, tuple):
        return [array for part in answer for array in plain(part)]
    if isinstance(answer, pd.DataFrame | pd.Series):
        return [answer.to_numpy()]
    return [answer.toarray() if hasattr(answer, "toarray") else np.asarray(answer)]


def forget(model):
    """Let the posterior find again what it keeps between answers."""
    posterior = model.calibration.posterior
    posterior._set(posterior.fitted)


# anndata switches this warning off for a moment, for all threads, so that another may give it
@pytest.mark.filterwarnings(r"ignore:\s*A value is trying to be set on a copy")
def test_many_threads_get_the_answers_of_one(model, query):
    asked = list(itertools.product(QUESTIONS, range(N_THREADS)))
    expected = {(name, i): plain(QUESTIONS[name](model, query, i)) for name, i in asked}
    together = threading.Barrier(N_THREADS, timeout=60)

    def ask(thread):
        order = np.random.default_rng(thread).permutation(len(asked))[:N_ASKED]
        together.wait()
        return [(asked[k], plain(QUESTIONS[asked[k][0]](model, query, asked[k][1]))) for k in order]

    forget(model)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(N_THREADS) as pool:
            answers = [answer for found in pool.map(ask, range(N_THREADS)) for answer in found]
    finally:
        sys.setswitchinterval(interval)
    assert len(answers) == N_THREADS * N_ASKED
    for key, found in answers:
        for one, other in zip(found, expected[key], strict=True):
            np.testing.assert_array_equal(one, other, err_msg=str(key))


def test_draws_of_two_threads_do_not_mix(model, monkeypatch):
    """Of many genes only what is asked for is kept, and another question takes its place."""
    monkeypatch.setattr(_draws, "_MOST_KEPT", 0)
    posterior, effect, found = model.calibration.posterior, _draws.JointDraws._effect, []
    designs = torch.eye(4)[:1], torch.eye(4)[2:]
    expected = []
    for design in designs:
        forget(model)
        expected.append(posterior.draw(design, 3, seed=5))
    forget(model)
    other = threading.Thread(target=lambda: found.append(posterior.draw(designs[1], 3, seed=5)))

    def in_between(self, *asked):
        if other.ident is None:
            other.start()
            other.join(1.0)
        return effect(self, *asked)

    monkeypatch.setattr(_draws.JointDraws, "_effect", in_between)
    found.append(posterior.draw(designs[0], 3, seed=5))
    other.join()
    forget(model)
    assert len(found) == 2
    for answer in found:
        assert torch.equal(answer, expected[answer.shape[1] - 1])


def test_a_query_leaves_the_warnings_of_other_threads_as_they_are(model, query, monkeypatch):
    """They are the same for all threads, and what one takes back another may have just set."""
    enter, entered = warnings.catch_warnings.__enter__, []

    def noted(self):
        entered.append(sys._getframe(1).f_globals["__name__"])
        return enter(self)

    with monkeypatch.context() as patch:
        patch.setattr(warnings.catch_warnings, "__enter__", noted)
        for ask in QUESTIONS.values():
            ask(model, query, 0)
    assert [name for name in entered if name.startswith("raptorgraph")] == []


def memory():
    """Bytes in memory of this process, and the number of objects that Python keeps."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    # pandas keeps some hundreds of weak references to what is gone, and clears them from time to time
    return pages * 4096, sum(type(found) is not weakref.ReferenceType for found in gc.get_objects())


def grown(model, query, n):
    """Bytes and objects that so many questions leave behind, after a tenth of them."""
    names = [
        "latents of a query",
        "mean effects",
        "latents of a query",
        "draws",
        "latents of a query",
        "cells",
        "latents",
    ]
    before = None
    for k in range(n):
        if k == n // 10:
            before = memory()
        QUESTIONS[names[k % len(names)]](model, query, k % N_THREADS)
    return [after - first for after, first in zip(memory(), before, strict=True)]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("n", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_memory_stays_flat(model, query, n):
    grown(model, query, 50)
    n_bytes, n_objects = grown(model, query, n)
    assert n_bytes < min(24, n / 30) * 2**20  # 40 kB a question would be more
    assert n_objects < n / 10


# -- two models of the same cells ------------------------------------------------------------------------------------
def two_models(adata):
    """The second is set up by other columns, and smaller."""
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts", batch_key="batch")
    first = rg.RaptorGraphModel(adata, n_hidden=8)
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts", categorical_covariate_keys=["phase"])
    return first, rg.RaptorGraphModel(adata, n_hidden=4)


@pytest.fixture(scope="module")
def one_after_the_other(screen, with_few_steps):
    """Two models that were trained one after the other on the same AnnData."""
    adata, scvi.settings.seed = screen.copy(), 0
    torch.manual_seed(0)
    models = two_models(adata)
    with with_few_steps():
        for model in models:
            model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    return models


def test_two_models_of_the_same_cells_train_in_two_threads(screen, one_after_the_other):
    scvi.settings.seed = 0
    torch.manual_seed(0)
    models, start, failed = two_models(screen.copy()), threading.Barrier(2), []

    def train(model):
        try:
            start.wait()
            model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=train, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for found, expected in zip(models, one_after_the_other, strict=True):
        state, other = found.module.state_dict(), expected.module.state_dict()
        for name, value in other.items():
            if torch.is_tensor(value):
                assert torch.equal(state[name].nan_to_num(), value.nan_to_num()), name
        np.testing.assert_array_equal(found.predict_effects(LABELS), expected.predict_effects(LABELS))


@pytest.mark.filterwarnings(r"ignore:\s*A value is trying to be set on a copy")
def test_two_models_of_the_same_cells_answer_in_two_threads(one_after_the_other, query):
    asked = [(model, name, i) for i, name in zip(itertools.cycle(range(3)), QUESTIONS) for model in one_after_the_other]
    expected = [plain(QUESTIONS[name](model, query, i)) for model, name, i in asked]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            found = list(pool.map(lambda each: plain(QUESTIONS[each[1]](each[0], query, each[2])), asked))
            for one, other, (_, name, i) in zip(found, expected, asked, strict=True):
                for a, b in zip(one, other, strict=True):
                    np.testing.assert_array_equal(a, b, err_msg=f"{name} {i}")
