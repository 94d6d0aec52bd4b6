"""Settings: defaults that follow from the data, checks, and the way through a file."""

import json
from dataclasses import FrozenInstanceError, asdict

import numpy as np
import pytest

from raptorgraph.model._config import LossConfig, ModuleConfig, TrainingConfig
from raptorgraph.model._presets import PRESETS

SIZES = {"n_genes": 50, "n_perturbed": 6, "n_targets": 5, "counts": True}


@pytest.mark.parametrize(("k", "d"), [(1, 5), (6, 10), (40, 44), (41, 46), (105, 116)])
def test_latents_are_a_tenth_more_than_perturbed_genes(k, d):
    assert ModuleConfig(**{**SIZES, "n_perturbed": k, "n_targets": 1}).n_latent == d


def test_the_likelihood_follows_the_data():
    assert ModuleConfig(**SIZES).likelihood == "nb"
    assert ModuleConfig(**{**SIZES, "counts": False}).likelihood == "normal"
    with pytest.raises(ValueError, match="'nb' needs counts"):
        ModuleConfig(**{**SIZES, "counts": False}, likelihood="nb")


def test_settings_are_python_s_own_and_survive_a_file():
    config = ModuleConfig(
        **SIZES,
        n_hidden=np.int64(8),
        init_strength=np.float32(2),
        learn_scale=np.True_,
        effect_posterior={"graph": np.False_},
    )
    assert [type(value) for value in (config.n_hidden, config.init_strength, config.learn_scale)] == [int, float, bool]
    written = json.loads(json.dumps(asdict(config)))
    assert ModuleConfig(**{**written, "n_cats_per_cov": tuple(written["n_cats_per_cov"])}) == config
    with pytest.raises(FrozenInstanceError):
        config.n_hidden = 9


def test_presets_hold_settings_of_the_model_and_the_plan():
    for preset in PRESETS.values():
        ModuleConfig(**SIZES, **preset["model"])
        config = TrainingConfig.of(preset["plan"])
        assert {name: getattr(config, name) for name in preset["plan"]} == preset["plan"]


def test_loss_settings_are_a_part_of_those_of_the_plan():
    config = TrainingConfig.of({"mmd_weight": 0.5, "lr": 1e-2, "lambda1": 0.1})
    loss = LossConfig(**config.loss_settings())
    assert (loss.mmd_weight, loss.lambda1, loss.kl_weight) == (0.5, 0.1, 1.0)
    assert loss.weights == {
        "kl_weight": 1.0,
        "shift_weight": 1.0,
        "mmd_weight": 0.5,
        "pair_weight": 0.0,
        "dag_weight": 1.0,
    }
    with pytest.raises(TypeError, match=r"plan_kwargs \['lambda2'\] are unknown; there are .*'lambda1'"):
        TrainingConfig.of({"lambda2": 1.0})


def test_what_is_left_as_printed_is_of_the_published_network():
    config = ModuleConfig(**SIZES, perturbed_prior=False, as_printed=["start", "inputs"])
    assert config.as_printed == ("inputs", "start")
    assert ModuleConfig(**SIZES).as_printed == ()
    with pytest.raises(ValueError, match=r"as_printed=\['start'\].*perturbed_prior=False"):
        ModuleConfig(**SIZES, as_printed=["start"])
    with pytest.raises(ValueError, match="as_printed='decoder' is unknown; use one of 'inputs', 'start'"):
        ModuleConfig(**SIZES, perturbed_prior=False, as_printed=["decoder"])
    with pytest.raises(TypeError, match=r"must be a list: as_printed=\['start'\]"):
        ModuleConfig(**SIZES, perturbed_prior=False, as_printed="start")


def test_a_geometric_path_ends_above_0():
    assert TrainingConfig.of({"mu_path": "linear", "mu_final": 0}).mu_final == 0
    with pytest.raises(ValueError, match="mu_final=0 is out of range"):
        TrainingConfig.of({"mu_final": 0})
    with pytest.raises(ValueError, match="mu=0 is out of range"):
        TrainingConfig.of({"mu": 0, "mu_path": "linear"})
