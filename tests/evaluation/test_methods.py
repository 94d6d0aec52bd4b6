import sys

import numpy as np
import pandas as pd
import pytest

from raptorgraph.baselines import ladder
from raptorgraph.benchmark import Settings, load_screen
from raptorgraph.evaluation._methods import (
    Predictions,
    RaptorGraphMethod,
    check_methods,
    chosen_methods,
    make_method,
    method_names,
    ordered,
)


@pytest.fixture(scope="module")
def screen():
    return load_screen(Settings("simulated", quick=True))


@pytest.fixture(scope="module")
def fitted(screen):
    cells = screen.cells(screen.singles)
    before = cells.copy()
    method = RaptorGraphMethod(seed=3, max_epochs=1, **screen.setup).fit(cells)
    assert list(cells.var_names) == list(before.var_names)
    assert "_scvi_uuid" not in cells.uns
    return method, cells


def test_predictions_are_in_the_genes_and_scale_of_the_screen(fitted, screen):
    method, cells = fitted
    effects = method.predict_effects(["P02+P01", "P03"])
    assert list(effects.columns) == list(cells.var_names)
    assert list(effects.index) == ["P01+P02", "P03"]
    drawn = method.predict(["P01"], n_cells=30, seed=1)
    assert drawn.shape == (30, cells.n_vars)
    assert list(drawn.var_names) == list(cells.var_names)
    assert method.predict_control().shape == (cells.n_vars,)
    controls = screen.adata[screen.codes == 0].copy()
    built = method.reconstruct(controls)
    assert built.shape == controls.shape
    # genes are matched by name: reconstructions follow the mean expression of their genes
    assert np.corrcoef(built.mean(axis=0), screen.control_mean)[0, 1] > 0.5


def test_same_seed_same_predictions(fitted, screen):
    method, cells = fitted
    again = RaptorGraphMethod(seed=3, max_epochs=1, **screen.setup).fit(cells)
    pd.testing.assert_frame_equal(again.predict_effects("P01+P02"), method.predict_effects("P01+P02"))


def test_unknown_genes_are_refused(fitted):
    with pytest.raises(ValueError, match="P99 was not perturbed"):
        fitted[0].predict_effects("P99")


def test_other_control_labels(screen):
    adata = screen.cells(screen.singles)
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace("control", "nt")
    setup = {**screen.setup, "control": "nt"}
    method = RaptorGraphMethod(max_epochs=1, **setup).fit(adata)
    assert np.isfinite(method.predict_control()).all()
    assert np.isfinite(method.reconstruct(adata[adata.obs["perturbation"] == "nt"].copy())).all()


def test_names_of_methods(screen, gmt):
    without = method_names(Settings(), doubles=False)
    assert "main-effects ridge" not in without
    assert "SENA" not in without
    assert "additive" in without
    assert set(ladder()) < set(method_names(Settings(), doubles=True))
    with_sets = Settings(options={"gene_sets": str(gmt)})
    assert method_names(with_sets, doubles=False)[-1] == "SENA"
    assert method_names(Settings(options={"methods": ["dVAE", "additive"]}), doubles=False) == ["dVAE", "additive"]
    assert ordered(["mine", "dVAE", "additive", "dVAE", "no change"]) == ["no change", "additive", "dVAE", "mine"]


def test_methods_that_are_known_to_an_experiment(gmt):
    known = ("dVAE", "SENA")
    assert chosen_methods(Settings(), known) == ["dVAE"]
    assert chosen_methods(Settings(options={"gene_sets": str(gmt)}), known) == ["dVAE", "SENA"]
    with pytest.raises(ValueError, match="'SENA' needs gene sets"):
        chosen_methods(Settings(options={"methods": ["SENA"]}), known)
    with pytest.raises(ValueError, match="'additive' has no graph; there are dVAE, SENA"):
        chosen_methods(Settings(options={"methods": ["additive"]}), known, "has no graph")
    with pytest.raises(ValueError, match="methods: 'best' is unknown"):
        method_names(Settings(options={"methods": ["best"]}), doubles=True)
    assert method_names(Settings(options={"methods": ["mean double", "dVAE"]}), doubles=False) == ["dVAE"]


def test_sena_is_refused_where_no_gene_set_matches(screen, gmt):
    settings = Settings(options={"gene_sets": str(gmt)})
    check_methods(["SENA"], settings, screen.setup, screen.adata.var_names)
    with pytest.raises(ValueError, match="0 of the 12 gene sets"):
        check_methods(["SENA"], settings, screen.setup, pd.Index([f"x{i}" for i in range(60)]))


@pytest.mark.parametrize("name", ["raptorgraph", "raptorgraph paper", "dVAE", "SENA", "additive"])
def test_every_method_is_made_with_its_seed(name, screen, gmt):
    settings = Settings(quick=True, options={"gene_sets": str(gmt)})
    method = make_method(name, settings, screen.setup, 5)
    assert method.setup_args["library_size_key"] == "total_counts"
    if name != "additive":
        settings = getattr(method, "settings", method)  # dVAE and SENA keep those of their training together
        assert settings.seed == 5
        assert settings.max_epochs == 2


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
