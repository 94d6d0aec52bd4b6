from types import SimpleNamespace

import pandas as pd
import pytest

from raptorgraph import pl


def history(**curves):
    return {key: pd.DataFrame({key: values}, index=range(len(values))) for key, values in curves.items()}


def test_each_term_has_a_panel():
    model = SimpleNamespace(
        history=history(
            train_loss_step=[9.0], train_loss=[3, 2, 1], kl_train=[1, 1, 2], kl_validation=[2, 2, 3], shift_train=[5],
            elbo_train=[1, 2, 3], kl_local_train=[1, 2, 3], reconstruction_loss_train=[1, 2, 3],
        )
    )  # fmt: skip
    axes = pl.training(model)
    assert [ax.get_title() for ax in axes] == ["loss", "KL of the latents to their prior", "shift"]
    curves = {line.get_label(): list(line.get_ydata()) for line in axes[1].lines}
    assert curves == {"train": [1, 1, 2], "validation": [2, 2, 3]}
    assert list(axes[0].lines[0].get_xdata()) == [1, 2, 3]
    assert axes[2].lines[0].get_marker() == "o"  # of a single epoch
    assert len(axes[0].figure.axes) == 3


def test_of_a_trained_model(trained):
    titles = [ax.get_title() for ax in pl.training(trained)]
    assert titles[0] == "loss"
    assert "reconstruction" in titles


@pytest.mark.parametrize("empty", [None, {}])
def test_untrained_model(empty):
    with pytest.raises(ValueError, match="train"):
        pl.training(SimpleNamespace(history=empty))
