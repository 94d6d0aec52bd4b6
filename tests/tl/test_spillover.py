import numpy as np
import pytest
import scvi
import torch
from torch import nn

import raptorgraph as rg
from raptorgraph.tl._spillover import spillover, spillover_index

pytestmark = pytest.mark.usefixtures("few_steps")

SHARES = ["jacobian_own", "jacobian_best", "real_own", "real_best"]


def cells(n=200, n_genes=6, seed=0, **shift):
    """Normal cells with the given columns shifted, such as g2=1.5."""
    x = np.random.default_rng(seed).normal(size=(n, n_genes))
    for name, size in shift.items():
        x[:, int(name[1:])] += size
    return torch.as_tensor(x)


def test_linear_encoder_has_the_shares_of_its_weights():
    weight = torch.as_tensor(np.random.default_rng(1).normal(size=(6, 4)))
    squared = weight.numpy() ** 2
    genes = {f"g{k}": k for k in range(6)}
    table = spillover_index(lambda x: x @ weight, cells(), {}, genes, {"g0": 2, "g1": 0}, scale=np.ones(4))
    total = squared.sum(axis=1)
    assert list(table.index) == list(genes)
    np.testing.assert_allclose(table["jacobian_best"], 1 - squared.max(axis=1) / total)
    np.testing.assert_allclose(
        table.loc[["g0", "g1"], "jacobian_own"], 1 - np.array([squared[0, 2], squared[1, 0]]) / total[:2]
    )
    assert table.loc["g2":, "jacobian_own"].isna().all()
    assert table[["real_own", "real_best"]].isna().all(axis=None)
    assert (table["n_cells"] == 0).all()


def test_atomic_is_0_and_even_is_1_minus_1_over_d():
    genes = {f"g{k}": k for k in range(6)}
    own = {f"g{k}": k for k in range(6)}
    shifted = {"g1": cells(seed=1, g1=3.0)}
    atomic = spillover_index(lambda x: x, cells(), shifted, genes, own)
    assert (atomic[["jacobian_own", "jacobian_best"]] == 0).all(axis=None)
    even = spillover_index(lambda x: x @ torch.ones(6, 5).double(), cells(), shifted, genes, {"g1": 3})
    np.testing.assert_allclose(even["jacobian_best"], 0.8)
    np.testing.assert_allclose(even.loc["g1", SHARES].to_numpy(dtype=float), 0.8)


def test_latents_count_in_units_of_their_spread():
    units = torch.tensor([1.0, 10.0, 0.1, 3.0]).double()
    weight = torch.as_tensor(np.random.default_rng(1).normal(size=(6, 4)))
    genes, shifted = {f"g{k}": k for k in range(6)}, {"g0": cells(seed=1, g0=2.0)}
    plain, scaled = (
        spillover_index(lambda x, w=w: x @ w, cells(), shifted, genes, {"g0": 1}) for w in (weight, weight * units)
    )
    np.testing.assert_allclose(plain[SHARES], scaled[SHARES])
    x = cells().numpy() @ weight.numpy()
    standard = weight.numpy() ** 2 / x.var(axis=0)
    np.testing.assert_allclose(plain["jacobian_best"], 1 - standard.max(axis=1) / standard.sum(axis=1))


def test_curved_encoder_against_automatic_differentiation():
    torch.manual_seed(0)
    encode = nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.Linear(8, 3)).double()
    x = cells(150)
    jacobian = torch.stack([torch.autograd.functional.jacobian(encode, cell) for cell in x])  # cells x latents x genes
    squared = (jacobian**2).mean(0).numpy() / encode(x).detach().numpy().var(axis=0)[:, None]
    table = spillover_index(encode, x, {}, {"a": 4, "b": 1}, {"a": 2, "b": 0})
    for gene, column, own in (("a", 4, 2), ("b", 1, 0)):
        share = squared[:, column] / squared[:, column].sum()
        np.testing.assert_allclose(
            table.loc[gene, ["jacobian_own", "jacobian_best"]], [1 - share[own], 1 - share.max()]
        )


def test_shift_of_real_cells():
    control, shifted = cells(300), cells(80, seed=1, g0=2.0, g3=-1.0)
    table = spillover_index(lambda x: x, control, {"a": shifted}, {"a": None}, {"a": 3})
    a, b = control.numpy(), shifted.numpy()
    squared = (b.mean(axis=0) - a.mean(axis=0)) ** 2 - b.var(axis=0, ddof=1) / 80 - a.var(axis=0, ddof=1) / 300
    squared /= a.var(axis=0)
    assert table.loc["a", "real_own"] == pytest.approx(1 - squared[3] / squared.sum())
    assert table.loc["a", "real_best"] == pytest.approx(1 - squared[0] / squared.sum())
    assert table.loc["a", "n_cells"] == 80
    assert table.loc["a", ["jacobian_own", "jacobian_best"]].isna().all()


def test_noise_is_no_spillover():
    corrected, plain = [], []
    for seed in range(20):
        control, shifted = cells(400, 100, seed=2 * seed), cells(100, 100, seed=2 * seed + 1, g5=2.0)
        table = spillover_index(lambda x: x, control, {"a": shifted}, {"a": 5}, {"a": 5})
        corrected.append(table.loc["a", "real_own"])
        squared = (shifted.mean(0) - control.mean(0)).numpy() ** 2
        plain.append(1 - squared[5] / squared.sum())
    assert np.mean(plain) > 0.2
    assert np.mean(corrected) < 0.05


