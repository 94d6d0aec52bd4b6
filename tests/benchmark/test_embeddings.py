from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from sklearn.decomposition import PCA

from raptorgraph import benchmark, datasets
from raptorgraph.benchmark import Settings
from raptorgraph.benchmark import _embeddings as embeddings
from raptorgraph.screen import Screen

pytestmark = pytest.mark.usefixtures("few_steps")
QUICK = Settings(screen="simulated", quick=True)


@pytest.fixture(scope="module")
def screen():
    return benchmark.load_screen(QUICK, 0)


@pytest.fixture(scope="module")
def parted(screen):
    return embeddings.hold_out(screen, 0)


def sized(*n_cells: int, batch: list[int] | None = None) -> Screen:
    """Screen of control and conditions with so many cells."""
    adata = datasets.simulate(30, 3, n_doubles=1, n_control_cells=80, n_cells_per_perturbation=80, n_truth_cells=2)
    codes = Screen(adata).codes
    kept = np.concatenate([np.flatnonzero(codes == code)[:n] for code, n in enumerate(n_cells)])
    return Screen(
        adata[kept].copy(), batch=None if batch is None else np.array(batch)[: len(kept)], source=(None, None)
    )


def test_a_quarter_of_the_cells_is_held_out():
    screen = sized(80, 10, 16, 30)
    parted = embeddings.hold_out(screen, 3)
    together = np.concatenate([parted.train, parted.test])
    np.testing.assert_array_equal(np.sort(together), np.arange(len(screen.codes)))
    # a quarter, but 20 where it can be, and half of a small condition; none of one that is too small
    assert np.bincount(parted.codes, minlength=4).tolist() == [20, 0, 8, 15]
    again = embeddings.hold_out(screen, 3)
    np.testing.assert_array_equal(again.test, parted.test)
    assert not np.array_equal(embeddings.hold_out(screen, 4).test, parted.test)
    assert (parted.held_out.obs_names == screen.adata.obs_names[parted.test]).all()
    assert set(parted.fitted.obs_names).isdisjoint(parted.held_out.obs_names)


def test_combinations_may_be_left_out():
    adata = datasets.simulate(30, 3, n_doubles=2, n_control_cells=40, n_cells_per_perturbation=40, n_truth_cells=2)
    screen = Screen(adata)
    parted = embeddings.hold_out(screen, 0, combinations=False)
    assert (screen.n_perturbed[screen.codes[parted.train]] <= 1).all()
    held = pd.Series(np.array(screen.labels)[parted.codes]).value_counts()
    assert held.to_dict() == dict.fromkeys([screen.control, *screen.singles], 20)


def test_a_batch_is_known_to_the_fit():
    n = 80 + 40
    free = embeddings.hold_out(sized(80, 40), 0)
    alone = int(free.test[5])  # the only cell of its batch
    parted = embeddings.hold_out(sized(80, 40, batch=[int(i == alone) for i in range(n)]), 0)
    np.testing.assert_array_equal(parted.test, np.setdiff1d(free.test, [alone]))
    np.testing.assert_array_equal(parted.train, np.union1d(free.train, [alone]))


def test_principal_components_are_those_of_the_other_cells(screen, parted):
    x = screen.expression.toarray()
    exact = PCA(4, svd_solver="full").fit(x[parted.train]).transform(x[parted.test])
    found = embeddings.embed_by_pca(parted, 4, 0)
    np.testing.assert_allclose(np.abs(found), np.abs(exact), atol=1e-3)
    assert embeddings.embed_by_pca(parted, 100, 0).shape == (len(parted.test), x.shape[1] - 1)


def test_the_dimension_is_that_of_the_model(screen, parted):
    _, table = embeddings.embed_by_ours("raptorgraph", parted, QUICK, 0)
    found, _ = embeddings.embed_by_ours("raptorgraph", parted, QUICK, 0)
    assert found["raptorgraph"].shape == (len(parted.test), embeddings.dimension(parted))
    assert found["raptorgraph, own latents"].shape == (len(parted.test), len(screen.perturbed_genes))
    assert table.index.tolist() == screen.singles


