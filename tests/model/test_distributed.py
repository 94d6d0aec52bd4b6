"""Several processes that train one network together."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

import raptorgraph as rg
from raptorgraph.model import _training
from raptorgraph.model._distributed import _packed, _unpack, with_strategy
from raptorgraph.model._runner import LastEpoch

SCRIPT = """
import sys

import numpy as np
import scvi
import torch

import raptorgraph as rg
from raptorgraph.inference import EffectPosterior

torch.set_num_threads(1)
scvi.settings.seed = 0
n, folder = int(sys.argv[1]), sys.argv[2]
adata = rg.datasets.simulate(
    40, 4, n_doubles=3, n_control_cells=200, n_cells_per_perturbation=50, n_truth_cells=20, interaction_strength=0.0
)
fits = []
fit = EffectPosterior.fit
EffectPosterior.fit = lambda *args, **kwargs: fits.append(1) or fit(*args, **kwargs)
rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
model = rg.RaptorGraphModel(adata, n_hidden=16)
several = {"strategy": "ddp"} if n > 1 else {}
cells = []
read = rg.model._loader.CellDataset.__getitem__
rg.model._loader.CellDataset.__getitem__ = lambda self, batch: cells.append(batch.perturbed) or read(self, batch)
model.train(max_epochs=4, accelerator="cpu", devices=n, batch_size=64, enable_progress_bar=False, **several)
rank = model.trainer.global_rank
model.save(f"{folder}/model{n}", save_anndata=False)  # a second process that saved too would find the folder
np.savez(
    f"{folder}/{n}-{rank}.npz",
    train=model.history["train_loss"].to_numpy(dtype=float),
    validation=model.history["validation_loss"].to_numpy(dtype=float),
    effects=model.predict_effects(["P01", "P01+P02"]).to_numpy(),
    edges=model.edges.called,
    predicted=model.predict("P01", n_cells=20).X.toarray(),
    latents=model.get_latent_representation(),
    weights=torch.cat([parameter.detach().ravel() for parameter in model.module.parameters()]).numpy(),
    cells=np.concatenate(cells),
    n_train=(adata.obs["perturbation"].to_numpy()[model.train_indices] != "control").sum(),
    n_fits=len(fits),
)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_train_as_one(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    source = Path(rg.__file__).parents[1]
    found = {}
    for n in (1, 2):
        subprocess.run(
            [sys.executable, "script.py", str(n), str(tmp_path)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
            check=True,
            timeout=400,
        )
        found |= {(n, rank): dict(np.load(tmp_path / f"{n}-{rank}.npz", allow_pickle=False)) for rank in range(n)}
    one, first, second = found[1, 0], found[2, 0], found[2, 1]
    for name in first.keys() - {"cells", "n_fits"}:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    # statistics are inferred once, and are those of one process
    assert (one["n_fits"], first["n_fits"], second["n_fits"]) == (1, 1, 0)
    np.testing.assert_array_equal(first["edges"], one["edges"])
    np.testing.assert_array_equal(first["effects"], one["effects"])
    # validation cells are read as well, once in the run and once more at its end
    trained = [np.concatenate([part["cells"] for part in parts]) for parts in ([one], [first, second])]
    cells, counts = (np.stack(each) for each in zip(*(np.unique(t, return_counts=True) for t in trained), strict=True))
    np.testing.assert_array_equal(cells[1], cells[0])
    np.testing.assert_array_equal(counts[1], counts[0])
    assert (counts[0] == 4).sum() >= one["n_train"]
    # the same batches, with other noise
    np.testing.assert_allclose(first["train"], one["train"], atol=0.02)
    np.testing.assert_allclose(first["validation"], one["validation"], atol=0.02)
    loaded = rg.RaptorGraphModel.load(tmp_path / "model2", adata=False)
    np.testing.assert_array_equal(loaded.predict_effects(["P01", "P01+P02"]).to_numpy(), first["effects"])


STOPPED = """
import sys

import numpy as np
import scvi
import torch
from lightning.pytorch.callbacks import Callback

import raptorgraph as rg

class Spoil(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and trainer.global_rank == 1:
            with torch.no_grad():
                pl_module.module.decoder.base.fill_(torch.nan)

torch.set_num_threads(1)
scvi.settings.seed = 0
adata = rg.datasets.simulate(40, 4, n_doubles=2, n_control_cells=80, n_cells_per_perturbation=30, n_truth_cells=5)
rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
model = rg.RaptorGraphModel(adata, n_hidden=8)
try:
    model.train(
        max_epochs=4, accelerator="cpu", devices=2, strategy="ddp", batch_size=64, enable_progress_bar=False,
        callbacks=[Spoil()],
    )
except rg.model.NonFiniteLossError as error:
    rank = torch.distributed.get_rank()
    weights = torch.cat([parameter.detach().ravel() for parameter in model.module.parameters()])
    np.savez(f"{sys.argv[1]}/stopped-{rank}.npz", weights=weights.numpy(), cause=model.stopped_["cause"])
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_processes_have_the_weights_of_the_first_after_a_loss_that_is_not_finite(tmp_path):
    (tmp_path / "script.py").write_text(STOPPED)
    subprocess.run(
        [sys.executable, "script.py", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(rg.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        check=False,
        timeout=400,
    )
    first, second = (np.load(tmp_path / f"stopped-{rank}.npz") for rank in range(2))
    np.testing.assert_array_equal(second["weights"], first["weights"])
    assert np.isfinite(first["weights"]).all()
    for found in (first, second):
        assert str(found["cause"]).startswith("The loss is not finite in epoch 2")


def test_checkpoints_of_several_processes_are_refused_before_the_training(tmp_path, monkeypatch):
    adata = rg.datasets.simulate(20, 3, n_doubles=1, n_control_cells=30, n_cells_per_perturbation=10, n_truth_cells=5)
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraphModel(adata, n_hidden=4)
    monkeypatch.setattr(_training, "_infer", lambda *args: pytest.fail("inferred"))
    with pytest.raises(ValueError, match="checkpoint_dir needs one device: leave it out, or use devices=1"):
        model.train(max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", checkpoint_dir=tmp_path / "c")
    assert not list(tmp_path.iterdir())
    assert not model.is_trained


def test_the_network_that_was_sent_is_the_one_before_the_training():
    module = torch.nn.Linear(2, 2)
    last = LastEpoch(module)
    with torch.no_grad():
        module.weight.fill_(3.0)
    for rank, expected in ((0, False), (1, True)):
        last.setup(SimpleNamespace(global_rank=rank), None, "fit")
        assert bool((last.start["weight"] == 3).all()) == expected


def test_strategies_that_are_not_supported_are_refused():
    for strategy in ("ddp_notebook", "ddp_spawn", "fsdp", DDPStrategy(start_method="spawn")):
        with pytest.raises(NotImplementedError, match=r"strategy=.* is not supported: use strategy='ddp', in a script"):
            with_strategy({"strategy": strategy}, False)
    for alone in (None, "auto", SingleDeviceStrategy("cpu")):
        assert with_strategy({"strategy": alone}, True) == {"strategy": alone}
    with pytest.raises(ValueError, match="early_stopping=True needs one device"):
        with_strategy({"strategy": "ddp"}, True)
    assert with_strategy({"a": 1}, True) == {"a": 1}
    found = with_strategy({"strategy": "ddp", "a": 1}, False)
    assert found["a"] == 1
    assert found["use_distributed_sampler"] is False


def test_what_is_sent_is_the_network_with_all_that_is_inferred():
    adata = rg.datasets.simulate(20, 3, n_doubles=1, n_control_cells=30, n_cells_per_perturbation=10, n_truth_cells=5)
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    trained, other = rg.RaptorGraphModel(adata, n_hidden=4), rg.RaptorGraphModel(adata, n_hidden=4)
    trained.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    module = other.module
    assert _unpack(_packed(trained, {"history": 3}), other) == {"history": 3}
    assert other.module is module  # which the plan and the tables hold
    state, expected = module.state_dict(), trained.module.state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0, equal_nan=True)
    np.testing.assert_array_equal(other.edges.called, trained.edges.called)
    assert [p.requires_grad for p in module.parameters()] == [p.requires_grad for p in trained.module.parameters()]
    mask = torch.eye(3)
    torch.testing.assert_close(module.effects.mean(mask), trained.module.effects.mean(mask), rtol=0, atol=0)
