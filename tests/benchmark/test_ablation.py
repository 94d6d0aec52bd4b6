import numpy as np
import pytest
import scvi
import torch
from scipy.stats import norm

from raptorgraph import RaptorGraphModel, benchmark
from raptorgraph.benchmark import _ablation as ablation
from raptorgraph.benchmark import _variants as variants
from raptorgraph.benchmark._settings import Settings


@pytest.fixture(scope="module")
def screen():
    return benchmark.load_screen(Settings(screen="simulated", quick=True), 1)


@pytest.fixture(scope="module")
def tables(tmp_path_factory, few_steps):
    out = tmp_path_factory.mktemp("ablation")
    options = {"seeds": 1, "quick": True, "n_jobs": 0, "progress": False, "n_repeats": 1, "max_epochs": 1}
    tables = benchmark.run("ablation", screen="simulated", out=out, **options)
    for name in ("ablation", "ablation_network", "ablation_calibration"):
        assert (out / f"{name}.png").stat().st_size > 10_000
    return tables


def test_every_part_has_a_row(tables):
    posterior, network = tables["ablation"], tables["ablation_network"]
    assert list(dict.fromkeys(posterior["variant"])) == list(ablation.POSTERIOR)
    assert set(posterior["regime"]) == {"singles", "doubles"}
    names = list(network["variant"])
    assert [name for name in names if name in ablation.NETWORK] == list(ablation.NETWORK)
    assert variants.FLOOR in names


def test_pairs_are_ranked_in_every_way(tables):
    ranking = (
        tables["ablation_long"].query("half == 'ranking'").set_index(["regime", "variant", "metric"])["value_mean"]
    )
    assert set(ranking.index.get_level_values("regime")) == {"singles", "doubles"}
    by_type = ranking.drop("mean of all", level="metric")
    assert by_type.between(0, 1).all()
    for (regime, way), value in by_type.groupby(["regime", "variant"]).mean().items():
        assert ranking[regime, way, "mean of all"] == pytest.approx(value)
    # The sum of two effects is as long as itself: additive sums say nothing of synergy.
    chance = ranking["singles", variants.CHANCE, "synergy"]
    assert ranking["singles", variants.ADDITIVE, "synergy"] == pytest.approx(chance)


def test_ranks_of_a_perfect_model_are_those_of_the_truth():
    screen = benchmark.load_screen(Settings(screen="simulated-interacting"), 1)
    pairs = [label for label in screen.combinations if len(screen.genes_of[label]) == 2]
    a, b, ab = ablation.pair_effects(screen.effects, pairs, screen)
    true = ablation.interaction_scores(a, b, ab)
    drawn = {}
    for i, label in enumerate(pairs):
        drawn[label] = np.stack([a[i], b[i], ab[i]]), {type_: np.full(8, true[type_][i]) for type_ in ablation.TYPES}
    found = {table["variant"].iloc[0]: table.set_index("metric")["value"] for table in ablation._ranking(
        drawn, screen, "singles"
    )}  # fmt: skip
    for type_ in ablation.TYPES:
        # Of 40 pairs ten are positive, and all of them are among the first ten.
        assert found["score"][type_] == found["probability"][type_] == 1
        assert found[variants.CHANCE][type_] == pytest.approx(0.25)


def test_scores_of_the_posterior_are_those_of_its_effects(tables):
    value = tables["ablation_long"].set_index(["half", "regime", "variant", "metric"])["value_mean"].sort_index()
    screen = benchmark.load_screen(Settings(screen="simulated", quick=True), 0)
    train = ablation._some_cells(screen, screen.singles, 0)
    RaptorGraphModel.setup_anndata(train, **screen.setup)
    scvi.settings.seed = 0
    model = RaptorGraphModel(train, pairing="random")
    model.train(max_epochs=1, enable_progress_bar=False, enable_checkpointing=False)
    test = list(variants.unseen_split(screen).test)
    mean, sd = (frame[screen.adata.var_names] for frame in model.predict_effects(test, return_sd=True))
    measured = screen.effects.loc[test]
    off, sampling = mean - measured, screen.moments.variance[[screen.labels.index(label) for label in test]]
    expected = {
        "relative MSE": (off**2).to_numpy().sum() / (measured**2).to_numpy().sum(),
        "Pearson": mean.corrwith(measured, axis=1).mean(),
        "coverage of 90%": (off.abs() < norm.ppf(0.95) * np.sqrt(sd**2 + sampling)).to_numpy().mean(),
        "coverage of 90%, intervals alone": (off.abs() < norm.ppf(0.95) * sd).to_numpy().mean(),
    }
    found = value["posterior", "singles", ablation.DEFAULT]
    assert found[list(expected)].to_dict() == pytest.approx(expected, rel=1e-4)


def test_variants_differ_as_they_must(tables):
    value = tables["ablation_long"].set_index(["half", "regime", "variant", "metric"])["value_mean"].sort_index()
    levels = tables["ablation_calibration"].query("regime == 'singles'")
    levels = levels[~levels["metric"].str.endswith("alone")]["value_mean"].to_numpy()
    assert (np.diff(levels) > 0).all()
    assert value["network", "singles", "without graph", "edges"] == 0
    assert value["network", "singles", ablation.DEFAULT, "response SD / mean"] > 0
    default, plain = (value["posterior", "singles", name, "relative MSE"] for name in ("default", "posterior mean"))
    assert default != plain


def test_without_preconditioning_every_gene_reaches_every_latent(screen):
    method = ablation.WithoutPreconditioning(max_epochs=1, model_kwargs={"pairing": "random"}, **screen.setup)
    method.fit(screen.cells(screen.singles))
    module, n_genes = method.model.module, screen.adata.n_vars
    jacobian = torch.autograd.functional.jacobian(lambda x: module.encode(x)[0], torch.randn(1, n_genes))
    assert (jacobian[0, :, 0] != 0).all()


def test_cells_of_a_seed_are_a_part_of_each_condition(screen):
    first, again, other = (ablation._some_cells(screen, screen.singles, seed) for seed in (0, 0, 1))
    assert list(first.obs_names) == list(again.obs_names) != list(other.obs_names)
    counts = first.obs["perturbation"].value_counts()
    for label in [screen.control, *screen.singles]:
        assert counts[label] == round(0.9 * len(screen.rows(label)))