@pytest.mark.parametrize("name", embeddings.FOR_COUNTS)
def test_deep_models_see_counts_of_the_fit_alone(screen, parted, name, monkeypatch):
    kind = scvi.model.SCVI if name == "scVI" else scvi.external.ContrastiveVI
    seen, train = {}, kind.train

    def spy(self, **kwargs):
        seen["cells"] = self.adata.obs_names.tolist()
        seen["background"] = self.adata.obs["perturbation"].iloc[kwargs.get("background_indices", [])].tolist()
        seen["target"] = self.adata.obs["perturbation"].iloc[kwargs.get("target_indices", [])].tolist()
        seen["max_epochs"] = kwargs["max_epochs"]
        return train(self, **kwargs)

    monkeypatch.setattr(kind, "train", spy)
    one, again = (embeddings.embed_by_deep_model(name, parted, 3, QUICK, seed) for seed in (0, 0))
    assert one.shape == (len(parted.test), 3)
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, embeddings.embed_by_deep_model(name, parted, 3, QUICK, 1))
    assert seen["cells"] == parted.fitted.obs_names.tolist()
    assert seen["max_epochs"] == 2
    if name == "contrastiveVI":
        assert set(seen["background"]) == {"control"}
        assert len(seen["background"]) + len(seen["target"]) == len(parted.train)
        assert "control" not in seen["target"]


def test_shift_by_a_modulator_that_depends_on_other_latents():
    def modulator(z, mask):  # the first gene down by 3, the second up by the last latent
        return z + torch.cat([mask * torch.stack([-3 + 0 * z[:, 2], z[:, 2]], 1), 0 * z[:, 2:]], 1)

    model = SimpleNamespace(
        perturbed_genes=["A", "B"], device=torch.device("cpu"), module=SimpleNamespace(modulator=modulator)
    )
    z = np.array([[0.0, 0.0, 1.0], [5.0, 5.0, 2.0]], dtype=np.float32)
    np.testing.assert_allclose(embeddings.modulator_shift(model, z), [-3, 1.5])


def test_own_latents_of_known_cells(screen, parted):
    genes = screen.perturbed_genes
    rng = np.random.default_rng(0)
    shift = 0.1 * rng.standard_normal((len(parted.test), len(genes)))
    by_modulator = np.array([-2.0, 2.0, 2.0, 2.0, 2.0])
    code = {gene: screen.labels.index(screen.single(gene)) for gene in genes}
    shift[parted.codes == code[genes[0]], 0] -= 1.5  # down, as the modulator shifts it
    shift[parted.codes == code[genes[1]], 1] -= 1.5  # against the modulator
    half = np.flatnonzero(parted.codes == code[genes[2]])[:10]
    shift[half, 2] += 5
    model = SimpleNamespace(perturbed_genes=genes)
    table = embeddings.own_latents(shift, by_modulator, model, parted)
    first, second, third = (table.loc[screen.single(gene)] for gene in genes[:3])
    assert first.to_dict() == pytest.approx(
        {
            embeddings.N_CELLS: 20,
            embeddings.LARGEST: 1,
            embeddings.RANK: 1,
            embeddings.AUROC: 1,
            embeddings.SHIFT: 1.5,
            embeddings.MODULATOR: 2,
        },
        abs=0.1,
    )
    assert second[embeddings.LARGEST] == 0
    assert second[embeddings.RANK] == 5
    assert second[embeddings.AUROC] == 0
    assert second[embeddings.SHIFT] == pytest.approx(-1.5, abs=0.1)
    assert third[embeddings.LARGEST] == pytest.approx(0.5 + 0.5 / 5, abs=0.2)
    assert third[embeddings.SHIFT] == pytest.approx(2.5, abs=0.1)
