"""Everything that is compared, under one interface: this package's model beside the baselines."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scvi

from raptorgraph.baselines._base import Baseline
from raptorgraph.baselines._dvae import DiscrepancyVAE
from raptorgraph.baselines._ladder import ladder
from raptorgraph.baselines._sena import SENA
from raptorgraph.model import RaptorGraphModel
from raptorgraph.model._expected import mean_control_profiles
from raptorgraph.screen._label_hints import SetupWarning
from raptorgraph.screen._names import gene_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    import anndata as ad

OURS = ("raptorgraph", "raptorgraph network", "raptorgraph paper")
MODELS = (*OURS, "dVAE", "SENA")
LITERAL = "raptorgraph paper-literal"
ON_REQUEST = (LITERAL,)  # of the models, those that are compared where they are named


class RaptorGraphMethod(Baseline):
    """:class:`raptorgraph.RaptorGraphModel` as one of the methods that are compared.

    Parameters
    ----------
    preset
        ``"default"``, ``"paper"`` or ``"paper-literal"``.
    seed
        Seed of the training.
    max_epochs
        Number of epochs; default that of the preset.
    model_kwargs, plan_kwargs
        Arguments of the model and of its training plan that take precedence over the preset.
    train_kwargs
        Further arguments of :meth:`raptorgraph.RaptorGraphModel.train`.
    noise
        Noise of the predicted cells: see :meth:`raptorgraph.RaptorGraphModel.predict`.
    **setup
        Arguments of ``setup_anndata``.

    Examples
    --------
    >>> method = rg.evaluation.RaptorGraphMethod(max_epochs=1, library_size_key="total_counts").fit(adata)
    >>> method.predict_effects(["P01", "P01+P02"]).shape
    (2, 100)
    """

    def __init__(
        self,
        preset: str = "default",
        *,
        seed: int = 0,
        max_epochs: int | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        plan_kwargs: Mapping[str, Any] | None = None,
        train_kwargs: Mapping[str, Any] | None = None,
        noise: str = "own",
        **setup: Any,
    ):
        super().__init__(**setup)
        self.preset, self.seed, self.max_epochs, self.noise = preset, seed, max_epochs, noise
        self.model_kwargs, self.plan_kwargs = dict(model_kwargs or {}), dict(plan_kwargs or {})
        self.train_kwargs = dict(train_kwargs or {})

    def fit(self, adata: ad.AnnData) -> Self:
        """Train the model on a copy of the cells."""
        self._register(self._screen(adata))
        self.var_names = gene_names(adata)
        adata = adata.copy()
        scvi.settings.seed = self.seed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SetupWarning)  # the screen was warned of as a whole
            RaptorGraphModel.setup_anndata(adata, **self.setup_args)
        if self.preset == "default":
            self.model = RaptorGraphModel(adata, **self.model_kwargs)
        else:
            self.model = RaptorGraphModel.from_preset(adata, self.preset, **self.model_kwargs)
        self.prepare(self.model)
        self.model.train(
            max_epochs=self.max_epochs,
            plan_kwargs=self.plan_kwargs,
            **{"enable_progress_bar": False, "enable_checkpointing": False, **self.train_kwargs},
        )
        history = self.model.history
        terms = {
            name.removesuffix("_train"): frame.iloc[:, 0] for name, frame in history.items() if name.endswith("_train")
        }
        self.history_ = pd.DataFrame(terms).astype(float)
        return self

    def prepare(self, model: RaptorGraphModel) -> None:
        """Called between construction and training, for subclasses that change the model there."""

    def predict_effects(self, perturbations: str | Sequence[str]) -> pd.DataFrame:
        """See :meth:`raptorgraph.RaptorGraphModel.predict_effects`."""
        labels, _ = self._asked(perturbations)
        return self.model.predict_effects(labels)[self.var_names].astype(np.float64)

    def predict(self, perturbations: str | Sequence[str], n_cells: int | None = None, seed: int = 0) -> ad.AnnData:
        """See :meth:`raptorgraph.RaptorGraphModel.predict`."""
        labels, _ = self._asked(perturbations)
        return self.model.predict(labels, n_cells=n_cells, seed=seed, noise=self.noise)[:, self.var_names].copy()

    def predict_profiles(self, perturbations: str | Sequence[str]) -> pd.DataFrame:
        """Counterfactual of the mean control cell; see :meth:`raptorgraph.baselines.Baseline.predict_profiles`."""
        labels, _ = self._asked(perturbations)
        profiles = mean_control_profiles(self.model.predictor, labels, self.seed)
        return profiles[self.var_names].astype(np.float64)

    def predict_control(self) -> np.ndarray:
        """Mean of one cell for each control cell, drawn from the likelihood: what the model has learned of controls."""
        cells = self.model.predict(self._label(()), noise="new")[:, self.var_names]
        return np.asarray(cells.X.mean(axis=0), dtype=np.float64).ravel()

    def reconstruct(self, adata: ad.AnnData) -> np.ndarray:
        """Expected expression of the given cells as they are, cells x genes."""
        values = pd.DataFrame(self.model.get_counterfactual(self._label(()), adata), columns=self.model.var_names_)
        return np.asarray(values[self.var_names])


class NetworkAlone(RaptorGraphMethod):
    """The network of a default model without the posterior that it was trained under: its own effects and cells."""

    def fit(self, adata: ad.AnnData) -> Self:
        """Train the model, and take the posterior away."""
        super().fit(adata)
        self.model.module.effects = None
        return self


def ordered(methods: Iterable[str]) -> list[str]:
    """The names, each once: baselines from the simplest up, models, then all others as they come."""
    found = list(dict.fromkeys(methods))
    known = [name for name in [*ladder(), *OURS, *ON_REQUEST, *MODELS[len(OURS) :]] if name in found]
    return known + [name for name in found if name not in known]


def make_method(
    name: str,
    setup: Mapping[str, Any],
    *,
    seed: int = 0,
    max_epochs: int | None = None,
    gene_sets: str | Path | None = None,
) -> Baseline:
    """Unfitted method of that name.

    Parameters
    ----------
    name
        ``"raptorgraph"``; ``"raptorgraph network"``, the same with the effects and cells of its network alone;
        ``"raptorgraph paper"``, the published configuration; ``"raptorgraph paper-literal"``, the same as printed;
        ``"dVAE"``; ``"SENA"``; or a name of :func:`raptorgraph.baselines.ladder`.
    setup
        Arguments of ``setup_anndata``.
    seed, max_epochs
        Seed and number of epochs of the methods that are trained; default their own number.
    gene_sets
        GMT file, which SENA needs.

    Raises
    ------
    ValueError
        If there is no such method, or SENA has no gene sets.

    Examples
    --------
    >>> method = rg.evaluation.make_method("additive", {"library_size_key": "total_counts"}).fit(adata)
    >>> method.predict_effects("P01+P02").shape
    (1, 100)
    """
    trained: dict[str, Any] = {"seed": seed, **({} if max_epochs is None else {"max_epochs": max_epochs}), **setup}
    makers: dict[str, Callable[[], Baseline]] = {
        "raptorgraph": lambda: RaptorGraphMethod(**trained),
        "raptorgraph network": lambda: NetworkAlone(**trained),
        "raptorgraph paper": lambda: RaptorGraphMethod("paper", **trained),
        LITERAL: lambda: RaptorGraphMethod("paper-literal", **trained),
        "dVAE": lambda: DiscrepancyVAE(**trained),
    }
    if name == "SENA":
        if gene_sets is None:
            raise ValueError("SENA needs gene sets: give a GMT file as gene_sets.")
        return SENA(gene_sets, **trained)
    if name in makers:
        return makers[name]()
    if name not in ladder():
        raise ValueError(f"There is no method {name!r}; there are {', '.join([*ladder(), *MODELS, *ON_REQUEST])}.")
    return ladder()[name](**setup)


def gene_graph(method: Baseline, *, every: bool = False) -> pd.DataFrame:
    """Weights among the perturbed genes, row = cause, 0 on the diagonal; `every` one, also of edges not called."""
    genes = method.perturbed_genes
    if isinstance(method, RaptorGraphMethod):
        inferred = method.model.module.config.graph == "interventional"
        graph = (
            method.model.get_dag(min_probability=0.0 if every and inferred else None)
            .loc[genes, genes]
            .to_numpy(copy=True)
        )
    elif isinstance(method, DiscrepancyVAE):
        targets = method.targets_.loc[genes].to_numpy()
        graph = targets @ method.adjacency_.to_numpy() @ targets.T
    else:
        raise TypeError(f"{type(method).__name__} has no graph.")
    np.fill_diagonal(graph, 0.0)
    return pd.DataFrame(graph, index=genes, columns=genes)
