"""Methods of the model and the functions that do their work have the same arguments, defaults and docstring."""

import inspect

import pytest

import raptorgraph as rg
from raptorgraph.model import EdgeTable, Latents, Predictor, _export, _loading, _presets, _registration, _training
from raptorgraph.model._expected import ExpectedExpression

WORKERS = {
    "setup_anndata": _registration.setup_anndata,
    "setup_mudata": _registration.setup_mudata,
    "from_preset": _presets.from_preset,
    "train": _training.train,
    "get_latent_representation": Latents.get_latent_representation,
    "latent_activity": Latents.latent_activity,
    "predict": Predictor.predict,
    "predict_effects": Predictor.predict_effects,
    "sample_effects": Predictor.sample_effects,
    "get_counterfactual": ExpectedExpression.get_counterfactual,
    "get_normalized_expression": ExpectedExpression.get_normalized_expression,
    "get_dag": EdgeTable.get_dag,
    "get_edges": EdgeTable.get_edges,
    "annotate": _export.annotate,
    "export_to_cell_eval": _export.export_to_cell_eval,
    "save": _loading.save,
    "load": _loading.load,
}


def arguments(function):
    """Name, kind and default of each, without the objects that it works on."""
    parameters = inspect.signature(function).parameters.values()
    own = ("self", "cls", "model", "parent_save", "parent_load")
    return [(p.name, p.kind, p.default) for p in parameters if p.name not in own]


@pytest.mark.parametrize("name", WORKERS)
def test_methods_are_those_of_their_workers(name):
    method = inspect.getattr_static(rg.RaptorGraphModel, name)
    method = getattr(method, "__func__", method)
    assert arguments(method) == arguments(WORKERS[name])
    assert method.__doc__ == WORKERS[name].__doc__
    source = inspect.getsource(method)
    assert f'"""{method.__doc__.splitlines()[0]}"""' in source, "the line in the file is the first of the docstring"
