import numpy as np
import pytest

from raptorgraph.inference import EffectPosteriorConfig

OLD = {
    "alone": "independent",
    "private": "condition_specific",
    "targets": "target_effects",
    "temper": "noise_fraction",
    "spread": "constrained",
}


@pytest.mark.parametrize(("old", "new"), OLD.items())
def test_old_names_of_settings_still_work(old, new):
    value = 0.25 if old == "temper" else False
    with pytest.warns(FutureWarning, match=f"effect_posterior: {old} is now {new}") as caught:
        found = EffectPosteriorConfig.from_options({old: value})
    assert found == EffectPosteriorConfig(**{new: value})
    assert caught[0].filename == __file__


def test_settings_are_pythons_own_values():
    found = EffectPosteriorConfig(independent=np.False_, noise_fraction=np.float32(0.5))
    assert found == EffectPosteriorConfig(independent=False)
    assert found.independent is False
    assert type(found.noise_fraction) is float


@pytest.mark.parametrize("value", [0, -0.5, 1.5, float("nan")])
def test_the_fraction_lies_between_0_and_1(value):
    with pytest.raises(ValueError, match="noise_fraction=.* above 0 to 1"):
        EffectPosteriorConfig(noise_fraction=value)


def test_switches_are_true_or_false():
    with pytest.raises(TypeError, match="overshoot=1 is neither True nor False"):
        EffectPosteriorConfig(overshoot=1)


def test_unknown_and_double_settings_are_named():
    with pytest.raises(TypeError, match="no setting 'tempo'; its settings are .*'noise_fraction'"):
        EffectPosteriorConfig.from_options({"tempo": 1})
    with (
        pytest.warns(FutureWarning, match="temper"),
        pytest.raises(TypeError, match="'noise_fraction' twice"),
    ):
        EffectPosteriorConfig.from_options({"temper": 0.5, "noise_fraction": 0.5})


def test_a_wrong_setting_in_a_dict_is_told_from_the_argument_of_the_model():
    with pytest.raises(TypeError, match="^effect_posterior: graph=None is neither True nor False"):
        EffectPosteriorConfig.from_options({"graph": None})
    with pytest.raises(ValueError, match="^effect_posterior: noise_fraction=2 is out of range"):
        EffectPosteriorConfig.from_options({"noise_fraction": 2})
