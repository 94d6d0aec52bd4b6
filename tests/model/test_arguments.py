"""Arguments that cannot be: one error that names them, before any work and before anything is changed."""

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scipy import sparse

import raptorgraph as rg

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def screen():
    """A screen whose obs has a column of each kind."""
    adata = rg.datasets.simulate(
        30, 3, n_doubles=2, n_control_cells=30, n_cells_per_perturbation=10, n_truth_cells=20, seed=1
    )
    n = adata.n_obs
    numbers, late = np.arange(n, dtype=float), np.arange(n) == 3
    adata.obs = adata.obs.assign(
        phase=pd.Categorical(np.resize(["G1", "S"], n)),
        lane=pd.Categorical(np.resize(["a", "b"], n)),
        depth=numbers,
        text="0.1",
        objects=pd.Series(list(range(n)), dtype=object, index=adata.obs_names),
        day=pd.Timestamp("2020-01-01") + pd.to_timedelta(numbers, "D"),
        complex=numbers * 1j,
        infinite=np.where(late, np.inf, numbers),
        missing=np.where(late, np.nan, numbers),
        lists=pd.Series([[1]] * n, index=adata.obs_names),
    )
    return adata


@pytest.fixture(scope="module")
def registered(screen):
    adata = screen.copy()
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    return adata


@pytest.fixture(scope="module")
def model(registered):
    scvi.settings.seed = 0
    return rg.RaptorGraph(registered, n_hidden=8)


def assert_same(adata, before):
    """Everything that a setup could write, and the order of the genes."""
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    pd.testing.assert_frame_equal(adata.var, before.var)
    for slot in ("uns", "obsm", "varm", "obsp", "varp", "layers"):
        assert list(getattr(adata, slot)) == list(getattr(before, slot)), slot
    for key, table in before.obsm.items():
        one, other = (
            part.toarray() if sparse.issparse(part) else np.asarray(part) for part in (adata.obsm[key], table)
        )
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(adata.X.toarray(), before.X.toarray())


SETUP = [
    ({"continuous_covariate_keys": ["text"]}, ValueError, "continuous_covariate_keys: 'text' holds text.*convert"),
    ({"continuous_covariate_keys": ["phase"]}, ValueError, "'phase' holds text.*categorical_covariate_keys"),
    ({"continuous_covariate_keys": ["objects"]}, ValueError, "continuous_covariate_keys: 'objects' .*to_numeric"),
    ({"continuous_covariate_keys": ["day"]}, ValueError, "continuous_covariate_keys: 'day' .*days since"),
    ({"continuous_covariate_keys": ["complex"]}, ValueError, "continuous_covariate_keys: 'complex' .*real part"),
    ({"continuous_covariate_keys": ["infinite"]}, ValueError, "'infinite' is infinite or missing in 1 cells.*cell3"),
    ({"continuous_covariate_keys": ["missing"]}, ValueError, "'missing' is missing in 1 cells .*cell3"),
    ({"continuous_covariate_keys": ["lists"]}, ValueError, "'lists' holds values of type object"),
    ({"continuous_covariate_keys": "depth"}, TypeError, r"must be a list: continuous_covariate_keys=\['depth'\]"),
    ({"categorical_covariate_keys": "phase"}, TypeError, r"must be a list: categorical_covariate_keys=\['phase'\]"),
    ({"categorical_covariate_keys": {"phase"}}, TypeError, "categorical_covariate_keys={'phase'} must be a list"),
    ({"categorical_covariate_keys": [None]}, TypeError, "categorical_covariate_keys .* it has None"),
    ({"categorical_covariate_keys": ["phase", "phase"]}, ValueError, "names 'phase' more than once"),
    ({"categorical_covariate_keys": ["perturbation"]}, ValueError, "'perturbation' is the perturbation_key already"),
    ({"categorical_covariate_keys": ["lane"], "batch_key": "lane"}, ValueError, "'lane' is the batch_key already"),
    (
        {"categorical_covariate_keys": ["phase"], "continuous_covariate_keys": ["phase"]},
        ValueError,
        "continuous_covariate_keys: 'phase' is among categorical_covariate_keys already",
    ),
    ({"categorical_covariate_keys": ["depth"]}, ValueError, "'depth' has 80 values in 80 cells.*continuous"),
    ({"categorical_covariate_keys": ["missing"]}, ValueError, "categorical_covariate_keys: 'missing' is missing in 1"),
    ({"categorical_covariate_keys": ["lists"]}, ValueError, "categorical_covariate_keys: 'lists' .*unhashable"),
    ({"categorical_covariate_keys": ["phases"]}, KeyError, "categorical_covariate_keys='phases' .*did you mean.*phase"),
    *(({"control": value}, ValueError, "control=.* must be a label") for value in (None, [], [1], 3, "", [" "])),
    *(({"delimiter": value}, ValueError, "delimiter=.* must be a non-empty string") for value in ("", None, 1)),
    *(({"perturbation_key": value}, TypeError, "perturbation_key=.* column of obs") for value in (None, ["a"], 3)),
    *(({"layer": value}, TypeError, "layer=.* must be the name of a layer") for value in (3, ["counts"], True)),
    ({"layer": ""}, ValueError, "layer='' is empty"),
    ({"batch_key": ["lane"]}, TypeError, "batch_key=.* column of obs"),
    ({"batch_key": "perturbation"}, ValueError, "batch_key='perturbation' is the perturbation_key"),
    ({"batch_key": "lists"}, TypeError, "batch_key='lists' .*unhashable"),
    ({"library_size_key": ["depth"]}, TypeError, "library_size_key=.* column of obs"),
    ({"library_size_key": "text"}, ValueError, "library_size_key: 'text' holds text"),
    ({"labels_key": "phase"}, TypeError, r"unexpected keyword arguments \['labels_key'\]"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), SETUP)
