"""The how-to on tuning works as it is written."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import scvi

import raptorgraph as rg

pytestmark = pytest.mark.usefixtures("few_steps")

MISSING = [name for name in ("ray", "hyperopt", "scib_metrics") if find_spec(name) is None]
HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "autotune.md"


@pytest.mark.skipif(bool(MISSING), reason="needs the extra: pip install raptorgraph[autotune]")
@pytest.mark.filterwarnings("default")  # those of Ray and jax are not ours to mend
def test_howto(tmp_path, monkeypatch):
    import ray

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scvi.settings, "logging_dir", str(tmp_path / "logs"))
    code = re.findall(r"^```python\n(.*?)^```", HOWTO.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(code) == 2
    names = {}
    try:
        for block in code:
            quick = block.replace('"max_epochs": 5', '"max_epochs": 2, "accelerator": "cpu"')
            exec(quick, names)
    finally:
        ray.shutdown()
    results = names["results"]
    assert len(results) == 3
    assert results["validation_loss"].notna().all()
    assert names["best"].metrics["validation_loss"] == results["validation_loss"].min()
    assert names["model"].is_trained
    assert names["model"].init_params_["non_kwargs"]["n_hidden"] == names["settings"]["model_params"]["n_hidden"]
    lr = names["settings"]["train_params"]["plan_kwargs"]["lr"]
    assert 1e-4 <= lr <= 1e-2
    assert names["model"].trainer.lightning_module.lr == lr


def test_what_a_trial_does_works_without_the_extra(tmp_path):
    """Each trial registers a copy of the data again, with the arguments of the registry, and watches a metric."""
    adata = rg.datasets.simulate(60, 5, n_control_cells=60, n_cells_per_perturbation=20, seed=0)
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    manager = rg.RaptorGraph._get_most_recent_anndata_manager(adata, required=True)
    registry = manager.registry
    copy = adata.copy()
    getattr(rg.RaptorGraph, registry["setup_method_name"])(copy, **registry["setup_args"])
    model = rg.RaptorGraph(copy, n_hidden=8)
    model.train(
        max_epochs=2, check_val_every_n_epoch=1, enable_progress_bar=False, accelerator="cpu", logger=None,
        plan_kwargs={"lr": 1e-3}, default_root_dir=str(tmp_path),
    )  # fmt: skip
    assert len(model.history["validation_loss"]) == 2
    assert model.setup_args == registry["setup_args"]
    assert model.trainer.lightning_module.lr == 1e-3
    assert model.perturbed_genes == ["P01", "P02", "P03", "P04", "P05"]
    assert model.adata is copy