def test_latents_that_do_not_vary_are_left_out():
    def encode(x):
        return torch.stack([x[:, 0], x[:, 0] + x[:, 1], 0 * x[:, 0]], dim=1)

    table = spillover_index(encode, cells(), {"a": cells(seed=1, g0=2.0)}, {"a": 0, "b": 1, "c": 5}, {"a": 2, "b": 2})
    assert table.loc["a", "jacobian_own"] == 1
    assert table.loc["b", "jacobian_best"] == 0
    assert table.loc["c", SHARES].isna().all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"gene_columns": {"a": 6}}, "The column of 'a' is 6"),
        ({"own_latent": {"a": -1}}, "The latent of 'a' is -1"),
        ({"encode": lambda x: x.sum(1)}, r"\(200, 6\) became \(200,\)"),
        ({"x_control": cells(1)}, "at least 2 control cells, got 1"),
        ({"scale": np.ones(5)}, "scale must hold 6"),
        ({"scale": np.full(6, np.nan)}, "scale must hold 6"),
    ],
)
def test_bad_arguments(change, match):
    arguments = {
        "encode": lambda x: x, "x_control": cells(), "x_perturbed": {}, "gene_columns": {"a": 0}, "own_latent": {"a": 0}
    }  # fmt: skip
    with pytest.raises(ValueError, match=match):
        spillover_index(**{**arguments, **change})


# -- models ----------------------------------------------------------------------------------------------------------
def train(max_epochs=10, **kwargs):
    scvi.settings.seed = 0
    adata = rg.datasets.simulate(
        n_genes=60, n_perturbed=5, n_control_cells=300, n_cells_per_perturbation=200, n_doubles=3, n_truth_cells=20,
        targets_without_gene=0.2,
    )  # fmt: skip
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraph(adata, **kwargs)
    model.train(max_epochs=max_epochs, enable_progress_bar=False, accelerator="cpu")
    return model


@pytest.fixture(scope="module")
def trained():
    return train()


def by_hand(model, module, **kwargs):
    """Index of a module from the expression of the model's cells, all of them."""
    adata, genes = model.adata, model.perturbed_genes
    library = torch.tensor(adata.obs["total_counts"].to_numpy())[:, None]
    x = torch.log1p(1e4 * torch.as_tensor(adata.X.toarray()) / library).float()
    label = adata.obs["perturbation"].astype(str).to_numpy()
    with torch.no_grad():
        mean, log_var = module.encode(x[label == "control"])
    return spillover_index(
        lambda x: module.encode(x)[0],
        x[label == "control"],
        {gene: x[label == gene] for gene in genes},
        {gene: k if k < 4 else None for k, gene in enumerate(genes)},
        {gene: k for k, gene in enumerate(genes)},
        scale=(mean.var(0) + log_var.exp().mean(0)).sqrt().numpy(),  # of posterior draws, in expectation
    )


def test_encoder_is_atomic_for_the_gene_alone(trained):
    table = spillover(trained)
    assert list(table.index) == trained.perturbed_genes
    assert (table["n_cells"] == 200).all()
    assert (table.iloc[:4][["jacobian_own", "jacobian_best"]] == 0).all(axis=None)
    assert table.iloc[4][["jacobian_own", "jacobian_best"]].isna().all()  # its gene is not in the panel
    assert (table["real_best"] <= table["real_own"]).all()


def test_real_cells_spill_over_all_the_same(trained):
    torch.manual_seed(0)
    table = by_hand(trained, rg.RaptorGraph(trained.adata).module)  # untrained: what the architecture gives
    assert (table.iloc[:4]["jacobian_own"] == 0).all()
    assert np.average(table["real_own"], weights=table["real_response"]) > 0.2


def test_model_and_its_encoder_agree(trained):
    table, index = spillover(trained, n_cells=10_000), by_hand(trained, trained.module)
    np.testing.assert_allclose(table[SHARES], index[SHARES], atol=0.05)
    np.testing.assert_allclose(table["real_response"], index["real_response"], rtol=0.2)
    assert list(table["n_cells"]) == list(index["n_cells"])


def test_same_seed_same_bits_and_other_data(trained):
    table = spillover(trained, n_cells=50, seed=3)
    assert table.equals(spillover(trained, n_cells=50, seed=3))
    part = trained.adata[trained.adata.obs["perturbation"].isin(["control", trained.perturbed_genes[0]])].copy()
    other = spillover(trained, part, n_cells=50, seed=3)
    assert list(other["n_cells"]) == [200, 0, 0, 0, 0]
    assert other["real_own"].notna().sum() == 1
    assert other["real_own"].iloc[0] == pytest.approx(table["real_own"].iloc[0], rel=1e-5)
    with pytest.raises(ValueError, match="n_cells=1"):
        spillover(trained, n_cells=1)


def test_normalizing_over_latents_ties_them():
    table = spillover(train(max_epochs=2, latent_norm="layer"))
    assert (table.iloc[:4]["jacobian_own"] > 0.01).all()


def test_latents_that_say_nothing_do_not_respond(trained):
    """A posterior that is nearly the prior: the norm of its mean would have the size of a latent in use."""
    model = rg.RaptorGraph(trained.adata, latent_norm="layer")
    model.is_trained_ = True
    with torch.no_grad():
        model.module.encoder.aggregation[0].mul_(1e-3)
        model.module.encoder.aggregation[1].zero_()
        model.module.encoder.offset.zero_()
    response = spillover(model, n_cells=20)["real_response"]
    assert response.abs().max() < 1e-3