def test_setup(screen, arguments, error, message):
    adata = screen.copy()
    with pytest.raises(error, match=message):
        rg.RaptorGraph.setup_anndata(adata, **arguments)
    assert_same(adata, screen)


@pytest.mark.parametrize(
    ("broken", "error", "message"),
    [
        (lambda adata: adata[:0], ValueError, "0 cells and 30 genes"),
        (lambda adata: adata[:, :0], ValueError, "80 cells and 0 genes"),
        (lambda adata: adata[:0, :0], ValueError, "0 cells and 0 genes"),
        (lambda adata: adata[:1], ValueError, "control cell"),
    ],
)
def test_screens_without_cells_or_genes(screen, broken, error, message):
    with pytest.raises(error, match=message):
        rg.RaptorGraph.setup_anndata(broken(screen).copy())


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (lambda X: None, ValueError, "adata.X is empty.*layer"),
        (lambda X: 0.0 * X, ValueError, "no value above zero"),
        (lambda X: X.toarray().astype(object), TypeError, "adata.X holds values of type object.*astype"),
        (lambda X: X.toarray().astype(str), TypeError, "adata.X holds values of type <U.*astype"),
        (lambda X: X.astype(complex), TypeError, "adata.X holds values of type complex128"),
    ],
)
def test_matrices_without_expression(screen, values, error, message):
    adata = screen.copy()
    adata.X = values(screen.X)
    with pytest.raises(error, match=message):
        rg.RaptorGraph.setup_anndata(adata)
    pd.testing.assert_frame_equal(adata.obs, screen.obs)
    assert list(adata.var_names) == list(screen.var_names)


