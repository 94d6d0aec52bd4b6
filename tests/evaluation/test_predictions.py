import sys

import numpy as np
import pandas as pd
import pytest

from raptorgraph.evaluation import Predictions
from raptorgraph.screen import Screen


@pytest.fixture
def screen(adata, setup):
    return Screen(adata.copy(), setup)


class TestPredictions:
    def read(self, screen, path):
        return Predictions(path, screen.spelling, screen.adata.var_names, screen.control_mean)

    @pytest.mark.parametrize("kind", ["csv", "parquet"])
    def test_table_in_another_order_and_spelling(self, kind, screen, tmp_path):
        if kind == "parquet":
            pytest.importorskip("pyarrow", exc_type=ImportError)
        effects = screen.effects.iloc[:3, ::-1].copy()
        effects.index = ["+".join(reversed(label.split("+"))) for label in effects.index]
        getattr(effects, f"to_{kind}")(tmp_path / f"a.{kind}")
        found = self.read(screen, tmp_path / f"a.{kind}")
        np.testing.assert_allclose(found.effects, screen.effects.iloc[:3], atol=1e-6)
        assert list(found.effects.index) == screen.conditions[:3]
        assert found.missing(screen.conditions) == screen.conditions[3:]

    def test_parquet_without_pyarrow(self, screen, tmp_path, monkeypatch):
        (tmp_path / "a.parquet").touch()
        for package in ("pyarrow", "fastparquet"):
            monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match="a.parquet' is a Parquet file: reading it needs pyarrow: pip install"):
            self.read(screen, tmp_path / "a.parquet")

    def test_cells_with_and_without_their_own_control(self, screen, tmp_path):
        cells = screen.adata.copy()
        cells.X = screen.expression
        labels = cells.obs["perturbation"]
        cells.write_h5ad(tmp_path / "with.h5ad")
        cells[labels != "control"].copy().write_h5ad(tmp_path / "without.h5ad")
        for name in ("with.h5ad", "without.h5ad"):
            found = self.read(screen, tmp_path / name)
            np.testing.assert_allclose(found.effects.loc[screen.conditions], screen.effects, atol=1e-5)
        shifted = cells.copy()
        shifted.X = screen.expression.toarray() + (labels == "control").to_numpy()[:, None]
        shifted.write_h5ad(tmp_path / "shifted.h5ad")
        found = self.read(screen, tmp_path / "shifted.h5ad")
        np.testing.assert_allclose(found.effects.loc[screen.conditions], screen.effects - 1, atol=1e-5)
        np.testing.assert_allclose(found.control, screen.control_mean + 1, atol=1e-5)

    def test_bad_files(self, screen, tmp_path):
        with pytest.raises(FileNotFoundError, match="nothing.csv"):
            self.read(screen, tmp_path / "nothing.csv")
        pd.concat([screen.effects.iloc[:1]] * 2).to_csv(tmp_path / "twice.csv")
        with pytest.raises(ValueError, match="'P01' twice"):
            self.read(screen, tmp_path / "twice.csv")
        cells = screen.adata[:5].copy()
        del cells.obs["perturbation"]
        cells.write_h5ad(tmp_path / "cells.h5ad")
        with pytest.raises(ValueError, match="no obs"):
            self.read(screen, tmp_path / "cells.h5ad")
