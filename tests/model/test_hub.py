"""The how-to on sharing a model works as it is written."""

import re
from pathlib import Path

import numpy as np
import pytest
import scvi

import raptorgraph as rg

pytest.importorskip("huggingface_hub", reason="needs the extra: pip install raptorgraph[hub]")
HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "hub.md"


def test_howto(tmp_path, monkeypatch):
    from scvi.hub import HubModel

    monkeypatch.chdir(tmp_path)
    scvi.settings.seed = 0
    code = re.findall(r"^```python\n(.*?)^```", HOWTO.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(code) == 4
    names = {}
    for block in code:
        exec(block.replace("max_epochs=10", "max_epochs=1, accelerator='cpu', enable_progress_bar=False"), names)
    files = {path.name for path in (tmp_path / "shared_model").iterdir() if path.suffix != ".safetensors"}
    assert files == {"model.json", "adata.h5ad", "README.md", "_scvi_required_metadata.json"}
    assert len(list((tmp_path / "shared_model").glob("model-*.safetensors"))) == 1
    card = (tmp_path / "shared_model" / "README.md").read_text()
    assert card.startswith("---\n")
    assert "license: cc-by-4.0" in card
    assert "perturbations of 10 genes" in " ".join(card.split())
    expected = names["model"].predict_effects("P01+P02")
    opened = HubModel(str(tmp_path / "shared_model"))
    assert opened.metadata.model_parent_module == "raptorgraph.model"
    assert type(opened.model) is rg.RaptorGraphModel
    for model in (opened.model, names["with_data"].model, names["without_data"]):
        np.testing.assert_array_equal(model.predict_effects("P01+P02"), expected)
    np.testing.assert_array_equal(
        opened.model.get_latent_representation(), names["with_data"].model.get_latent_representation()
    )
    assert opened.adata.shape == names["adata"].shape
