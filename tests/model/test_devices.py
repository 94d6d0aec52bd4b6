"""The model on a device of its own: pretended where there is none, and a GPU where there is one."""

import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
import scvi
import torch
from lightning.fabric.utilities import move_data_to_device
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

import raptorgraph as rg
from raptorgraph.baselines._vae_training import sample
from raptorgraph.inference import EffectPosterior
from raptorgraph.model import _graph
from raptorgraph.model._splitter import ScreenSplitter

PRETENDED = torch.device("cpu", 0)  # equal to no tensor's device, and yet the CPU
PACKAGE = str(Path(rg.__file__).parent)
FACTORIES = {
    torch.arange, torch.as_tensor, torch.empty, torch.eye, torch.from_numpy, torch.full, torch.linspace, torch.ones,
    torch.rand, torch.randint, torch.randn, torch.randperm, torch.tensor, torch.triu_indices, torch.zeros,
}  # fmt: skip
MOVES = {torch.Tensor.to, torch.Tensor.cpu}
FREE = {torch.Tensor.copy_, torch.Tensor.__setitem__}  # take values from anywhere
INDEXED = {torch.Tensor.__getitem__}  # takes indices from the CPU
OF_CPU = {torch.Tensor.numpy, torch.Tensor.__array__}


def on(tensor):
    return getattr(tensor, "on_device", False)


def put(value, device):
    """The same values on the pretended device, or off it."""

    def one(tensor):
        if not isinstance(tensor, torch.Tensor):
            return tensor
        tensor.on_device = device
        return tensor

    return tree_map(one, value)


class Pretend(TorchFunctionMode):
    """Follow every tensor as if those of the model were on another device, and note where they meet the CPU's."""

    def __init__(self):
        super().__init__()
        self.faults, self.n_checked = [], 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func == torch.Tensor.device.__get__:
            return PRETENDED if on(args[0]) else torch.device("cpu")
        if func in MOVES:
            return self._move(func, args, kwargs)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        device = kwargs.get("device")
        place = any(on(x) for x in tensors) if device is None else torch.device(device).index == 0
        found = func(*args, **kwargs)
        if func not in FACTORIES:
            met = tensors[:1] if func in INDEXED else [x for x in tensors if x.ndim]
            generator = kwargs.get("generator")
            places = {on(x) for x in met} | ({generator.on_device} if generator is not None else set())
            if (len(places) > 1 and func not in FREE) or (func in OF_CPU and places == {True}):
                self._note(func)
        elif kwargs.get("generator") is not None and kwargs["generator"].on_device != place:
            self._note(func)
        self.n_checked += 1
        return put(found, place) if func not in OF_CPU else found

    def _move(self, func, args, kwargs):
        tensor, where = args[0], [*args[1:], *kwargs.values()]
        found = func(*args, **kwargs)
        found = found.view_as(found) if found is tensor else found
        place = on(tensor)
        if func is torch.Tensor.cpu:
            place = False
        for value in where:
            if isinstance(value, torch.Tensor):
                place = on(value)
            elif isinstance(value, torch.device | str):
                place = torch.device(value).index == 0
        return put(found, place)

    def _note(self, func):
        frame = sys._getframe(2)
        while frame is not None and "/torch/" in frame.f_code.co_filename:
            frame = frame.f_back
        if frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
            name = Path(frame.f_code.co_filename).relative_to(PACKAGE)
            self.faults.append(f"{name}:{frame.f_lineno} {getattr(func, '__name__', func)}")


class Generator(torch.Generator):
    def __new__(cls, device="cpu"):
        made = super().__new__(cls, device="cpu")
        made.on_device = torch.device(device).index == 0
        return made


@pytest.fixture
def pretend(monkeypatch):
    """Model and batches on the pretended device."""
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch.nn.Module, "_apply", lambda self, *args, **kwargs: self)  # it stays there
    monkeypatch.setattr(
        ScreenSplitter,
        "transfer_batch_to_device",
        lambda self, batch, device, index: move_data_to_device(batch, PRETENDED),
    )
    # Fits on the CPU, which take hundreds of steps.
    infer = _graph.infer_graph
    monkeypatch.setitem(inspect.unwrap(EffectPosterior.fit).__kwdefaults__, "n_steps", 2)
    monkeypatch.setattr(_graph, "infer_graph", lambda *args, **kwargs: infer(*args, **{**kwargs, "n_sweeps": 2}))
    mode = Pretend()

    def start(module):
        put([*module.parameters(), *module.buffers()], True)
        return mode

    return start


def screen():
    scvi.settings.seed = 0
    adata = rg.datasets.simulate(
        30, 3, n_doubles=2, n_control_cells=40, n_cells_per_perturbation=12, n_batches=2, n_truth_cells=10, seed=0
    )
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts", batch_key="batch")
    return adata