MODEL = [
    *(
        ({name: value}, TypeError, f"{name}=.* is not an integer")
        for name in ("n_latent", "n_hidden", "n_layers", "n_subgraphs")
        for value in (8.0, True, "8")
    ),
    *(({name: 0}, ValueError, f"{name}=0 is too small") for name in ("n_latent", "n_hidden", "n_subgraphs")),
    ({"n_layers": -1}, ValueError, "n_layers=-1 is too small: use 0 or more"),
    ({"n_latent": 2}, ValueError, "n_latent=2 is below the number of perturbed genes, 3"),
    *(({"init_strength": value}, ValueError, "init_strength=.* above 0") for value in (NAN, INF, 0, -1.0)),
    ({"init_strength": "2"}, TypeError, "init_strength='2' is not a number"),
    *(
        ({"effect_posterior": value}, TypeError, "effect_posterior=.* True, False, an EffectPosteriorConfig or a dict")
        for value in (1, "no", None)
    ),
    ({"effect_posterior": {"tempo": 1}}, TypeError, "effect_posterior has no setting 'tempo'.*'noise_fraction'"),
    ({"effect_posterior": {"noise_fraction": NAN}}, ValueError, "noise_fraction=nan"),
    ({"effect_posterior": {"independent": 1}}, TypeError, "independent=1"),
    *(
        ({name: value}, ValueError, f"{name}=.* is unknown; use one of")
        for name in ("pairing", "graph", "graph_init", "latent_norm")
        for value in ("other", None, ["emd"])
    ),
    ({"as_printed": "inputs"}, TypeError, r"as_printed='inputs' must be a list"),
    ({"perturbed_prior": False, "as_printed": ["all"]}, ValueError, "as_printed='all' is unknown; use one of"),
    ({"likelihood": "zinb"}, ValueError, "likelihood='zinb' is unknown; use one of 'nb', 'normal'"),
    *(({name: 1}, TypeError, f"{name}=1 is neither True nor False") for name in ("linear_decoder", "learn_scale")),
]


@pytest.mark.parametrize(("arguments", "error", "message"), MODEL)
def test_constructor_and_preset(registered, arguments, error, message):
    before = registered.copy()
    with pytest.raises(error, match=message):
        rg.RaptorGraph(registered, **arguments)
    with pytest.raises(error, match=message):
        rg.RaptorGraph.from_preset(registered, "paper", **arguments)
    assert_same(registered, before)


def test_data_and_presets_of_another_kind(registered):
    for wrong in ("screen.h5ad", registered.X, 3):
        with pytest.raises(TypeError, match="adata must be an AnnData or a MuData, not"):
            rg.RaptorGraph(wrong)
        with pytest.raises(TypeError, match="adata must be an AnnData or a MuData, not"):
            rg.RaptorGraph.from_preset(wrong)
    for wrong in ("other", None, ["paper"]):
        with pytest.raises(ValueError, match="preset=.* is unknown; use one of 'default', 'paper'"):
            rg.RaptorGraph.from_preset(registered, wrong)


