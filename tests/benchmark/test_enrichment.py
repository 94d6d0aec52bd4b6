import numpy as np
import pandas as pd
import pytest

from raptorgraph import pp
from raptorgraph.benchmark import Settings, _enrichment, load_screen


def running_sum(effect, members):
    """Largest deviation of the running sum of Subramanian et al. (2005), gene by gene."""
    effect = effect.sort_values(ascending=False, kind="stable")
    hit = effect.index.isin(members)
    steps = np.where(hit, effect.abs() / effect.abs()[hit].sum(), -1 / (~hit).sum())
    sums = np.cumsum(steps)
    return sums[np.abs(sums).argmax()]


def test_measured_models_and_null(quick, gmt):
    tables, out = quick("enrichment", gene_sets=str(gmt), methods=["raptorgraph"], n_permutations=30)
    table, long, sets = tables["enrichment"], tables["enrichment_long"], tables["enrichment_sets"]
    assert table["method"].tolist() == [_enrichment.MEASURED, "raptorgraph"]
    assert len(sets) == 2 * 2 * 5 * 12  # seeds, methods, latents, sets
    assert (out / "enrichment.png").stat().st_size > 0

    # the scores are those of the measured effects, without the perturbed gene
    members, screen = pp.read_gene_sets(str(gmt)), load_screen(Settings(screen="simulated", quick=True), 1)
    here = sets[(sets["seed"] == 1) & (sets["method"] == _enrichment.MEASURED)].set_index(["perturbation", "gene_set"])
    for label, name in (("P01", "SET_1"), ("P03", "SET_7")):
        effect = screen.effects.loc[label].drop(label, errors="ignore")
        assert here.at[(label, name), "ES"] == pytest.approx(running_sum(effect, members[name]), abs=1e-6)

    # and the shares and the agreement can be counted from the table of all sets
    found = long.set_index(["method", "metric"])["value_mean"]
    by_seed = sets.assign(hit=sets["FDR"] < 0.05).groupby(["method", "seed"])["hit"].mean()
    for method in table["method"]:
        assert found[method, "significant"] == pytest.approx(by_seed[method].mean())
    nes = sets.pivot(index=["seed", "perturbation", "gene_set"], columns="method", values="NES").astype(float)
    pairs = nes.groupby("seed")[["raptorgraph", _enrichment.MEASURED]]
    agreement = np.mean([here.corr().iloc[0, 1] for _, here in pairs])
    assert found["raptorgraph", "NES as measured, Pearson"] == pytest.approx(agreement)


def test_agreement_and_share_of_known_tables():
    sets = pd.DataFrame({"perturbation": list("aabb"), "gene_set": list("xyxy"), "NES": [1.0, 2.0, 3.0, np.nan]})
    true = sets.assign(NES=[2.0, 1.0, 3.0, 9.0])
    assert _enrichment._agreement(sets, true) == pytest.approx(0.5)
    assert np.isnan(_enrichment._agreement(sets, true.assign(NES=1.0)))
    assert _enrichment._significant(pd.DataFrame({"FDR": [0.01, 0.05, 0.2, np.nan]})) == 0.25


def test_bad_requests(quick, gmt, tmp_path):
    with pytest.raises(ValueError, match="needs gene sets"):
        quick("enrichment")
    with pytest.raises(ValueError, match="'additive' has no latents"):
        quick("enrichment", gene_sets=str(gmt), methods=["additive"])
    with pytest.raises((ValueError, FileNotFoundError), match="no-such.gmt"):
        quick("enrichment", gene_sets=str(tmp_path / "no-such.gmt"))


def test_latents_that_the_paper_names_stand_beside_its_numbers():
    rows = [("EGR1", "HALLMARK_E2F_TARGETS"), ("JUN", "G2-M Checkpoint"), ("JUN", "HALLMARK_HYPOXIA")]
    sets = pd.DataFrame(rows * 2, columns=["perturbation", "gene_set"])
    sets = sets.assign(NES=[-1.0, -2.0, 3.0, -1.5, -2.5, 3.0], seed=[0] * 3 + [1] * 3, method="raptorgraph")
    named = _enrichment._named(sets.assign(regime="paper"))
    assert named["latent"].tolist() == ["EGR1", "JUN"]
    assert named["NES, published"].tolist() == [-1.79, -1.63]
    assert named["raptorgraph"].tolist() == ["-1.250 +- 0.354", "-2.250 +- 0.354"]
    assert _enrichment._named(sets[sets["gene_set"] == "HALLMARK_HYPOXIA"].assign(regime="paper")).empty


def test_the_published_split(quick, gmt):
    tables, _ = quick("enrichment", gene_sets=str(gmt), methods=["dVAE"], n_permutations=20, regimes=["paper"], seeds=1)
    assert set(tables["enrichment"]["regime"]) == {"paper"}
    assert tables["enrichment"]["method"].tolist() == [_enrichment.MEASURED, "dVAE"]