def use(model, query):
    """Everything that runs on the device."""
    model.predict(["P01", "P01+P02"], n_cells=5)
    model.predict("P01", query, noise="new")
    model.predict_effects("P01", kind="decoder")
    model.predict_effects("P01")
    model.predict_effects("P01", query)
    model.get_counterfactual("P01", query)
    for kind in ("causal", "exogenous"):
        model.get_latent_representation(kind=kind)
    model.latent_activity()
    model.get_dag()
    model.get_edges()
    model.module.encoder.preconditioned.dense_weight()
    model.module.sample(next(model.cells.batches(model.cells.query())), model.predictor.masks("P01")[1])
    rg.tl.latent_programs(model, n_cells=5)
    rg.tl.spillover(model, n_cells=5)
    if model.has_posterior:
        model.sample_effects(["P01"], n_draws=2)
        model.module.effects.posterior_mean(model.predictor.masks("P01")[1])


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("likelihood", ["nb", "normal"])
def test_nothing_meets_the_wrong_device(pretend, preset, likelihood):
    adata = screen()
    # a spread that is learned, so that noise is drawn
    model = rg.RaptorGraph.from_preset(adata, preset, likelihood=likelihood, n_hidden=4, learn_scale=True)
    plan = {"shift_weight": 0.5} | ({"mmd_weight": 0.5, "pair_weight": 0.5} if preset == "paper" else {})
    with pretend(model.module) as mode:
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False, plan_kwargs=plan)
        assert model.device == PRETENDED
        use(model, adata[20:].copy())
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)  # from where it is
    assert mode.n_checked > 1000
    assert not mode.faults, "\n".join(dict.fromkeys(mode.faults))


def test_baselines_draw_where_their_latents_are(pretend):
    mean = torch.zeros(3, 2)
    with pretend(torch.nn.Linear(1, 1)) as mode:
        mean = put(mean, True)
        drawn = sample(mean, mean, torch.Generator(device=PRETENDED))
        assert on(drawn)
    assert not mode.faults


def test_the_pretended_device_finds_what_a_gpu_would(pretend):
    weight = torch.ones(3, requires_grad=True)
    with pretend(torch.nn.Linear(1, 1)) as mode:
        weight = put(weight, True)
        mode._note = lambda func: mode.faults.append(func)
        weight + torch.randn(3)
        weight.detach().numpy()
        torch.cat([weight, torch.zeros(2)])
        torch.randn(2, device=weight.device, generator=torch.Generator())
        assert len(mode.faults) == 4
        weight + torch.randn(3, device=weight.device) + torch.tensor(1.0)
        weight[torch.arange(2)].detach().cpu().numpy()
        torch.zeros(3).to(weight) + weight.to(PRETENDED)
        assert len(mode.faults) == 4


# -- a real one ------------------------------------------------------------------------------------------------------
@pytest.mark.gpu
@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("likelihood", ["nb", "normal"])
def test_a_gpu_trains_predicts_and_gives_its_model_away(preset, likelihood, tmp_path):
    adata = screen()
    model = rg.RaptorGraph.from_preset(adata, preset, likelihood=likelihood, n_hidden=4, learn_scale=True)
    plan = {"shift_weight": 0.5} | ({"mmd_weight": 0.5, "pair_weight": 0.5} if preset == "paper" else {})
    model.train(max_epochs=2, accelerator="gpu", devices=1, enable_progress_bar=False, plan_kwargs=plan)
    assert model.device.type == "cuda"
    use(model, adata[20:].copy())
    model.save(tmp_path / "m", save_anndata=True)
    answers = {}
    for accelerator in ("cpu", "gpu"):
        for name, data in {"none": False, "saved": None, "given": adata.copy()}.items():
            other = rg.RaptorGraph.load(tmp_path / "m", adata=data, accelerator=accelerator)
            assert other.device.type == ("cuda" if accelerator == "gpu" else "cpu")
            if model.has_posterior:
                assert other.predict_effects(["P01"]).equals(model.predict_effects(["P01"]))
            query = adata[20:].copy()
            answers[accelerator, name] = other.get_counterfactual("P01", query)
            np.testing.assert_allclose(answers[accelerator, name], model.get_counterfactual("P01", query), atol=1e-3)
    other.to_device("cpu")
    use(other, adata[20:].copy())
    other.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    other.save(tmp_path / "cpu")
    again = rg.RaptorGraph.load(tmp_path / "cpu", adata.copy(), accelerator="gpu")
    use(again, adata[20:].copy())
    again.train(max_epochs=1, accelerator="gpu", enable_progress_bar=False)