TRAIN = [
    *(({"max_epochs": value}, ValueError, f"max_epochs={value} is too small") for value in (0, -1)),
    *(({"max_epochs": value}, TypeError, "max_epochs=.* is not an integer") for value in (1.5, "10", True, NAN)),
    *(({"batch_size": value}, ValueError, f"batch_size={value} is too small") for value in (0, -5)),
    ({"batch_size": 1.5}, TypeError, "batch_size=1.5 is not an integer"),
    *(({"train_size": value}, ValueError, "train_size=.* is out of range") for value in (0, -0.1, 1.5, NAN)),
    *(({"validation_size": value}, ValueError, "validation_size=.* is out of range") for value in (-0.1, 1.5, NAN)),
    ({"train_size": 0.9, "validation_size": 0.3}, ValueError, "train_size=0.9 and validation_size=0.3 exceed 1"),
    ({"shuffle_set_split": "no"}, TypeError, "shuffle_set_split='no' is neither"),
    ({"accelerator": "abacus"}, ValueError, "accelerator='abacus'"),
    ({"accelerator": "cpu", "devices": 0}, ValueError, "devices=0"),
    ({"accelerator": "cpu", "devices": "x"}, TypeError, "devices='x'"),
    ({"early_stopping": "yes"}, TypeError, "early_stopping='yes' is neither"),
    ({"early_stopping": True, "early_stopping_patience": -1}, ValueError, "early_stopping_patience=-1"),
    ({"early_stopping": True, "early_stopping_min_delta": NAN}, ValueError, "early_stopping_min_delta=nan"),
    ({"early_stopping": True, "early_stopping_mode": "low"}, ValueError, "got low"),
    ({"early_stopping": True, "early_stopping_monitor": "mmd_validation"}, ValueError, "monitor='mmd_validation'"),
    ({"gradient_clip_val": -1.0}, ValueError, "gradient_clip_val=-1.0"),
    ({"check_val_every_n_epoch": 0}, ValueError, "check_val_every_n_epoch=0"),
    ({"n_epochs": 5}, TypeError, "n_epochs"),
    ({"plan_kwargs": "lr"}, TypeError, "plan_kwargs='lr' must be a dict"),
    ({"datasplitter_kwargs": {"pairing": "other"}}, ValueError, "pairing='other' is unknown"),
    ({"datasplitter_kwargs": {"shares": 1}}, TypeError, "shares"),
    ({"datasplitter_kwargs": {"n_comps": 0}}, ValueError, "n_comps=0 is too small: use 1 or more, or None for all"),
    ({"datasplitter_kwargs": {"max_controls": 2.5}}, TypeError, "max_controls=2.5 is not an integer"),
    ({"datasplitter_kwargs": {"one_condition": 1}}, TypeError, "one_condition=1 is neither True nor False"),
    ({"plan_kwargs": {"mu_path": "square"}}, ValueError, "mu_path='square' is unknown"),
    *(
        ({"datasplitter_kwargs": {"external_indexing": value}}, ValueError, "external_indexing")
        for value in ("all", [[0.5]], [[80]], [[-1]], [[1, 2], [2]])
    ),
    *(
        ({"plan_kwargs": {name: value}}, ValueError, f"{name}={value} is out of range")
        for name, values in {
            "lr": (0, -1, NAN, INF), "weight_decay": (-1, NAN), "eps": (0,), "kl_weight": (-1, NAN), "kl_warmup": (2,),
            "mu": (0,), "mu_final": (0,), "project_at": (NAN, 1.5), "dag_threshold": (-1,), "free_bits": (-1,),
            "shift_weight": (NAN,), "mmd_weight": (-1,), "pair_weight": (INF,), "lambda1": (-1,),
        }.items()
        for value in values
    ),
    ({"plan_kwargs": {"lr": "fast"}}, TypeError, "lr='fast' is not a number"),
    ({"plan_kwargs": {"kl_per_gene": "no"}}, TypeError, "kl_per_gene='no' is neither"),
    ({"plan_kwargs": {"optimizer": "SGD"}}, ValueError, "optimizer='SGD' is unknown; use one of 'AdamW', 'Adam'"),
    ({"plan_kwargs": {"lr_schedule": "step"}}, ValueError, "lr_schedule='step' is unknown"),
    ({"plan_kwargs": {"tensors": 1}}, TypeError, r"plan_kwargs \['tensors'\] are unknown"),
    ({"plan_kwargs": {"module": 1}}, TypeError, "plan_kwargs has 'module', which train has already"),
    ({"datasplitter_kwargs": {"train_size": 0.5}}, TypeError, "datasplitter_kwargs has 'train_size'.* to train"),
    ({"validation_size": 0.3}, ValueError, "train_size=0.9 and validation_size=0.3 exceed 1: lower one"),
    *(({"devices": value}, NotImplementedError, "devices=.* are several.*devices=1") for value in (2, np.int64(2))),
    ({"accelerator": "tpu"}, ValueError, "The trainer refuses its arguments: .*accelerator='tpu'"),
    ({"enable_progress_bar": "no"}, TypeError, "enable_progress_bar='no' is neither True nor False"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), TRAIN)
