"""What is said in short of predictions on held-out cells."""

import numpy as np
import pandas as pd
import pytest

from raptorgraph.evaluation._held_out_scores import HALF, MODEL, PERFECT, SEEN, SINGLES, UNSEEN, HeldOut, Scores
from raptorgraph.report._short_tested import against_perfect, against_truth, error, verdicts


def scores(ours, theirs, *, n=10, perfect=0.2, se=0.01):
    """Scores whose differences have a standard error of 0.01."""
    table = pd.DataFrame(
        {
            "method": [MODEL, "additive", "no change", HALF, PERFECT],
            "relative_mse": [ours, theirs, 1.0, 0.4, perfect],
            "relative_mse_se": [se, 2 * se, 0.0, se, np.nan],
        }
    )
    labels = [f"A+{k}" for k in range(n)]
    return Scores(labels, table, "additive", ours - theirs, 0.01 if n > 1 else np.inf, 0.9)


def test_each_set_that_was_tested():
    held = HeldOut(scores={UNSEEN: scores(0.5, 0.8), SINGLES: scores(0.5, 0.4, n=1), SEEN: scores(0.5, 0.4)})
    first, second = verdicts(held)
    assert first == (
        "Effects of 10 combinations that the fit had not seen: the relative squared error is 0.50 [0.48, 0.52]. That "
        "is clearly less than the error of the best simple method, “sum of singles”, with 0.80 [0.76, 0.84]. The noise "
        "of the measurement alone makes an error of about 0.20, also of a perfect prediction. 0 is no error, 1 that of "
        "predicting no change at all."
    )
    assert second.startswith("Effects of 1 single perturbation, on cells that the fit had not seen: the relative")
    assert "cannot be told from one perturbation." in second
    assert "0 is no error" not in second
    assert list(verdicts(HeldOut(reason="too few cells"))) == []


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (0.8, 0.5, "clearly more than the error of"),
        (0.51, 0.5, "not clearly different from the error of"),
    ],
)
def test_the_model_beside_the_best_simple_method(ours, theirs, said):
    (text,) = verdicts(HeldOut(scores={UNSEEN: scores(ours, theirs)}))
    assert said in text


def test_no_prediction_is_better_than_the_truth():
    """The score of a perfect prediction is an expectation, from which one condition may depart either way."""
    worse, better, noise = scores(0.3, 0.5), scores(0.15, 0.5, n=1), scores(0.9, 1.0, perfect=1.0)
    assert against_perfect(worse).endswith("makes an error of about 0.20, also of a perfect prediction.")
    assert against_perfect(better) == (
        "The noise of the measurement alone makes an error of about 0.20, so these cells show no error of the "
        "prediction beyond it."
    )
    assert against_perfect(noise).endswith("so these cells cannot judge any prediction.")


def test_an_error_of_one_condition_has_no_interval():
    assert error(scores(0.5, 0.8), MODEL) == "0.50 [0.48, 0.52]"
    assert error(scores(0.5, 0.8, se=np.nan), MODEL) == "0.50"


def test_against_the_truth_of_a_simulated_screen():
    table = pd.DataFrame(
        {"method": ["raptorgraph", "sum of measured singles"], "conditions": 12, "relative_mse": [0.1, 0.25]}
    )
    start = "Against the true effects of 12 doubles that the training did not see, which only a simulated screen has, "
    assert against_truth(table) == (
        f"{start}the relative squared error is 0.10, and that of the sum of measured singles 0.25."
    )
    assert against_truth(table[:1]) == f"{start}the relative squared error is 0.10."
