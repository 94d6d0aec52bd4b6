import numpy as np
import pytest

from raptorgraph.benchmark import _enrichment


def test_measured_models_and_null(quick, gmt):
    tables, out = quick("enrichment", gene_sets=str(gmt), methods=["raptorgraph"], n_permutations=30)
    table = tables["enrichment"]
    assert table["method"].tolist() == [_enrichment.MEASURED, "raptorgraph"]
    long = tables["enrichment_long"].set_index(["method", "metric"])["value_mean"]
    assert long[_enrichment.MEASURED, "NES as measured, Pearson"] == pytest.approx(1)
    assert -1 <= long["raptorgraph", "NES as measured, Pearson"] <= 1
    for name in ("significant", "significant, permuted genes"):
        assert 0 <= long["raptorgraph", name] <= 1
    sets = tables["enrichment_sets"]
    assert len(sets) == 2 * 2 * 5 * 12  # seeds, methods, latents, sets
    assert np.isfinite(sets["NES"]).any()
    assert (out / "enrichment.png").stat().st_size > 0


def test_bad_requests(quick, gmt, tmp_path):
    with pytest.raises(ValueError, match="needs gene sets"):
        quick("enrichment")
    with pytest.raises(ValueError, match="'additive' has no latents"):
        quick("enrichment", gene_sets=str(gmt), methods=["additive"])
    with pytest.raises((ValueError, FileNotFoundError), match="no-such.gmt"):
        quick("enrichment", gene_sets=str(tmp_path / "no-such.gmt"))