def test_training(model, monkeypatch, arguments, error, message):
    def work(*args, **kwargs):
        raise AssertionError("the long work began")

    for name in ("setup", "known_effects", "known_log_ratios"):
        monkeypatch.setattr(f"raptorgraph.model._splitter.ScreenSplitter.{name}", work)
    before, state = model.adata.copy(), {k: v.clone() for k, v in model.module.state_dict().items() if v is not None
                                         and isinstance(v, torch.Tensor)}  # fmt: skip
    with pytest.raises(error, match=message):
        model.train(**{"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, **arguments})
    assert_same(model.adata, before)
    assert not model.is_trained
    after = model.module.state_dict()
    assert all(torch.equal(after[name].nan_to_num(), value.nan_to_num()) for name, value in state.items())


@pytest.mark.parametrize("make", [np.array, pd.Index, pd.Series, tuple])
def test_names_come_in_any_list(screen, make):
    adata = screen.copy()
    rg.RaptorGraph.setup_anndata(
        adata,
        control=make(["control", "none"]),
        continuous_covariate_keys=make(["depth"]),
        categorical_covariate_keys=make(["phase"]),
    )
    args = rg.RaptorGraph(adata).setup_args
    expected = {"control": ["control", "none"], "continuous_covariate_keys": ["depth"]}
    assert {name: args[name] for name in expected} == expected
    assert all(type(args[name]) is list for name in (*expected, "categorical_covariate_keys"))


def test_control_labels_of_a_set_have_one_order(screen):
    adata = screen.copy()
    rg.RaptorGraph.setup_anndata(adata, control={"none", "control", "empty"})
    assert rg.RaptorGraph(adata).setup_args["control"] == ["control", "empty", "none"]


def test_numbers_of_numpy_are_taken_as_python_has_them(registered):
    scvi.settings.seed = 0
    model = rg.RaptorGraph(
        registered,
        n_latent=np.int64(8),
        n_hidden=np.uint8(4),
        n_layers=np.int32(1),
        n_subgraphs=np.int16(2),
        init_strength=np.float32(2),
        linear_decoder=np.False_,
        learn_scale=np.False_,
        effect_posterior=np.False_,
    )
    assert model.module.effects is None
    assert not model.module.distribution.log_scale.requires_grad
    assert len(model.latent_names) == 8
    model.train(
        max_epochs=np.int64(2),
        accelerator="cpu",
        devices=np.int64(1),
        batch_size=np.int32(32),
        train_size=np.float32(0.8),
        validation_size=np.float32(0.2),
        shuffle_set_split=np.True_,
        early_stopping=np.True_,
        early_stopping_patience=np.int64(3),
        check_val_every_n_epoch=np.int64(1),
        gradient_clip_val=np.float32(1.0),
        enable_progress_bar=np.False_,
        plan_kwargs={"lr": np.float32(1e-3), "kl_per_gene": np.True_},
    )
    assert len(model.history["validation_loss"]) == 2


def test_one_gene_is_enough():
    scvi.settings.seed = 0
    adata = rg.datasets.simulate(
        1, 1, n_doubles=0, n_control_cells=60, n_cells_per_perturbation=30, n_truth_cells=20, library_size=1e5, seed=3
    )
    adata.obs["total_counts"] = adata.X.toarray().ravel() * 2 + 1e5
    with pytest.raises(ValueError, match="adata has one gene, .* library_size_key"):
        rg.RaptorGraph.setup_anndata(adata)
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraph(adata, n_hidden=8)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    expression = np.log1p(1e4 * adata.X.toarray().ravel() / adata.obs["total_counts"].to_numpy())
    control = (adata.obs["perturbation"] == "control").to_numpy()
    measured = expression[~control].mean() - expression[control].mean()
    assert model.measured_effects().loc["P01"].item() == pytest.approx(measured, rel=1e-5)
    effect, sd = model.predict_effects("P01", return_sd=True)
    assert abs(effect.iloc[0, 0] - measured) < 3 * sd.iloc[0, 0] < 1.5
