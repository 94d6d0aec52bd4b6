"""Methods that other objects answer look as if the model had them: arguments, defaults and docstring."""

import inspect

import pytest

import raptorgraph as rg
from raptorgraph.model import EdgeTable, Latents, Predictor, _expected, _export, _mean_effects, _training

WORKERS = {
    "train": _training.train,
    "get_latent_representation": Latents.get_latent_representation,
    "latent_activity": Latents.latent_activity,
    "predict": Predictor.predict,
    "predict_effects": _mean_effects.predict_effects,
    "sample_effects": Predictor.sample_effects,
    "get_counterfactual": _expected.get_counterfactual,
    "get_normalized_expression": _expected.get_normalized_expression,
    "get_dag": EdgeTable.get_dag,
    "get_edges": EdgeTable.get_edges,
    "get_modules": EdgeTable.get_modules,
    "annotate": _export.annotate,
    "export_to_cell_eval": _export.export_to_cell_eval,
}


@pytest.mark.parametrize("name", WORKERS)
def test_methods_are_those_of_their_workers(name):
    method = getattr(rg.RaptorGraphModel, name)
    assert inspect.signature(method) == inspect.signature(WORKERS[name])
    assert method.__doc__ == WORKERS[name].__doc__
    assert method.__name__ == name
