"""The model that a user meets, in the order of its use; the work is done by the objects that it holds."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from raptorgraph._arguments import check_choice
from raptorgraph._docs import documented_by
from raptorgraph.model import _export, _loading, _presets, _registration, _training
from raptorgraph.model._arguments import expression_cells
from raptorgraph.model._calibration import Calibration
from raptorgraph.model._config import ModuleConfig, data_sizes
from raptorgraph.model._expected import ExpectedExpression
from raptorgraph.model._field import KEYS
from raptorgraph.model._graph import EdgeTable
from raptorgraph.model._inherited import InheritedModel
from raptorgraph.model._initial import initialize
from raptorgraph.model._latents import Latents
from raptorgraph.model._mudata import REGISTRY_KEY
from raptorgraph.model._predictor import Predictor
from raptorgraph.nn._posterior_draws import N_DRAWS
from raptorgraph.pp._pairing import METHODS
from raptorgraph.screen import Screen, Setup

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

    from raptorgraph.inference import EffectPosteriorConfig
    from raptorgraph.model._batches import TransformBatch
    from raptorgraph.model._types import Data, Perturbations

logger = logging.getLogger(__name__)


class RaptorGraphModel(InheritedModel):
    """RAPTORGraph: a causal latent model of a Perturb-seq screen.

    Each perturbed gene has one latent of its own; a perturbation shifts that latent only, an acyclic graph among
    the latents carries the shift on, and a decoder turns latents into expression.

    Parameters
    ----------
    adata
        AnnData registered by :meth:`setup_anndata`, or MuData registered by :meth:`setup_mudata`, of which the model
        works on the modality with the expression (``model.adata``).
    registry
        Registry of a saved model, used by :meth:`load`.
    n_latent
        Number of latents d; by default the perturbed genes and a tenth more, at least four more.
    n_subgraphs
        Parallel gene-to-latent maps in the encoder (Eq. S21).
    n_hidden, n_layers
        Width and number of the decoder's hidden layers.
    likelihood
        ``"nb"`` (counts), ``"normal"`` (expression scale, to which counts are brought), or None: what fits the data.
    pairing
        How control and perturbed cells are paired in training: see :func:`raptorgraph.pp.pair_cells`.
    linear_decoder
        Add a linear path to the decoder, on which effects add up.
    graph
        ``"interventional"``: inferred from the effects of single perturbations before the network is trained on it
        (:func:`raptorgraph.inference.infer_graph`). ``"dagma"``: learned with the network, by DAGMA's score on its
        latents, as published. ``"fixed"``: left as it is in ``module.graph``, which has no edge at first.
    graph_init
        Start of a graph that is learned: ``"zero"`` or ``"uniform"`` (as published).
    latent_norm
        ``"none"`` or ``"layer"`` (as published; rescales all latents when one is shifted).
    learn_scale
        Learn the spread of each gene; False with ``"normal"`` is the squared error.
    init_strength
        Shift of a perturbed latent at the start, in standard deviations among control cells. Near 1 the decoder
        reads an effect from a latent's natural variation, which then shows up as noise in control cells.
    effect_posterior
        Predict mean effects by the hierarchical posterior :class:`raptorgraph.inference.EffectPosterior`, to which the
        decoded cells are shifted, in seconds for a hundred conditions; False predicts by the decoder alone, an
        :class:`~raptorgraph.inference.EffectPosteriorConfig` or a dict of its settings changes it.

    Raises
    ------
    TypeError
        For data and arguments of a wrong type.
    ValueError
        For data that were not registered, fewer latents than perturbed genes, and arguments out of their range.

    Examples
    --------
    >>> rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    >>> model = rg.RaptorGraphModel(adata, n_hidden=32)
    >>> model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    >>> model.predict_effects(["P01", "P01+P02"]).shape
    (2, 100)
    """

    # -- setup and construction ------------------------------------------------------------------------------------
    @classmethod
    @documented_by(_registration.setup_anndata)
    def setup_anndata(
        cls, adata: AnnData, perturbation_key: str = "perturbation", *, control: str | list[str] = "control",
        delimiter: str = "+", layer: str | None = None, library_size_key: str | None = None,
        batch_key: str | None = None, categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Register a screen; puts the perturbed genes first in ``adata.var``, in place."""
        _registration.setup_anndata(
            cls, adata, perturbation_key, control=control, delimiter=delimiter, layer=layer,
            library_size_key=library_size_key, batch_key=batch_key,
            categorical_covariate_keys=categorical_covariate_keys,
            continuous_covariate_keys=continuous_covariate_keys, **kwargs,
        )  # fmt: skip

    @classmethod
    @documented_by(_registration.setup_mudata)
    def setup_mudata(
        cls, mdata: MuData, perturbation_key: str = "perturbation", *, modalities: Mapping[str, str],
        guide_targets: str | Mapping[str, str] | pd.Series = "target", no_guide: str | None = None,
        too_many: str | None = None, guide_kwargs: dict[str, Any] | None = None, control: str | list[str] = "control",
        delimiter: str = "+", layer: str | None = None, library_size_key: str | None = None,
        batch_key: str | None = None, categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
    ) -> None:  # fmt: skip
        """Register a screen with expression in one modality and guides in another."""
        _registration.setup_mudata(**locals())

    def __init__(
        self, adata: Data | None = None, registry: dict[str, Any] | None = None, n_latent: int | None = None,
        n_subgraphs: int = 3, n_hidden: int = 128, n_layers: int = 1, likelihood: str | None = None,
        pairing: str = "emd", linear_decoder: bool = True, graph: str = "interventional", graph_init: str = "zero",
        latent_norm: str = "none", learn_scale: bool = True, init_strength: float = 2.5,
        effect_posterior: bool | Mapping[str, Any] | EffectPosteriorConfig = True,
    ) -> None:  # fmt: skip
        adata = None if adata is None else expression_cells(adata)
        super().__init__(adata, registry)
        self.pairing_ = check_choice("pairing", pairing, METHODS)
        self.mudata_args_ = self.registry_.get(REGISTRY_KEY)
        self.preset_ = "default"
        self.control_digests_: list[str] = []
        self.perturbed_genes_ = list(self.get_state_registry(KEYS.PERTURBATION)["perturbed_genes"])
        config = ModuleConfig(
            **data_sizes(self.registry_["field_registries"], self.summary_stats, n_latent, likelihood),
            n_subgraphs=n_subgraphs, n_hidden=n_hidden, n_layers=n_layers, linear_decoder=linear_decoder, graph=graph,
            graph_init=graph_init, latent_norm=latent_norm, learn_scale=learn_scale, init_strength=init_strength,
            effect_posterior=effect_posterior,
        )  # fmt: skip
        if likelihood is None:
            kind = "counts" if config.counts else "log-normalized values"
            logger.info("The data are %s: likelihood=%r.", kind, config.likelihood)
        self.module = self._module_cls(config)
        if adata is not None:
            self.var_names_ = [str(name) for name in adata.var_names]
            initialize(self.module, self.adata_manager)
        self._model_summary_string = f"RaptorGraphModel: {config}."
        self.init_params_ = self._get_init_params(locals() | vars(config))

    @classmethod
    @documented_by(_presets.from_preset)
    def from_preset(cls, adata: Data, preset: str = "paper", **model_kwargs: Any) -> Self:
        """Build a model in a named configuration, for its construction and its training."""
        return _presets.from_preset(cls, adata, preset, **model_kwargs)

    # -- training --------------------------------------------------------------------------------------------------
    @documented_by(_training.train)
    def train(
        self, max_epochs: int | None = None, accelerator: str = "auto", devices: int | list[int] | str = "auto",
        train_size: float | None = None, validation_size: float | None = None, shuffle_set_split: bool = True,
        batch_size: int | None = None, early_stopping: bool = False,
        datasplitter_kwargs: dict[str, Any] | None = None, plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:  # fmt: skip
        """Train the model."""
        _training.train(
            self, max_epochs, accelerator, devices, train_size, validation_size, shuffle_set_split, batch_size,
            early_stopping, datasplitter_kwargs, plan_kwargs, **trainer_kwargs,
        )  # fmt: skip

    # -- what it knows ---------------------------------------------------------------------------------------------
    @property
    def perturbed_genes(self) -> list[str]:
        """Perturbed genes; latent i belongs to gene i.

        Examples
        --------
        >>> model.perturbed_genes
        ['P01', 'P02', 'P03', 'P04', 'P05', 'P06']
        """
        return list(self.perturbed_genes_)

    @property
    def target_columns(self) -> np.ndarray:
        """Column of each perturbed gene among the genes, shape (perturbed genes,); -1 where it has none.

        Examples
        --------
        >>> model.target_columns.tolist()
        [0, 1, 2, 3, 4, 5]
        """
        columns = np.arange(len(self.perturbed_genes_))  # the perturbed genes come first
        return np.where(columns < self.module.encoder.preconditioned.n_targets, columns, -1)

    @property
    def latent_names(self) -> list[str]:
        """Gene of each latent, ``latent_<i>`` for those without one.

        Examples
        --------
        >>> model.latent_names[5:8]
        ['P06', 'latent_6', 'latent_7']
        """
        others = range(len(self.perturbed_genes_), self.module.config.n_latent)
        return [*self.perturbed_genes_, *(f"latent_{i}" for i in others)]

    @property
    def conditions(self) -> list[str]:
        """Canonical labels of the perturbations in the training data, without control.

        Examples
        --------
        >>> len(model.conditions), model.conditions[0]
        (10, 'P01')
        """
        setup = Setup.of(self.setup_args)
        return [setup.label(genes) for genes in self.get_state_registry(KEYS.PERTURBATION)["conditions"] if genes]

    @property
    def screen(self) -> Screen:
        """The model's own cells, their labels and what was measured on them.

        Conditions are numbered in the order of their first cells, 0 being the control.

        Raises
        ------
        AttributeError
            In a model that was loaded without data.

        Examples
        --------
        >>> model.screen.design.shape
        (11, 6)
        """
        if self.adata is None:  # no ValueError: scvi-tools reads all properties of a model that it saves
            raise AttributeError("The model was loaded without data: load(folder, adata) gives it a screen.")
        return self.adata_manager.screen

    def measured_effects(self) -> pd.DataFrame:
        """Measured effects, conditions x genes: :func:`raptorgraph.pp.measured_effects` of the model's own cells.

        Examples
        --------
        >>> model.measured_effects().shape
        (10, 100)
        """
        return Screen(self.cells.data(), self.setup_args).effects

    @property
    def latents(self) -> Latents:
        """Latents of cells."""
        return Latents(self.module, self.cells, self.perturbed_genes_, self.latent_names)

    @documented_by(Latents.get_latent_representation)
    def get_latent_representation(
        self, adata: Data | None = None, kind: str = "causal", batch_size: int = 1024
    ) -> np.ndarray:
        """Posterior means of the latents."""
        return self.latents.get_latent_representation(adata, kind, batch_size)

    @documented_by(Latents.latent_activity)
    def latent_activity(self) -> pd.DataFrame:
        """KL of each latent to its prior, in nats, as a mean over control cells."""
        return self.latents.latent_activity()

    # -- predictions -----------------------------------------------------------------------------------------------
    @property
    def calibration(self) -> Calibration:
        """Posterior of the effects, to which decoded cells are brought."""
        return Calibration(self.module)

    @property
    def has_posterior(self) -> bool:
        """Whether there is a posterior of the effects, which gives their standard deviations and draws.

        Examples
        --------
        >>> model.has_posterior
        True
        """
        return self.calibration.is_fitted

    @property
    def predictor(self) -> Predictor:
        """What it predicts of perturbations."""
        return Predictor(self.latents, self.calibration, Setup.of(self.setup_args), self.control_digests_)

    @documented_by(Predictor.predict)
    def predict(
        self, perturbations: Perturbations, adata: Data | None = None, n_cells: int | None = None,
        seed: int | None = None, *, noise: str = "own", transform_batch: TransformBatch = None,
    ) -> AnnData:  # fmt: skip
        """Predict cells of each perturbation, with the spread of real ones."""
        return self.predictor.predict(perturbations, adata, n_cells, seed, noise=noise, transform_batch=transform_batch)

    @documented_by(Predictor.predict_effects)
    def predict_effects(
        self, perturbations: Perturbations, adata: Data | None = None, *, n_cells: int = 256,
        return_sd: bool = False, kind: str | None = None, transform_batch: TransformBatch = None,
    ) -> pd.DataFrame | tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
        """Mean effects on the expression scale, predicted perturbed minus predicted control."""
        return self.predictor.predict_effects(
            perturbations, adata, n_cells=n_cells, return_sd=return_sd, kind=kind, transform_batch=transform_batch
        )

    @documented_by(Predictor.sample_effects)
    def sample_effects(self, perturbations: Perturbations, n_draws: int = 50, seed: int | None = None) -> np.ndarray:
        """Draw the effects of a few perturbations from their joint posterior."""
        return self.predictor.sample_effects(perturbations, n_draws, seed)

    @documented_by(ExpectedExpression.get_counterfactual)
    def get_counterfactual(
        self, perturbation: str | Collection[str], adata: Data | None = None, batch_size: int = 512, *,
        n_samples: int = N_DRAWS, seed: int | None = None, transform_batch: TransformBatch = None,
    ) -> np.ndarray:  # fmt: skip
        """Return the expected expression of these very cells, had they been perturbed."""
        return ExpectedExpression(self.predictor).get_counterfactual(
            perturbation, adata, batch_size, n_samples=n_samples, seed=seed, transform_batch=transform_batch
        )

    @documented_by(ExpectedExpression.get_normalized_expression)
    def get_normalized_expression(
        self, adata: Data | None = None, indices: Sequence[int] | np.ndarray | None = None,
        transform_batch: TransformBatch = None, gene_list: Sequence[str] | None = None,
        library_size: float | str = 1.0, n_samples: int = N_DRAWS, batch_size: int = 512, return_mean: bool = True,
        return_numpy: bool = False, *, seed: int | None = None,
    ) -> pd.DataFrame | np.ndarray:  # fmt: skip
        """Decoded expression of cells as they are, without measurement noise, as scvi-tools' models give it."""
        return ExpectedExpression(self.predictor).get_normalized_expression(
            adata, indices, transform_batch, gene_list, library_size, n_samples, batch_size, return_mean,
            return_numpy, seed=seed,
        )  # fmt: skip

    # -- graph -----------------------------------------------------------------------------------------------------
    @property
    def edges(self) -> EdgeTable:
        """Its graph: what was inferred of it, and its tables."""
        return EdgeTable(self.module, self.latent_names, len(self.perturbed_genes_))

    @documented_by(EdgeTable.get_dag)
    def get_dag(
        self, threshold: float | None = None, *, min_probability: float | None = None,
        min_frequency: float | None = None,
    ) -> pd.DataFrame:  # fmt: skip
        """Adjacency of the latents, acyclic."""
        return self.edges.get_dag(threshold, min_probability=min_probability, min_frequency=min_frequency)

    @documented_by(EdgeTable.get_edges)
    def get_edges(self) -> pd.DataFrame:
        """Edges of the graph, the most important first."""
        return self.edges.get_edges()

    # -- saving and export -----------------------------------------------------------------------------------------
    @documented_by(_export.annotate)
    def annotate(
        self, adata: Data | None = None, counterfactuals: Perturbations = (), *, transform_batch: TransformBatch = None
    ) -> None:
        """Write latents, graph, effects and counterfactuals into an AnnData, in place."""
        _export.annotate(self, adata, counterfactuals, transform_batch=transform_batch)

    @documented_by(_export.export_to_cell_eval)
    def export_to_cell_eval(
        self, directory: str | Path | None = None, perturbations: Perturbations | None = None,
        adata: Data | None = None, *, n_cells: int | None = None, seed: int | None = None, overwrite: bool = False,
        transform_batch: TransformBatch = None,
    ) -> tuple[AnnData, AnnData]:  # fmt: skip
        """Predict cells and put them beside the real ones, as cell-eval takes them."""
        return _export.export_to_cell_eval(
            self, directory, perturbations, adata, n_cells=n_cells, seed=seed, overwrite=overwrite,
            transform_batch=transform_batch,
        )  # fmt: skip

    @documented_by(_loading.save)
    def save(
        self, dir_path: str | Path, prefix: str | None = None, overwrite: bool = False, save_anndata: bool = False,
        *args: Any, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Save the model."""
        _loading.save(self, super().save, dir_path, prefix, overwrite, save_anndata, *args, **kwargs)

    @classmethod
    @documented_by(_loading.load)
    def load(cls, dir_path: str | Path, adata: Data | bool | None = None, *args: Any, **kwargs: Any) -> Self:
        """Load a saved model, on this or another machine."""
        return _loading.load(super().load, dir_path, adata, *args, **kwargs)  # type: ignore[no-any-return]


RaptorGraph = RaptorGraphModel
