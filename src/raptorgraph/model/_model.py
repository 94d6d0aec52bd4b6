"""The model that a user meets, in the order of its use; the work is done by the objects that it holds."""

from __future__ import annotations

import logging
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

import numpy as np

from raptorgraph._arguments import check_choice
from raptorgraph.model import _diagnose, _expected, _export, _mean_effects, _responding, _training
from raptorgraph.model._arguments import expression_cells
from raptorgraph.model._calibration import Calibration
from raptorgraph.model._config import ModuleConfig, data_sizes
from raptorgraph.model._field import KEYS
from raptorgraph.model._gene_embedding import GeneEmbedding
from raptorgraph.model._graph import EdgeTable
from raptorgraph.model._initial import initialize
from raptorgraph.model._latents import Latents
from raptorgraph.model._mudata import REGISTRY_KEY
from raptorgraph.model._predictor import Predictor
from raptorgraph.model._presets import get_preset
from raptorgraph.model._registration import RegisteredModel
from raptorgraph.model._setup import EMBEDDING_KEY
from raptorgraph.model._status import check_answers
from raptorgraph.pp._pairing import METHODS
from raptorgraph.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from raptorgraph.inference import EffectPosteriorConfig
    from raptorgraph.model._types import Data


logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def _answered_by(held: str, method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Method of the model that is one of an object which it holds, with the same arguments and docstring.

    It says so where the training of the model stopped early, and answers nothing where weights are not finite.
    """

    @wraps(method)
    def answer(model: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        check_answers(model)
        return method(getattr(model, held), *args, **kwargs)

    return answer


class RaptorGraphModel(RegisteredModel):
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
        How control and perturbed cells are paired in training, where a term of the loss reads pairs: see
        :func:`raptorgraph.pp.pair_cells`. The default reads none.
    linear_decoder
        Add a linear path to the decoder, on which effects add up.
    perturbed_prior
        A perturbation acts on the prior of the latents, which are inferred in all cells: the shift of a latent may
        depend on the state of the cell, and cells may have escaped (:class:`raptorgraph.nn.PerturbedPrior`). False for
        the published losses, in which the encoder reads control cells in training, and the shift is a constant.
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
        Shift of a perturbed latent, in standard deviations among control cells; the smaller it is, the more do control
        cells vary along the effects. By default the likelihood of a linear model of the cells chooses among 2, 3, 4 and
        6; without `perturbed_prior` it is where training starts, by default 2.5.
    effect_posterior
        Predict mean effects by the hierarchical posterior :class:`raptorgraph.inference.EffectPosterior`, to which the
        decoded cells are shifted, in seconds for a hundred conditions; False predicts by the decoder alone, an
        :class:`~raptorgraph.inference.EffectPosteriorConfig` or a dict of its settings changes it.
    as_printed
        Details that are left as the paper prints them, for ``perturbed_prior=False`` alone; a list of ``"inputs"`` (the
        encoder reads expression as it is, not in units of control cells), ``"start"`` (the decoder starts from random
        weights, not at the mean of control cells), ``"residual"`` (no path around the interaction block),
        ``"variance"`` (no bounds of the posterior's variance), ``"diagonal"`` (latents may act on themselves) and
        ``"acyclicity"`` (clamped at 0, with a pseudo-inverse, and no step undone). The preset ``"paper-literal"`` has
        all of them.

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

    # -- construction ----------------------------------------------------------------------------------------------
    def __init__(
        self, adata: Data | None = None, registry: dict[str, Any] | None = None, n_latent: int | None = None,
        n_subgraphs: int = 3, n_hidden: int = 128, n_layers: int = 1, likelihood: str | None = None,
        pairing: str = "emd", linear_decoder: bool = True, perturbed_prior: bool = True,
        graph: str = "interventional", graph_init: str = "zero", latent_norm: str = "none", learn_scale: bool = True,
        init_strength: float | None = None, effect_posterior: bool | Mapping[str, Any] | EffectPosteriorConfig = True,
        as_printed: Sequence[str] = (),
    ) -> None:  # fmt: skip
        given = locals()
        adata = None if adata is None else expression_cells(adata)
        super().__init__(adata, registry)
        self.pairing_ = check_choice("pairing", pairing, METHODS)
        self.mudata_args_ = self.registry_.get(REGISTRY_KEY)
        self.gene_embedding_ = self.registry_.get(EMBEDDING_KEY)
        self.preset_ = "default"
        self.stopped_ = None
        self.control_digests_: list[str] = []
        self._train_seconds: dict[str, float] = {}  # of the parts of the last training
        self.perturbed_genes_ = list(self.get_state_registry(KEYS.PERTURBATION)["perturbed_genes"])
        settings = {name: given[name] for name in ModuleConfig.settings()}
        config = ModuleConfig(**data_sizes(self.registry_["field_registries"], self.summary_stats), **settings)
        if likelihood is None:
            kind = "counts" if config.counts else "log-normalized values"
            logger.info("The data are %s: likelihood=%r.", kind, config.likelihood)
        self.module = self._module_cls(config)
        if adata is not None:
            self.var_names_ = [str(name) for name in self.adata_manager.var_names]
            initialize(self.module, self.adata_manager)
        self._model_summary_string = f"RaptorGraphModel: {config}."
        self.init_params_ = self._get_init_params(locals() | vars(config))

    @classmethod
    def from_preset(cls, adata: Data, preset: str = "paper", **model_kwargs: Any) -> Self:
        """Build a model in a named configuration, for its construction and its training.

        Parameters
        ----------
        adata
            Registered data.
        preset
            ``"default"``; ``"paper"``, the published configuration; or ``"paper-literal"``, the same without what
            ``"paper"`` mends of it, the collapse of its latents included.
        **model_kwargs
            Arguments of the class that take precedence.

        Raises
        ------
        TypeError
            For data that are neither an AnnData nor a MuData.
        ValueError
            For an unknown preset, and data that were not registered.

        Examples
        --------
        >>> rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
        >>> model = rg.RaptorGraphModel.from_preset(adata, "paper", n_hidden=32)
        >>> len(model.latent_names) - len(model.perturbed_genes)
        4
        """
        adata = expression_cells(adata)
        arguments = dict(get_preset(preset)["model"])
        if preset != "default":
            # 109 latents for 105 perturbed genes (Table S4).
            manager = cls._get_most_recent_anndata_manager(adata, required=True)
            arguments["n_latent"] = manager.summary_stats.n_perturbed + 4
        model = cls(adata, **{**arguments, **model_kwargs})
        model.preset_ = preset
        return model

    # -- training --------------------------------------------------------------------------------------------------
    train = _training.train

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
        setup = self.cells.setup
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
        effects: pd.DataFrame = Screen(self.cells.data(), self.setup_args).effects
        return effects if list(effects) == self.var_names_ else effects[self.var_names_]

    @property
    def latents(self) -> Latents:
        """Latents of cells."""
        return Latents(self.cells, self.perturbed_genes_, self.latent_names)

    get_latent_representation = _answered_by("latents", Latents.get_latent_representation)
    latent_activity = _answered_by("latents", Latents.latent_activity)

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
        """Predictions of cells and effects of perturbations."""
        embedding = GeneEmbedding.from_dict(self.gene_embedding_)
        return Predictor(self.latents, self.calibration, self.control_digests_, self.test_indices_, embedding)

    predict = _answered_by("predictor", Predictor.predict)
    predict_effects = _answered_by("predictor", _mean_effects.predict_effects)
    sample_effects = _answered_by("predictor", Predictor.sample_effects)
    get_counterfactual = _answered_by("predictor", _expected.get_counterfactual)
    get_normalized_expression = _answered_by("predictor", _expected.get_normalized_expression)
    get_response_probability = _answered_by("predictor", _responding.get_response_probability)

    # -- graph -----------------------------------------------------------------------------------------------------
    @property
    def edges(self) -> EdgeTable:
        """What was inferred of the graph, and tables of it."""
        return EdgeTable(self.module, self.latent_names)

    get_dag = _answered_by("edges", EdgeTable.get_dag)
    get_edges = _answered_by("edges", EdgeTable.get_edges)
    get_modules = _answered_by("edges", EdgeTable.get_modules)

    # -- whether to rely on it ----------------------------------------------------------------------------------------
    diagnose = _diagnose.diagnose

    # -- export ----------------------------------------------------------------------------------------------------
    annotate = _export.annotate
    export_to_cell_eval = _export.export_to_cell_eval


RaptorGraph = RaptorGraphModel
