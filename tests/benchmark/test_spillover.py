import numpy as np
import pandas as pd
import pytest
import scvi
import torch

from raptorgraph import benchmark
from raptorgraph.benchmark import _spillover as spillover
from raptorgraph.benchmark._settings import Settings
from raptorgraph.evaluation._methods import RaptorGraphMethod
from raptorgraph.model import RaptorGraphModel

pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module")
def screen():
    return benchmark.load_screen(Settings(screen="simulated", quick=True), 0)


def linear(weight: torch.Tensor, shift: pd.DataFrame, own: dict[str, int], norm=None) -> spillover.Encoder:
    """Encoder ``z = x W`` with a posterior of negligible width."""
    return spillover.Encoder(
        lambda x: (x @ weight, torch.full((len(x), weight.shape[1]), -30.0)), norm or torch.nn.Identity(), own, shift
    )


def test_run(tmp_path):
    tables = benchmark.run("spillover", screen="simulated", out=tmp_path, seeds=1, quick=True, n_jobs=0, progress=False)
    assert (tmp_path / "spillover.png").stat().st_size > 10_000
    for stem in ("spillover", "spillover_long", "spillover_genes"):
        assert (tmp_path / f"{stem}.csv").exists()
        assert (tmp_path / f"{stem}.md").exists()
    mean = tables["spillover_long"].set_index(["metric", "method", "state"])["value_mean"]
    assert mean.between(0, 1).all()
    before = "raptorgraph paper" + spillover.BEFORE_NORM
    for state in ("trained", "untrained"):
        for method in ("raptorgraph", before):
            assert mean["Jacobian, own", method, state] == 0
            assert mean["modulator", method, state] == 0
        assert mean["Jacobian, best", "dVAE", state] > 0.1
        # the paper's LayerNorm undoes what the preconditioning did
        assert mean["Jacobian, own", "raptorgraph paper", state] > 0.05
    assert mean[spillover.LIMIT, "raptorgraph", "trained"] == pytest.approx(8 / 9)
    assert mean[spillover.LIMIT, "dVAE", "trained"] == pytest.approx(4 / 5)
    assert (mean["Jacobian, best"] <= mean["Jacobian, own"] + 1e-9).all()


def test_linear_encoders_with_known_shares(screen):
    genes = [screen.genes_of[label][0] for label in screen.singles]
    columns = [screen.adata.var_names.get_loc(gene) for gene in genes]
    d, own = len(genes), {gene: k for k, gene in enumerate(genes)}
    shift = pd.DataFrame(np.eye(d), index=genes)

    atomic = torch.zeros(screen.adata.n_vars, d)
    atomic[columns, range(d)] = 2.0
    found = spillover.measure(linear(atomic, shift, own), screen, 0)
    np.testing.assert_allclose(found[["jacobian_own", "jacobian_best", "modulator"]], 0, atol=1e-6)

    # each latent is the same sum: same spread, so a gene's response is spread evenly
    dense = torch.ones(screen.adata.n_vars, d)
    found = spillover.measure(linear(dense, pd.DataFrame(np.ones((d, d)), index=genes), own), screen, 0)
    np.testing.assert_allclose(found[["jacobian_own", "jacobian_best", "modulator"]], 1 - 1 / d, atol=1e-5)
    np.testing.assert_allclose(found[["real_own", "real_best"]].dropna(), 1 - 1 / d, atol=1e-5)


def test_norm_is_part_of_the_response(screen):
    genes = [screen.genes_of[label][0] for label in screen.singles]
    columns = [screen.adata.var_names.get_loc(gene) for gene in genes]
    d, own = len(genes), {gene: k for k, gene in enumerate(genes)}
    weight = torch.zeros(screen.adata.n_vars, d)
    weight[columns, range(d)] = 1.0
    centered = linear(weight, pd.DataFrame(np.eye(d), index=genes), own, lambda z: z - z.mean(1, keepdim=True))
    found = spillover.measure(centered, screen, 0)
    assert (found["jacobian_own"] > 0.02).all()
    assert (found["modulator"] > 0.02).all()
    assert found["jacobian_own"].to_numpy() == pytest.approx(found["modulator"].to_numpy(), abs=1e-5)


def test_share_off_one_latent():
    assert spillover.off_own(np.array([3.0, 1.0, 0.0]), 0) == pytest.approx(0.25)
    assert spillover.off_own(np.array([0.0, 1.0]), 0) == 1
    assert np.isnan(spillover.off_own(np.zeros(2), 0))


def test_encoder_takes_genes_in_the_order_of_the_screen(screen):
    adata = screen.cells(screen.singles)
    method = RaptorGraphMethod(max_epochs=1, **screen.setup).fit(adata)
    assert list(method.model.var_names_) != list(adata.var_names)
    encoder = spillover.encoder_of(method)
    x = spillover._cells(screen, screen.rows("control")[:7])
    expected = method.model.get_latent_representation(screen.adata[screen.rows("control")[:7]].copy(), "exogenous")
    np.testing.assert_allclose(encoder.mean(x).detach().numpy(), expected, atol=1e-5)


def test_the_encoder_that_is_not_trained_has_the_weights_that_were_drawn(screen):
    train = screen.cells(screen.singles)
    method = spillover.untrained("raptorgraph", Settings(screen="simulated", quick=True), screen, 3).fit(train)
    scvi.settings.seed = 3
    RaptorGraphModel.setup_anndata(train, **screen.setup)
    drawn = RaptorGraphModel(train, perturbed_prior=False).module.encoder.state_dict()
    for key, values in method.model.module.encoder.state_dict().items():
        torch.testing.assert_close(values, drawn[key])


@pytest.mark.parametrize("name", ["raptorgraph", "dVAE"])
def test_untrained_encoders_are_those_of_the_start(screen, name):
    settings = Settings(screen="simulated", quick=True)
    train = screen.cells(screen.singles)
    x = spillover._cells(screen, screen.rows("control"))

    def z(seed, method=None):
        method = method or spillover.untrained(name, settings, screen, seed)
        return spillover.encoder_of(method.fit(train)).mean(x).detach().numpy()

    trained = spillover.method_of(name, settings, screen.setup, 0)
    np.testing.assert_array_equal(z(0), z(0))
    assert not np.allclose(z(0), z(1))
    assert not np.allclose(z(0), z(0, trained))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"methods": ["additive"]}, "'additive' has no encoder"), ({"methods": ["SENA"]}, "needs gene sets")],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        benchmark.run("spillover", screen="simulated", out=tmp_path, quick=True, n_jobs=0, progress=False, **options)
    assert not list(tmp_path.rglob("*.csv"))


def test_norm_is_averaged_over_the_posterior():
    norm = torch.nn.LayerNorm(4, elementwise_affine=False)
    encoder = spillover.Encoder(lambda x: (x, torch.zeros_like(x)), norm, {}, pd.DataFrame())
    x = 0.1 * torch.tensor([[1.0, 0.0, -1.0, 2.0], [0.0, 3.0, 0.0, 0.0]])
    draws = torch.randn(200_000, 1, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoder.mean(x), norm(x + draws).mean(0), atol=0.12, rtol=0)
    assert norm(x).square().mean() > 5 * encoder.mean(x).square().mean()
