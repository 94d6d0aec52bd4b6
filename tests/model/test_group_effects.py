"""Effects by group of cells: what a model's answers are made of, and which cells they rest on."""

import numpy as np
import pandas as pd
import pytest
import scvi

import raptorgraph as rg
from raptorgraph.model._group_effects import groups_of, infer_groups, measure_groups
from raptorgraph.screen import Screen
from raptorgraph.screen._moments import effect_moments

pytestmark = pytest.mark.usefixtures("few_steps")

ASKED = ["P01", "P02", "P03", "P01+P02"]


@pytest.fixture(scope="module")
def screen():
    """Two states; P01 acts in A alone, P02 in B alone: the cells of the other state are controls in truth."""
    adata = rg.datasets.simulate(
        120, 6, n_doubles=0, n_control_cells=900, n_cells_per_perturbation=80, effect_size=3.0, expected_degree=0.5,
        n_truth_cells=50, seed=2,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    state = rng.choice(["A", "B"], adata.n_obs)
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    controls = list(np.flatnonzero(labels == "control")[:200])
    X = adata.X.tolil()
    for gene, off in (("P01", "B"), ("P02", "A")):
        for row in np.flatnonzero((labels == gene) & (state == off)):
            source = controls.pop()
            X[row] = X[source]
            adata.obs.iloc[row, adata.obs.columns.get_loc("total_counts")] = adata.obs["total_counts"].iloc[source]
            labels[source] = "drop"
    adata.X = X.tocsr()
    adata.obs["state"] = pd.Categorical(state, categories=["B", "A", "none of them"])
    adata.obs["perturbation"] = labels
    return adata[labels != "drop"].copy()


@pytest.fixture(scope="module")
def trained(screen):
    scvi.settings.seed = 0
    adata = screen.copy()
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraphModel(adata, n_hidden=16)
    model.train(max_epochs=4, accelerator="cpu", enable_progress_bar=False)
    return model


def test_effects_are_there_where_they_act(trained):
    effects, sd = trained.predict_effects(ASKED, groupby="state", return_sd=True)
    assert effects.index.names == ["perturbation", "state"]
    assert effects.index.to_list() == [(p, s) for p in ASKED for s in ("B", "A")]  # as the categories are
    assert effects.attrs["kind"] == sd.attrs["kind"] == "posterior"
    assert effects.index.equals(sd.index)
    assert (sd > 0).all(axis=None)
    size = (effects**2).sum(axis=1) ** 0.5
    assert size["P01", "B"] < 0.4 * size["P01", "A"]
    assert size["P02", "A"] < 0.4 * size["P02", "B"]
    assert 0.7 < size["P03", "A"] / size["P03", "B"] < 1.4
    # the sampling error of the mean of the controls, which all effects share
    labels, masks = trained.predictor.masks(ASKED)
    raw = infer_groups(trained.predictor, "state").of(labels, masks, trained.predictor)[1]
    added = sd.to_numpy().reshape(raw.shape) ** 2 - raw**2
    np.testing.assert_allclose(added, np.broadcast_to(trained.calibration.control_variance, raw.shape), rtol=1e-3)
    screen = Screen(trained.adata, trained.setup_args)
    values = screen.expression_at(screen.rows(screen.control)).toarray()
    ratio = trained.calibration.control_variance.numpy() / (values.var(axis=0) / len(values))
    assert 0.8 < np.median(ratio) < 1.25
    # the pair, which was not measured, takes over where its members act
    common = trained.predict_effects(["P01", "P02"])
    for state, member in (("A", "P01"), ("B", "P02")):
        pair = effects.loc["P01+P02", state].to_numpy()
        cosine = {p: pair @ common.loc[p] / np.linalg.norm(pair) / np.linalg.norm(common.loc[p]) for p in common.index}
        assert cosine[member] > 0.8
        assert cosine[member] > max(value for name, value in cosine.items() if name != member) + 0.2


def test_a_perturbation_that_acts_alike_has_the_common_effect(trained):
    found = trained.predict_effects("P03", groupby="state")
    common = trained.predict_effects("P03").to_numpy()
    assert ((found.to_numpy() - common) ** 2).sum(axis=1).max() < 0.05 * (common**2).sum()


def test_groups_may_be_of_any_kind_and_newer_than_the_model(trained):
    adata = trained.adata
    adata.obs["number"] = (adata.obs["state"] == "A").astype(int)
    adata.obs["flag"] = (adata.obs["state"] == "A").to_numpy()
    adata.obs["text"] = adata.obs["state"].astype(str).replace({"B": "a first", "A": "then"})
    expected = trained.predict_effects(ASKED, groupby="state")
    for column, names in (("number", [0, 1]), ("flag", [False, True]), ("text", ["a first", "then"])):
        found = trained.predict_effects(ASKED, groupby=column)
        assert found.index.get_level_values(column)[:2].to_list() == names
        np.testing.assert_array_equal(found, expected)
    one = trained.predict_effects("P01", groupby="state")
    assert one.equals(expected.loc[["P01"]])
    assert trained.predict_effects("control", groupby="state").eq(0).all(axis=None)


def test_cells_in_another_object_give_the_same(trained):
    expected, sd = trained.predict_effects(ASKED, groupby="state", return_sd=True)
    order = np.random.default_rng(0).permutation(trained.adata.n_obs)
    shuffled = trained.adata[order].copy()[:, ::-1].copy()
    found, found_sd = trained.predict_effects(ASKED, shuffled, groupby="state", return_sd=True)
    # controls that are decoded are others
    np.testing.assert_allclose(found, expected, atol=0.05)
    np.testing.assert_allclose(found_sd, sd, atol=0.05)
    assert found.attrs["kind"] == "posterior"


def test_decoded_effects_are_those_of_the_controls_of_a_group(trained, monkeypatch):
    found = trained.predict_effects(ASKED, groupby="state", kind="decoder", n_cells=10_000)
    assert found.attrs["kind"] == "decoder"
    assert found.index.names == ["perturbation", "state"]
    adata = trained.adata
    controls = adata[adata.obs["perturbation"] == "control"]
    for state in ("A", "B"):
        part = controls[controls.obs["state"] == state].copy()
        expected = []
        for seed in range(1, 9):  # draws of the latents differ
            monkeypatch.setattr(scvi.settings, "seed", seed)
            expected.append(trained.predict_effects(ASKED, part, kind="decoder", n_cells=10_000).to_numpy())
        off = np.abs(found.xs(state, level="state").to_numpy() - np.mean(expected, axis=0))
        assert (off < 10 * np.std(expected, axis=0, ddof=1) + 1e-6).all()
    other = controls[: controls.n_obs // 2].copy()
    assert trained.predict_effects(ASKED, other, groupby="state").attrs["kind"] == "shifted decoder"
    with pytest.raises(ValueError, match="leave out `adata`"):
        trained.predict_effects(ASKED, other, groupby="state", return_sd=True)


def test_cells_that_were_kept_for_a_test_are_not_used(screen):
    scvi.settings.seed = 0
    adata = screen.copy()
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    model.train(max_epochs=1, accelerator="cpu", train_size=0.6, validation_size=0.2, enable_progress_bar=False)
    found = infer_groups(model.predictor, "state")
    known = np.sort(np.concatenate([model.train_indices, model.validation_indices]))
    np.testing.assert_array_equal(found.rows, known)
    labels = adata.obs["perturbation"].to_numpy()[known]
    n_cells = [(labels == label).sum() for label in found.screen.conditions]
    np.testing.assert_array_equal(found.measured.n_cells.sum(1), n_cells)


def test_measurements_are_those_of_each_group_by_itself(screen):
    cells = rg.screen.Screen(screen, {"library_size_key": "total_counts"})
    members, groups = groups_of(screen, "state")
    assert groups.to_list() == ["B", "A"]
    measured, overall = measure_groups(cells, np.arange(screen.n_obs), members, 2)
    for s in range(2):
        part = effect_moments(
            screen.X, cells.codes, len(cells.labels), library=cells.source[1], rows=members == s
        )  # fmt: skip
        np.testing.assert_allclose(measured.effect[:, s], part.effect[1:])
        np.testing.assert_array_equal(measured.n_cells[:, s], part.n[1:])
        np.testing.assert_allclose(measured.variance[:, s] + measured.control_variance[s], part.variance[1:])
        rows = (members == s) & (cells.codes == 0)
        values = np.asarray(cells.expression[rows].todense(), dtype=float)
        shown = values.var(0) > 0.05
        expected = values.var(0, ddof=1) / rows.sum()
        np.testing.assert_allclose(measured.control_variance[s][shown], expected[shown], rtol=1e-4)
        np.testing.assert_allclose(measured.lowest[s], -values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(overall.effect, cells.moments.effect)


def test_scores_of_correlated_genes_vary_more(trained):
    found = infer_groups(trained.predictor, "state")
    values = np.asarray(found.screen.expression[found.screen.codes == 0].todense(), dtype=float)
    state = found.members[found.screen.codes == 0]
    for s in range(2):
        values[state == s] -= values[state == s].mean(0)
    direction = found.effects.common / found.measured.gene_variance
    expected = ((values @ direction.T) ** 2).sum(0) / (direction**2 @ (values**2).sum(0))
    np.testing.assert_allclose(found.measured.inflation, expected, rtol=1e-4)
    assert found.measured.inflation.max() > 1.5


def with_column(adata, values):
    adata = adata.copy()
    adata.obs["group"] = values
    return adata


@pytest.mark.parametrize("kind", [None, "decoder"])
def test_bad_groups(trained, kind):
    adata = trained.adata
    n, control = adata.n_obs, (adata.obs["perturbation"] == "control").to_numpy()
    with pytest.raises(KeyError, match=r"groupby='stat' is not a column of adata.obs; did you mean one of \['state'"):
        trained.predict_effects("P01", groupby="stat", kind=kind)
    some = np.where(np.arange(n) == 7, None, "a")
    with pytest.raises(ValueError, match=rf"1 of {n} cells have no value in obs\['group'\].*drop them"):
        trained.predict_effects("P01", with_column(adata, some), groupby="group", kind=kind)
    with pytest.raises(ValueError, match="different numbers, and no groups; bin them first"):
        trained.predict_effects("P01", with_column(adata, np.linspace(0, 1, n)), groupby="group", kind=kind)
    lonely = np.where(control, "a", np.resize(["a", "b"], n))
    with pytest.raises(ValueError, match=r"fewer than [12]: 'b' \(0\). Merge them with other groups, or drop their"):
        trained.predict_effects("P01", with_column(adata, lonely), groupby="group", kind=kind)
    with pytest.raises(TypeError, match="groupby=5 must be the name of a column of obs"):
        trained.predict_effects("P01", groupby=5, kind=kind)


def test_controls_alone_have_no_measured_effects(trained):
    controls = trained.adata[trained.adata.obs["perturbation"] == "control"].copy()
    with pytest.raises(ValueError, match="controls alone"):
        trained.predict_effects("P01", controls, groupby="state")
    assert trained.predict_effects("P01", controls, groupby="state", kind="decoder").shape[0] == 2


def test_saved_models_answer_alike(trained, tmp_path):
    expected = trained.predict_effects(ASKED, groupby="state")
    trained.save(tmp_path / "m", save_anndata=True)
    assert rg.RaptorGraphModel.load(tmp_path / "m").predict_effects(ASKED, groupby="state").equals(expected)
    without = rg.RaptorGraphModel.load(tmp_path / "m", adata=False)
    with pytest.raises(ValueError, match="without data"):
        without.predict_effects(ASKED, groupby="state")
    np.testing.assert_array_equal(without.predict_effects(ASKED, trained.adata.copy(), groupby="state"), expected)
