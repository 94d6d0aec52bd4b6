"""The model that a user meets: setup, construction, training, latents, graph."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi import settings
from scvi.model._utils import use_distributed_sampler
from scvi.model.base import BaseModelClass
from scvi.model.base._save_load import _load_saved_files
from scvi.train import TrainRunner

from raptorgraph.model._field import KEYS
from raptorgraph.model._graph import GRAPHS, GraphMixin
from raptorgraph.model._initial import initialize
from raptorgraph.model._module import RaptorGraphModule
from raptorgraph.model._plan import RaptorGraphTrainingPlan
from raptorgraph.model._predict import PredictionMixin
from raptorgraph.model._presets import get_preset
from raptorgraph.model._query import align_genes, prepare_query
from raptorgraph.model._setup import register
from raptorgraph.model._splitter import ScreenSplitter
from raptorgraph.pp import format_perturbation, measured_effects

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

# Updates. Effects depend on the posterior alone, and cells keep the noise of the controls they start from, so that a
# longer training has little left to add to predictions.
_N_STEPS = 400
_ACTIVE_KL = 0.01


class RaptorGraphModel(PredictionMixin, GraphMixin, BaseModelClass):
    """RAPTORGraph: a causal latent model of a Perturb-seq screen.

    Each perturbed gene has one latent of its own; a perturbation shifts that latent only, an acyclic graph among
    the latents carries the shift on, and a decoder turns latents into expression.

    Parameters
    ----------
    adata
        AnnData registered by :meth:`setup_anndata`.
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
        (:func:`raptorgraph.nn.infer_graph`). ``"dagma"``: learned with the network, by DAGMA's score on its latents, as
        published. ``"fixed"``: left as it is in ``module.graph``, which has no edge at first.
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
        Predict mean effects by the hierarchical posterior :class:`raptorgraph.nn.EffectPosterior`, to which the
        decoded cells are shifted, in seconds for a hundred conditions; False predicts by the decoder alone, a dict
        gives the arguments of that class.
    """

    _module_cls = RaptorGraphModule
    _training_plan_cls = RaptorGraphTrainingPlan
    _data_splitter_cls = ScreenSplitter
    _train_runner_cls = TrainRunner

    def __init__(
        self,
        adata: AnnData | None = None,
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
        super().__init__(adata, registry)
        state = self.registry_["field_registries"]
        perturbation = state[KEYS.PERTURBATION]["state_registry"]
        self.perturbed_genes_ = list(perturbation["perturbed_genes"])
        counts = KEYS.LIBRARY in state
        if likelihood is None:
            likelihood = "nb" if counts else "normal"
            found = "counts" if counts else "log-normalized values"
            logger.info("The data are %s: likelihood=%r.", found, likelihood)
        if likelihood not in ("nb", "normal"):
            raise ValueError(f"likelihood={likelihood!r} is unknown; use 'nb' or 'normal'.")
        if likelihood == "nb" and not counts:
            raise ValueError("likelihood='nb' needs counts and the data are log values; register the layer with the "
                             "counts (setup_anndata(..., layer=...)) or use likelihood='normal'.")  # fmt: skip
        k = len(self.perturbed_genes_)
        n_latent = k + max(4, math.ceil(0.1 * k)) if n_latent is None else n_latent
        if n_latent < k:
            raise ValueError(f"n_latent={n_latent} is below the number of perturbed genes, {k}, which own one each.")
        for name, value in {"n_subgraphs": n_subgraphs, "n_hidden": n_hidden}.items():
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if latent_norm not in ("none", "layer"):
            raise ValueError(f"latent_norm={latent_norm!r} is unknown; use 'none' or 'layer'.")
        if graph not in GRAPHS:
            raise ValueError(f"graph={graph!r} is unknown; use one of {', '.join(map(repr, GRAPHS))}.")
        self.pairing_ = pairing
        self.preset_ = "default"
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
            Cells x genes, counts or log-normalized values.
        perturbation_key
            Column of ``obs`` with the labels.
        control
            Label or labels of control cells.
        delimiter
            Between the genes of a combination. ``A+B`` and ``B+A`` are the same.
        layer
            Layer with the values; by default ``X``.
        library_size_key
            Column of ``obs`` with the total counts of each cell, for data that hold a part of the genes; by default
            row sums.
        batch_key, categorical_covariate_keys, continuous_covariate_keys
            Covariates in ``obs``; they enter the decoder.

        Raises
        ------
        ValueError
            For missing labels, an unknown control label, fewer than two control cells, views, backed data, names
            that are not unique, negative or non-finite values, values that are neither counts nor log values.
        KeyError
            For columns or layers that are not there.

        Notes
        -----
        Writes ``obsm["_scvi_perturbation"]`` (sparse cells x perturbed genes), ``obs["_scvi_batch"]``, for counts
        ``obs["_scvi_library_size"]``, and scvi-tools' keys in ``uns``.
        """
        setup_method_args = cls._get_setup_method_args(**locals())
        manager = register(
            cls,
            adata,
            setup_method_args,
            perturbation_key=perturbation_key,
            control=control,
            delimiter=delimiter,
            layer=layer,
            library_size_key=library_size_key,
            batch_key=batch_key,
            categorical=categorical_covariate_keys,
            continuous=continuous_covariate_keys,
            **kwargs,
        )
        cls.register_manager(manager)

    @classmethod
    def from_preset(cls, adata: AnnData, preset: str = "paper", **model_kwargs) -> RaptorGraphModel:
        """Build a model in a named configuration, for its construction and its training.

        Parameters
        ----------
        adata
            Registered AnnData.
        preset
            ``"default"`` or ``"paper"``, the published configuration.
        **model_kwargs
            Arguments of the class that take precedence.
        """
        arguments = dict(get_preset(preset)["model"])
        if preset == "paper":
            # 109 latents for 105 perturbed genes (Table S4).
            manager = cls._get_most_recent_anndata_manager(adata, required=True)
            arguments["n_latent"] = manager.summary_stats.n_perturbed + 4
        model = cls(adata, **{**arguments, **model_kwargs})
        model.preset_ = preset
        return model

    def _validate_anndata(self, adata: AnnData | None = None, copy_if_view: bool = True) -> AnnData:
        """Match genes by name and register; a query is worked on as a copy, the user's object stays as it is."""
        if adata is None or adata is self.adata:
            if self.adata is None:
                raise ValueError("The model was loaded without data: pass adata=...")
            return super()._validate_anndata(None, copy_if_view)
        query = prepare_query(adata, self.var_names_, self.setup_args, counts=self.module.counts)
        kept, manager = self._adata, self._adata_manager
        query = super()._validate_anndata(query, copy_if_view)
        if kept is None:  # the parent adopts the first query of a model without data
            self._adata, self._adata_manager = kept, manager
        return query

    @classmethod
    def load(cls, dir_path: str, adata: AnnData | None = None, *args, **kwargs) -> RaptorGraphModel:
        """Load a saved model; genes of ``adata`` are matched by name. See scvi-tools for the arguments."""
        if isinstance(adata, AnnData):
            var_names = _load_saved_files(dir_path, load_adata=False, prefix=kwargs.get("prefix"))[1]
            adata = align_genes(adata, list(var_names))
        return super().load(dir_path, adata, *args, **kwargs)

    # -- what the model knows ------------------------------------------------------------------------------------
    @property
    def setup_args(self) -> dict[str, Any]:
        """Arguments of the registration."""
        return dict(self.registry_["setup_args"])

    @property
    def perturbed_genes(self) -> list[str]:
        """Perturbed genes; latent i belongs to gene i."""
        return list(self.perturbed_genes_)

    @property
    def latent_names(self) -> list[str]:
        """Gene of each latent, ``latent_<i>`` for those without one."""
        d = self.module.graph.weight.shape[0]
        return self.perturbed_genes + [f"latent_{i}" for i in range(len(self.perturbed_genes), d)]

    @property
    def conditions(self) -> list[str]:
        """Canonical labels of the perturbations in the training data, without control."""
        state = self.get_state_registry(KEYS.PERTURBATION)
        return [self._label(genes) for genes in state["conditions"] if genes]

    def _label(self, genes: Sequence[str]) -> str:
        args = self.setup_args
        return format_perturbation(genes, control=args["control"], delimiter=args["delimiter"])

    def measured_effects(self) -> pd.DataFrame:
        """Measured effects of the conditions in the data, conditions x genes, on the expression scale."""
        args = self.setup_args
        keys = ("control", "delimiter", "layer", "library_size_key", "batch_key")
        return measured_effects(self.adata, args["perturbation_key"], **{key: args[key] for key in keys})

    # -- training ------------------------------------------------------------------------------------------------
    def train(
        self,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        batch_size: int | None = None,
        early_stopping: bool = False,
        datasplitter_kwargs: dict | None = None,
        plan_kwargs: dict | None = None,
        **trainer_kwargs,
    ) -> None:
        """Train the model.

        Parameters
        ----------
        max_epochs
            Passes over the perturbed cells; by default as many as make about 400 updates (100 in the preset
            ``"paper"``), at least 10.
        accelerator, devices, shuffle_set_split
            As in scvi-tools.
        train_size, validation_size
            Shares of the cells of each condition, by default 0.9 and 0.1.
        batch_size
            Perturbed cells in a batch, which holds as many controls; by default 256.
        early_stopping
            Stop when ``validation_loss`` no longer falls.
        datasplitter_kwargs, plan_kwargs
            Arguments of the data module and of :class:`RaptorGraphTrainingPlan` (learning rate, schedules, weights
            of the loss terms).
        **trainer_kwargs
            Arguments of scvi-tools' ``Trainer``, for example ``enable_checkpointing`` or ``gradient_clip_val``.

        Raises
        ------
        NonFiniteLossError
            When a term of the loss is no longer finite, naming it.
        """
        preset = get_preset(self.preset_)
        plan_arguments = {**preset["plan"], **(plan_kwargs or {})}
        if self.module.graph_kind != "dagma":  # then it is not trained
            plan_arguments["dag_weight"] = 0.0
        if use_distributed_sampler(trainer_kwargs.get("strategy")):
            raise NotImplementedError("Distributed training is not supported: pairs of cells stay on one device.")
        partners = plan_arguments.get("mmd_weight", 0) > 0 or plan_arguments.get("pair_weight", 0) > 0
        plan = self._training_plan_cls(self.module, **plan_arguments)
        splitter_arguments = {"pairing": self.pairing_, "with_partners": partners, **(datasplitter_kwargs or {})}
        splitter = self._data_splitter_cls(
            self.adata_manager,
            train_size=train_size,
            validation_size=validation_size,
            shuffle_set_split=shuffle_set_split,
            batch_size=batch_size or preset["train"]["batch_size"],
            **splitter_arguments,
        )
        if max_epochs is None:
            max_epochs = preset["train"].get("max_epochs") or max(10, math.ceil(_N_STEPS / splitter.steps_per_epoch))
        if settings.seed is not None:
            torch.manual_seed(settings.seed)
        has_validation = splitter.n_val > 0
        if early_stopping and not has_validation:
            raise ValueError("early_stopping needs validation cells: lower train_size or give more cells a condition.")
        trainer_kwargs.setdefault("early_stopping_monitor", "validation_loss")
        trainer_kwargs.setdefault("check_val_every_n_epoch", 1 if early_stopping else max(1, max_epochs // 20))
        trainer_kwargs.setdefault("log_every_n_steps", 1)
        if not has_validation:
            trainer_kwargs.update(limit_val_batches=0, check_val_every_n_epoch=None)
        splitter.setup()
        if self.module.graph_kind == "interventional":
            self._fit_graph(splitter)
        if self.module.effects is not None:
            self._fit_effects(splitter)
        self.module.train()
        runner = self._train_runner_cls(
            self,
            training_plan=plan,
            data_splitter=splitter,
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            early_stopping=early_stopping,
            **trainer_kwargs,
        )
        runner()
        if self.module.effects is not None:
            self._store_reference(splitter.known_controls)
        activity = self.latent_activity()
        logger.info(
            "%d of %d latents are active (KL above %g).", int(activity["active"].sum()), len(activity), _ACTIVE_KL
        )

    # -- latents and graph -----------------------------------------------------------------------------------------
    @torch.inference_mode()
    def get_latent_representation(
        self, adata: AnnData | None = None, kind: str = "causal", batch_size: int = 1024
    ) -> np.ndarray:
        """Posterior means of the latents.

        Parameters
        ----------
        adata
            Cells; by default those of the model. Genes are matched by name.
        kind
            ``"causal"`` for u, ``"exogenous"`` for z.
        batch_size
            Cells at a time.

        Returns
        -------
        Cells x d, float32.
        """
        if kind not in ("causal", "exogenous"):
            raise ValueError(f"kind={kind!r} is unknown; use 'causal' or 'exogenous'.")
        parts = []
        for tensors in self._cells(adata, batch_size=batch_size):
            z, _ = self.module.encode(self.module.expression(tensors[KEYS.X], tensors.get(KEYS.LIBRARY)))
            parts.append(self.module.graph(self.module.norm(z)) if kind == "causal" else z)
        return torch.cat(parts).cpu().numpy().astype(np.float32)

    @torch.inference_mode()
    def latent_activity(self) -> pd.DataFrame:
        """KL of each latent to its prior, in nats, as a mean over control cells.

        Returns
        -------
        DataFrame with one row a latent: ``gene`` (None where it has none), ``kl``, ``active`` (KL above 0.01).
        """
        from raptorgraph.nn import kl_standard_normal

        parts = []
        for tensors in self._cells(None, rows=self._control_rows(self.adata)):
            expression = self.module.expression(tensors[KEYS.X], tensors.get(KEYS.LIBRARY))
            parts.append(kl_standard_normal(*self.module.encode(expression)))
        kl = torch.cat(parts).mean(0).cpu().numpy()
        genes = self.perturbed_genes + [None] * (len(kl) - len(self.perturbed_genes))
        index = pd.Index(self.latent_names, name="latent")
        return pd.DataFrame({"gene": genes, "kl": kl, "active": kl > _ACTIVE_KL}, index=index)
