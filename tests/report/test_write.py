"""How far predicted control cells are from the measured ones."""

from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raptorgraph.report._write import control_facts


def test_drift_and_variance_of_predicted_controls():
    cells = ad.AnnData(np.array([[2.0, 1.0, 0.0], [4.0, 3.0, 0.0]]), var=pd.DataFrame(index=["h", "g", "silent"]))
    asked = []

    def predict(label, noise, n_cells):
        asked.append((label, noise))
        return cells

    screen = SimpleNamespace(
        control="NT",
        var_names=["g", "h", "silent"],
        adata=ad.AnnData(var=pd.DataFrame(index=["g", "h", "silent"])),
        control_mean=np.array([0.0, 0.0, 0.0]),
        condition_moments=SimpleNamespace(var=np.array([[1.0, 4.0, 0.0]])),
        effects=pd.DataFrame([[3.0, 4.0, 0.0], [0.0, 5.0, 0.0]]),
    )
    model = SimpleNamespace(predict=predict, adata_manager=SimpleNamespace(stored=None))
    found = control_facts(model, screen)
    assert asked == [("NT", "new")]
    # means 2 and 3, variances 2 and 2 of two cells, effects of squared size 25
    assert found["drift"] == pytest.approx((4 + 9 - (2 + 2) / 2) / 25)
    assert found["variance_ratio"] == pytest.approx(np.median([2 / 1, 2 / 4]))
    screen.effects = 0 * screen.effects
    assert control_facts(model, screen)["drift"] == 0
