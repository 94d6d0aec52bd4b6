import numpy as np
import pytest
import scvi
from scipy.stats import norm

from raptorgraph import RaptorGraphModel, benchmark
from raptorgraph.benchmark import _ablation_posterior as posterior
from raptorgraph.benchmark import _variants as variants
from raptorgraph.benchmark._settings import Settings

pytestmark = pytest.mark.usefixtures("few_steps")
QUICK = Settings(screen="simulated", quick=True)


@pytest.fixture(scope="module")
def screen():
    return benchmark.load_screen(QUICK, 1)


@pytest.fixture(scope="module")
def value(few_steps, screen):
    """Scores by half, regime, variant and metric."""
    rows = posterior.posterior_rows(screen, QUICK, 0)
    return rows.set_index([*posterior.BY, "metric"])["value"].sort_index()


def test_every_part_has_a_row_in_both_regimes(value):
    for regime in ("singles", "doubles"):
        assert set(value["posterior", regime].index.get_level_values("variant")) == set(posterior.POSTERIOR)
    covered = [value["posterior", "singles", posterior.DEFAULT, posterior.COVERAGE.format(x)] for x in posterior.LEVELS]
    assert (np.diff(covered) > 0).all()
    default, plain = (value["posterior", "singles", name, "relative MSE"] for name in ("default", "posterior mean"))
    assert default != plain


def test_pairs_are_ranked_in_every_way(value):
    ranking = value["ranking"]
    assert set(ranking.index.get_level_values("regime")) == {"singles", "doubles"}
    by_type = ranking.drop("mean of all", level="metric")
    assert by_type.between(0, 1).all()
    for (regime, way), mean in by_type.groupby(["regime", "variant"]).mean().items():
        assert ranking[regime, way, "mean of all"] == pytest.approx(mean)
    # The sum of two effects is as long as itself: additive sums say nothing of synergy.
    chance = ranking["singles", variants.CHANCE, "synergy"]
    assert ranking["singles", variants.ADDITIVE, "synergy"] == pytest.approx(chance)


def test_ranks_of_a_perfect_model_are_those_of_the_truth():
    screen = benchmark.load_screen(Settings(screen="simulated-interacting"), 1)
    pairs = [label for label in screen.combinations if len(screen.genes_of[label]) == 2]
    a, b, ab = posterior.pair_effects(screen.effects, pairs, screen)
    true = posterior.interaction_scores(a, b, ab)
    drawn = {}
    for i, label in enumerate(pairs):
        drawn[label] = np.stack([a[i], b[i], ab[i]]), {type_: np.full(8, true[type_][i]) for type_ in posterior.TYPES}
    found = {table["variant"].iloc[0]: table.set_index("metric")["value"] for table in posterior._ranking(
        drawn, screen, "singles"
    )}  # fmt: skip
    for type_ in posterior.TYPES:
        # Of 40 pairs ten are positive, and all of them are among the first ten.
        assert found["score"][type_] == found["probability"][type_] == 1
        assert found[variants.CHANCE][type_] == pytest.approx(0.25)


def test_scores_of_the_posterior_are_those_of_its_effects(value, screen):
    train = posterior._some_cells(screen, screen.singles, 0)
    RaptorGraphModel.setup_anndata(train, **screen.setup)
    scvi.settings.seed = 0
    model = RaptorGraphModel(train)
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
    found = value["posterior", "singles", posterior.DEFAULT]
    assert found[list(expected)].to_dict() == pytest.approx(expected, rel=1e-4)


def test_cells_of_a_seed_are_a_part_of_each_condition(screen):
    first, again, other = (posterior._some_cells(screen, screen.singles, seed) for seed in (0, 0, 1))
    assert list(first.obs_names) == list(again.obs_names) != list(other.obs_names)
    counts = first.obs["perturbation"].value_counts()
    for label in [screen.control, *screen.singles]:
        assert counts[label] == round(0.9 * len(screen.rows(label)))
