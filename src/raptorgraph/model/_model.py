"""The model that a user meets: setup, construction, what it knows; the rest is in its mixins."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mudata import MuData
from scvi.model.base import BaseModelClass

from raptorgraph.model._arguments import check_data, check_model
from raptorgraph.model._expected import ExpectationMixin
from raptorgraph.model._export import ExportMixin
from raptorgraph.model._field import KEYS
from raptorgraph.model._graph import GraphMixin
from raptorgraph.model._inherited import InheritedMixin
from raptorgraph.model._initial import initialize
from raptorgraph.model._latents import LatentMixin
from raptorgraph.model._loading import LoadingMixin
from raptorgraph.model._mean_effects import EffectsMixin
from raptorgraph.model._module import RaptorGraphModule
from raptorgraph.model._mudata import REGISTRY_KEY, MuDataMixin, expression_of
from raptorgraph.model._predict import PredictionMixin
from raptorgraph.model._presets import get_preset
from raptorgraph.model._setup import plain_names, register
from raptorgraph.model._training import TrainingMixin
from raptorgraph.nn._likelihoods import likelihood_for
from raptorgraph.pp import format_perturbation
from raptorgraph.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

logger = logging.getLogger(__name__)


class RaptorGraphModel(
    TrainingMixin,
    LatentMixin,
    PredictionMixin,
    EffectsMixin,
    ExpectationMixin,
    ExportMixin,
    GraphMixin,
    MuDataMixin,
    LoadingMixin,
    InheritedMixin,
    BaseModelClass,
):
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
        ``"nb"`` (counts), ``"normal"`` (expression scale, with counts normalized on the way), or None: what fits
        the data.
    pairing
        How control and perturbed cells are paired in training: see :func:`raptorgraph.pp.pair_cells`.
    linear_decoder
        Add a linear path to the decoder, on which effects add up.
    graph
        ``"interventional"``: inferred from the effects of single perturbations before the network is trained on it
        (:func:`raptorgraph.inference.infer_graph`). ``"dagma"``: learned with the network, by DAGMA's score on its
        latents, as published. ``"fixed"``: left as it is in ``module.graph``, which has no edge at first.
    graph_init
        Of ``graph="dagma"``: ``"zero"`` or ``"uniform"`` (as published).
    latent_norm
        ``"none"`` or ``"layer"`` (as published; rescales all latents when one is shifted).
    learn_scale
        Learn the spread of each gene; False with ``"normal"`` is the squared error.
    init_strength
        Shift of a perturbed latent at the start, in standard deviations among control cells. Near 1 the decoder
        reads an effect from a latent's natural variation, which then shows up as noise in control cells.
    effect_posterior
        Predict mean effects by the hierarchical posterior :class:`raptorgraph.inference.EffectPosterior`, to which the
        decoded cells are shifted, in seconds for a hundred conditions; False predicts by the decoder alone, a dict
        gives the arguments of that class.

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

    _module_cls = RaptorGraphModule

    def __init__(
        self,
        adata: AnnData | MuData | None = None,
        registry: dict | None = None,
        n_latent: int | None = None,
        n_subgraphs: int = 3,
        n_hidden: int = 128,
        n_layers: int = 1,
        likelihood: str | None = None,
        pairing: str = "emd",
        linear_decoder: bool = True,
        graph: str = "interventional",
        graph_init: str = "zero",
        latent_norm: str = "none",
        learn_scale: bool = True,
        init_strength: float = 2.5,
        effect_posterior: bool | dict[str, Any] = True,
    ) -> None:
        check_model(locals())
        n_subgraphs, n_hidden, n_layers = int(n_subgraphs), int(n_hidden), int(n_layers)
        linear_decoder, learn_scale, init_strength = bool(linear_decoder), bool(learn_scale), float(init_strength)
        if isinstance(effect_posterior, Mapping):
            effect_posterior = {k: v.item() if hasattr(v, "item") else v for k, v in effect_posterior.items()}
        else:
            effect_posterior = bool(effect_posterior)
        if adata is not None:
            check_data(adata)
        adata = expression_of(adata) if isinstance(adata, MuData) else adata
        super().__init__(adata, registry)
        self.mudata_args_ = self.registry_.get(REGISTRY_KEY)
        state = self.registry_["field_registries"]
        perturbation = state[KEYS.PERTURBATION]["state_registry"]
        self.perturbed_genes_ = list(perturbation["perturbed_genes"])
        counts = KEYS.LIBRARY in state
        if likelihood is None:
            likelihood = likelihood_for(None, counts=counts)
            found = "counts" if counts else "log-normalized values"
            logger.info("The data are %s: likelihood=%r.", found, likelihood)
        likelihood_for(likelihood, counts=counts)
        k = len(self.perturbed_genes_)
        n_latent = k + max(4, math.ceil(0.1 * k)) if n_latent is None else int(n_latent)
        if n_latent < k:
            raise ValueError(f"n_latent={n_latent} is below the number of perturbed genes, {k}, which own one each.")
        self.pairing_ = pairing
        self.preset_ = "default"
        self.control_digests_: list[str] = []
        if adata is not None:
            self.var_names_ = [str(name) for name in adata.var_names]
        stats = self.summary_stats
        categorical = state.get(KEYS.CATEGORICAL, {}).get("state_registry", {})
        self.module = self._module_cls(
            n_genes=stats.n_vars if "n_vars" in stats else len(self.var_names_),
            n_perturbed=k,
            n_targets=perturbation["n_targets"],
            n_latent=n_latent,
            n_subgraphs=n_subgraphs,
            n_hidden=n_hidden,
            n_layers=n_layers,
            likelihood=likelihood,
            counts=counts,
            n_batch=stats.get("n_batch", 1),
            n_cats_per_cov=categorical.get("n_cats_per_key", ()),
            n_continuous=stats.get("n_extra_continuous_covs", 0),
            linear_decoder=linear_decoder,
            graph=graph,
            graph_init=graph_init,
            latent_norm=latent_norm,
            learn_scale=learn_scale,
            init_strength=init_strength,
            effect_posterior=effect_posterior,
        )
        if adata is not None:
            initialize(self.module, self.adata_manager)
        self._model_summary_string = (
            f"RaptorGraphModel: {k} perturbed genes ({perturbation['n_targets']} of them among the genes), "
            f"{n_latent} latents, likelihood {likelihood!r}, n_hidden {n_hidden}, n_subgraphs {n_subgraphs}."
        )
        self.init_params_ = self._get_init_params(locals())

    # -- registration --------------------------------------------------------------------------------------------
    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        perturbation_key: str = "perturbation",
        *,
        control: str | list[str] = "control",
        delimiter: str = "+",
        layer: str | None = None,
        library_size_key: str | None = None,
        batch_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        **kwargs,
    ) -> None:
        """Register a screen; puts the perturbed genes first in ``adata.var``, in place.

        Every aligned slot (X, layers, varm, varp) moves along; ``raw`` stays as it is. A second call changes
        nothing. All checks come first: on an error ``adata`` is as it was.

        Parameters
        ----------
        adata
            Cells x genes, counts or log-normalized values, of any type of number, dense or sparse.
        perturbation_key
            Column of ``obs`` with the labels.
        control
            Label or labels of control cells.
        delimiter
            Between the genes of a combination. ``A+B`` and ``B+A`` are the same.
        layer
            Layer with the values; by default ``X``.
        library_size_key
            Column of ``obs`` with the total counts of each cell over all genes, at least the sum of its row, for data
            that hold a part of the genes; by default row sums. Not used for log-normalized values.
        batch_key
            Column of ``obs`` with batches, within which effects are measured; it enters the decoder.
        categorical_covariate_keys
            Columns of ``obs`` with further categories; they enter the decoder.
        continuous_covariate_keys
            Columns of ``obs`` with finite numbers, in any unit; they enter the decoder less their mean over these
            cells and over their standard deviation, and within 10 of these. A query's values are brought to the same
            units, and to the border of the range of these cells where they lie outside.

        Raises
        ------
        ValueError
            For missing labels (text such as ``nan``, ``NA`` or ``None`` is one, unless it is in `control`), an unknown
            control label, fewer than two control cells, views, backed data, names that are not unique, negative,
            non-finite or masked values, values that are neither counts (without rounding errors) nor log values,
            sparse matrices with more room than entries; for library sizes below the row sums in more than half of the
            cells, or below a hundredth of it in one; for covariates that are named twice, or are no finite numbers.
        KeyError
            For columns or layers that are not there.
        TypeError
            For labels that are no strings, for data that are no AnnData, for a matrix of no numbers, and for arguments
            of a wrong type.

        Warns
        -----
        UserWarning
            If a perturbed gene is named like a control, a cell of unknown perturbation, a guide or a dose; if nearly
            no perturbed gene is in ``var_names`` while a column of ``var`` has them, or other letters; if `delimiter`
            cuts the name of a gene; if batches have no control cells, or a batch or covariate is the perturbation;
            if library sizes are below the row sums in a tenth of the cells, or ten thousand times larger; if a
            continuous covariate is constant or has far outliers.

        Notes
        -----
        Blanks around ``var_names`` are taken away, in place; those around labels do not matter.

        Writes ``obsm["_scvi_perturbation"]`` (sparse cells x perturbed genes), ``obs["_scvi_batch"]``, for counts
        ``obs["_scvi_library_size"]``, and scvi-tools' keys in ``uns``.

        Errors about labels name the call that would work, as :func:`raptorgraph.pp.suggest_setup` finds it.

        Examples
        --------
        >>> rg.RaptorGraphModel.setup_anndata(adata, "perturbation", library_size_key="total_counts")
        >>> list(adata.var_names[:3])
        ['P01', 'P02', 'P03']
        """
        control, categorical_covariate_keys, continuous_covariate_keys = plain_names(
            control, categorical_covariate_keys, continuous_covariate_keys
        )
        setup_method_args = cls._get_setup_method_args(**locals())
        cls.register_manager(register(cls, adata, setup_method_args, **kwargs))

    @classmethod
    def from_preset(cls, adata: AnnData | MuData, preset: str = "paper", **model_kwargs) -> RaptorGraphModel:
        """Build a model in a named configuration, for its construction and its training.

        Parameters
        ----------
        adata
            Registered data.
        preset
            ``"default"`` or ``"paper"``, the published configuration.
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
        check_data(adata)
        adata = expression_of(adata) if isinstance(adata, MuData) else adata
        arguments = dict(get_preset(preset)["model"])
        if preset == "paper":
            # 109 latents for 105 perturbed genes (Table S4).
            manager = cls._get_most_recent_anndata_manager(adata, required=True)
            arguments["n_latent"] = manager.summary_stats.n_perturbed + 4
        model = cls(adata, **{**arguments, **model_kwargs})
        model.preset_ = preset
        return model

    # -- what the model knows ------------------------------------------------------------------------------------
    @property
    def setup_args(self) -> dict[str, Any]:
        """Arguments of the registration.

        Examples
        --------
        >>> model.setup_args["library_size_key"]
        'total_counts'
        """
        return dict(self.registry_["setup_args"])

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
    def latent_names(self) -> list[str]:
        """Gene of each latent, ``latent_<i>`` for those without one.

        Examples
        --------
        >>> model.latent_names[5:8]
        ['P06', 'latent_6', 'latent_7']
        """
        d = self.module.graph.weight.shape[0]
        return self.perturbed_genes + [f"latent_{i}" for i in range(len(self.perturbed_genes), d)]

    @property
    def conditions(self) -> list[str]:
        """Canonical labels of the perturbations in the training data, without control.

        Examples
        --------
        >>> len(model.conditions), model.conditions[0]
        (10, 'P01')
        """
        state = self.get_state_registry(KEYS.PERTURBATION)
        return [self._label(genes) for genes in state["conditions"] if genes]

    def _label(self, genes: Sequence[str]) -> str:
        args = self.setup_args
        return format_perturbation(genes, control=args["control"], delimiter=args["delimiter"])

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
        >>> screen = model.screen
        >>> screen.design.shape, screen.codes.shape == (adata.n_obs,)
        ((11, 6), True)
        """
        if self.adata is None:  # no ValueError: scvi-tools reads all properties of a model that it saves
            raise AttributeError("The model was loaded without data: load(folder, adata) gives it a screen.")
        return self.adata_manager.screen

    def measured_effects(self) -> pd.DataFrame:
        """Measured effects of the conditions in the data, conditions x genes, on the expression scale.

        See :func:`raptorgraph.pp.measured_effects`.

        Examples
        --------
        >>> model.measured_effects().shape
        (10, 100)
        """
        return Screen(self._data(), self.setup_args).effects


RaptorGraph = RaptorGraphModel
