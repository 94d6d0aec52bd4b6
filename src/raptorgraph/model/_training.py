"""Training of the model: the graph and the effects are inferred first, then the network is fitted to cells."""

from __future__ import annotations

import copy
import logging
import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from scvi import settings

from raptorgraph._arguments import check_mapping
from raptorgraph._failures import one_line
from raptorgraph._logging import quietly
from raptorgraph._progress import progress_argument, shows_progress
from raptorgraph._threads import in_turn
from raptorgraph.model._arguments import check_checkpointing, check_not_taken, check_training, plain_devices
from raptorgraph.model._calibration import reference_rows
from raptorgraph.model._cells import draw_seed
from raptorgraph.model._checkpoints import Checkpoints, settings_of
from raptorgraph.model._distributed import (
    Share,
    check_processes,
    follows,
    n_processes,
    receive_results,
    with_strategy,
)
from raptorgraph.model._gene_embedding import GeneEmbedding
from raptorgraph.model._latents import ACTIVE_KL
from raptorgraph.model._plan import NONFINITE_FIX, NonFiniteLossError, RaptorGraphTrainingPlan
from raptorgraph.model._presets import get_preset
from raptorgraph.model._responding import fit_escape
from raptorgraph.model._runner import LastEpoch, interruption, put_back, same_signals
from raptorgraph.model._start import start_from_effects, starts_from_effects
from raptorgraph.model._targets import EffectTargets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.model._runner import ScreenRunner
    from raptorgraph.model._splitter import ScreenSplitter

logger = logging.getLogger(__name__)

# Updates, and least number of epochs. Effects depend on the posterior alone, and a network that starts from them is
# almost right, so that a longer training has little left to add; one that does not needs more.
_FROM_EFFECTS, _FROM_NOTHING = (200, 2), (400, 10)


@in_turn
@progress_argument("enable_progress_bar")
@quietly
def train(
    model: RaptorGraphModel,
    max_epochs: int | None = None,
    accelerator: str = "auto",
    devices: int | list[int] | str = "auto",
    train_size: float | None = None,
    validation_size: float | None = None,
    shuffle_set_split: bool = True,
    batch_size: int | None = None,
    early_stopping: bool = False,
    datasplitter_kwargs: dict[str, Any] | None = None,
    plan_kwargs: dict[str, Any] | None = None,
    *,
    checkpoint_dir: str | Path | None = None,
    resume: bool = False,
    **trainer_kwargs: Any,
) -> None:
    """Train the model. Of several threads that train, also other models, one does at a time.

    Parameters
    ----------
    max_epochs
        Passes over the perturbed cells; by default as many as make about 200 updates, at least 2, or 400 and 10 where
        the network does not start from the effects (``perturbed_prior=False``, ``linear_decoder=False``). 100 in the
        presets ``"paper"`` and ``"paper-literal"``.
    accelerator, devices, shuffle_set_split
        As in scvi-tools. Several devices need ``strategy="ddp"`` and a script, which is run once for each device: the
        first process infers graph and effects, all fit the network, and all have the same model afterwards, which
        the first one saves.
    train_size, validation_size
        Shares of the cells of each condition, by default 0.9 and 0.1; all are trained on in ``"paper-literal"``.
    batch_size
        Perturbed cells in a batch; by default 256. Controls come with them: as many as let an epoch pass over all of
        them about once, from 64 to `batch_size`; with ``perturbed_prior=False`` a partner of each cell. Several devices
        share a batch.
    early_stopping
        Stop when ``validation_loss`` no longer falls.
    datasplitter_kwargs, plan_kwargs
        Arguments of the data module and of :class:`~raptorgraph.model.RaptorGraphTrainingPlan` (learning rate,
        schedules, weights of the loss terms).
    checkpoint_dir
        Folder that keeps, once graph and effects are inferred and again after each epoch, all that the training needs
        to go on: weights, optimizer, schedules, random numbers, early stopping. One device alone.
    resume
        Go on from what is in `checkpoint_dir`, to the same numbers that an unbroken training gives; start where nothing
        is there. Build the model from the same data and give the same arguments.
    **trainer_kwargs
        Arguments of scvi-tools' ``Trainer``, for example ``enable_checkpointing`` or ``gradient_clip_val``;
        ``enable_progress_bar`` shows bars of all steps, by default in a terminal or a notebook.

    Raises
    ------
    NonFiniteLossError
        When a term of the loss is no longer finite, naming it; the weights are then those before the training.
    KeyboardInterrupt, SystemExit
        When it is interrupted, or the process is asked to end: the model is then that of the last whole epoch, can be
        asked and saved, and says so with an ``UnfinishedModelWarning``.
    NotImplementedError
        For several devices without ``strategy="ddp"``, and for other strategies.
    TypeError
        For unknown `plan_kwargs`, and arguments of a wrong type.
    ValueError
        For early stopping without validation cells, arguments that are out of their range, devices and arguments that
        the trainer does not have, and checkpoints of another training. All come before any work, but for those of other
        cells, and leave model and data as they are.

    Examples
    --------
    >>> rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    >>> model = rg.RaptorGraphModel(adata, n_hidden=16)
    >>> model.train(max_epochs=2, accelerator="cpu", plan_kwargs={"lr": 1e-3}, enable_progress_bar=False)
    >>> model.is_trained
    True
    >>> list(model.history["train_loss"].index)
    [0, 1]
    """
    if model.adata is None:
        raise ValueError(
            "The model was loaded without data: it is not trained further; load(folder, adata) gives it data."
        )
    preset = get_preset(model.preset_)
    check_checkpointing(checkpoint_dir, resume, trainer_kwargs)
    trainer_kwargs = with_strategy(trainer_kwargs, early_stopping)
    plan = _plan(model, {**preset["plan"], **check_mapping("plan_kwargs", plan_kwargs)})
    trainer_kwargs = check_training(max_epochs, early_stopping, trainer_kwargs, plan.config.weights)
    division = {
        "train_size": preset["train"].get("train_size") if train_size is None else train_size,
        "validation_size": validation_size,
        "shuffle_set_split": shuffle_set_split,
        "batch_size": preset["train"]["batch_size"] if batch_size is None else batch_size,
    }
    batches = {**_batches(model, plan), **preset.get("data", {})}
    batches |= check_mapping("datasplitter_kwargs", datasplitter_kwargs)
    check_not_taken("datasplitter_kwargs", batches, ("adata_manager", *division))
    splitter = model._data_splitter_cls(model.adata_manager, **division, **batches)
    if max_epochs is None:
        n_steps, least = _FROM_EFFECTS if starts_from_effects(model.module) else _FROM_NOTHING
        max_epochs = preset["train"].get("max_epochs") or max(least, math.ceil(n_steps / splitter.steps_per_epoch))
    if settings.seed is not None:
        torch.manual_seed(settings.seed)
    trainer_kwargs = _for_trainer(trainer_kwargs, int(max_epochs), early_stopping, has_validation=splitter.n_val > 0)
    checkpoints = None
    if checkpoint_dir is not None:
        told = settings_of(model, plan, {**division, **batches}, trainer_kwargs)
        checkpoints = Checkpoints(checkpoint_dir, told, resume=resume)
        trainer_kwargs |= checkpoints.for_trainer(trainer_kwargs.get("plugins"))
    runner = _runner(model, accelerator, devices, training_plan=plan, data_splitter=splitter, **trainer_kwargs)
    check_processes(runner, devices, int((splitter.codes[splitter.train_idx] != 0).sum()))
    several, leads = n_processes(runner) > 1, not follows(runner)
    if several:
        if checkpoints is not None:
            raise ValueError("checkpoint_dir needs one device: leave it out, or use devices=1.")
        runner.trainer.callbacks.append(Share(model, splitter))
    elif checkpoints is not None:
        runner.trainer.callbacks.append(checkpoints)
    seconds = model._train_seconds = {}
    if leads:
        with _undone(model):
            _infer(model, splitter, seconds, checkpoints)
    model.module.train()
    with _timed(seconds, "epochs"):
        interrupted = _run(runner, model, checkpoints)
    if leads:
        _make_ready(model, splitter, seconds)
    if interrupted is not None:
        raise interrupted
    if several:
        receive_results(runner, model)
    activity = model.latent_activity()
    logger.info("%d of %d latents are active (KL above %g).", int(activity["active"].sum()), len(activity), ACTIVE_KL)


def _plan(model: RaptorGraphModel, arguments: dict[str, Any]) -> RaptorGraphTrainingPlan:
    """Training plan of these arguments; ValueError for losses on pairs of cells where the model has none."""
    check_not_taken("plan_kwargs", arguments, ("module",))
    if model.module.config.graph != "dagma":  # then it is not trained
        arguments = {**arguments, "dag_weight": 0.0}
    plan: RaptorGraphTrainingPlan = model._training_plan_cls(model.module, **arguments)
    if _on_pairs(plan) and model.module.config.perturbed_prior:
        raise ValueError(
            f"mmd_weight={plan.config.mmd_weight:g} and pair_weight={plan.config.pair_weight:g} in plan_kwargs are of "
            "losses on pairs of cells: build the model with perturbed_prior=False, or leave them at 0."
        )
    return plan


def _on_pairs(plan: RaptorGraphTrainingPlan) -> bool:
    """Whether a loss reads pairs of cells."""
    return plan.config.mmd_weight > 0 or plan.config.pair_weight > 0


def _batches(model: RaptorGraphModel, plan: RaptorGraphTrainingPlan) -> dict[str, Any]:
    """Arguments of the data module that follow from model and plan: what is in a batch."""
    by_name, partners = model.module.config.perturbed_prior, _on_pairs(plan)
    pairing = "random" if by_name and not partners else model.pairing_
    return {"pairing": pairing, "with_partners": partners, "by_name": by_name}


def _for_trainer(
    given: dict[str, Any], max_epochs: int, early_stopping: bool, *, has_validation: bool
) -> dict[str, Any]:
    """Arguments of the trainer, with defaults where none are given."""
    if early_stopping and not has_validation:
        raise ValueError("early_stopping needs validation cells: lower train_size or give more cells a condition.")
    defaults = {
        "early_stopping_monitor": "validation_loss",
        "check_val_every_n_epoch": 1 if early_stopping else max(1, max_epochs // 20),
        "log_every_n_steps": 1,
        "enable_progress_bar": shows_progress(),
    }
    without = {} if has_validation else {"limit_val_batches": 0, "check_val_every_n_epoch": None}
    return {**defaults, **given, **without, "max_epochs": max_epochs, "early_stopping": early_stopping}


def _infer(
    model: RaptorGraphModel, splitter: ScreenSplitter, seconds: dict[str, float], checkpoints: Checkpoints | None
) -> None:
    """Infer graph and effects from sums over the cells, and start the network from them, or take both as they were."""
    with _timed(seconds, "splitter"):
        splitter.setup()
    module, targets = model.module, model.target_columns
    design = splitter.screen.design
    known = checkpoints is not None and checkpoints.restore_statistics(model, splitter)
    if not known and module.config.graph == "interventional":
        with _timed(seconds, "graph"):
            model.edges.infer(splitter.known_log_ratios(), design, targets)
    if not known and module.effects is not None:
        embedding = GeneEmbedding.from_dict(model.gene_embedding_)
        rows = None if embedding is None else torch.as_tensor(embedding.rows(model.perturbed_genes))
        with _timed(seconds, "posterior"):
            noise = splitter.known_noise()
            given = *splitter.known_effects(), design, targets, model.edges.known(), noise, rows
            more = {"gene_order": splitter.gene_order, "control_loadings": splitter.known_control_loadings()}
            model.calibration.fit(*given, **more)
    if module.config.perturbed_prior:
        with _timed(seconds, "targets"):
            splitter.targets = _targets(model, splitter, design)
        if not known and not model.is_trained:
            with _timed(seconds, "start"):
                start_from_effects(module, splitter, _singles(model, splitter))
    if checkpoints is not None:
        checkpoints.keep_statistics(model, splitter)


def _make_ready(model: RaptorGraphModel, splitter: ScreenSplitter, seconds: dict[str, float]) -> None:
    """Keep and fit what answers need beside the network; a model without it does not count as trained."""
    try:
        if model.module.effects is not None:
            _keep_controls(model, splitter.known_controls)
        if model.module.prior is not None:
            with _timed(seconds, "escape"):
                fit_escape(model)
    except BaseException as error:
        model.is_trained_ = False
        if model.stopped_ is None:
            n = model.trainer.max_epochs
            model.stopped_ = {"cause": f"before its last steps ({one_line(error)})", "epoch": n, "max_epochs": n}
        raise


@contextmanager
def _undone(model: RaptorGraphModel) -> Iterator[None]:
    """Leave a trained model as it is where its screen cannot be inferred from anew."""
    before = copy.deepcopy(model.module.state_dict()) if model.is_trained else None
    try:
        yield
    except BaseException:
        if before is not None:
            model.module.load_state_dict(before)
        raise


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Write down the wall time of a part of the training."""
    start = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - start


def _run(runner: ScreenRunner, model: RaptorGraphModel, checkpoints: Checkpoints | None) -> BaseException | None:
    """Train, and return what interrupted it, if anything did: the network is then that of the last whole epoch.

    After another error it is that too, and after numbers that are not finite it is that before the first.
    """
    module, was_trained, before = model.module, model.is_trained, model.stopped_
    n, last = runner.trainer.max_epochs, LastEpoch(module)
    runner.trainer.callbacks.append(last)
    model.stopped_ = None
    try:
        with same_signals():
            if checkpoints is not None and checkpoints.is_finished:
                checkpoints.restore_end(runner)
                return None
            runner()
        if not all(bool(parameter.isfinite().all()) for parameter in module.parameters()):
            raise NonFiniteLossError("The weights are not finite after the last step. " + NONFINITE_FIX)
    except NonFiniteLossError as error:
        put_back(module, last.start)
        model.is_trained_ = was_trained
        model.stopped_ = before if was_trained else {"cause": str(error), "epoch": 0, "max_epochs": n}
        raise
    except BaseException as error:
        put_back(module, last.weights)
        interrupted = interruption(error, last.error)
        cause = one_line(error) if interrupted is None else "it was interrupted"
        model.stopped_ = {"cause": cause, "epoch": last.epoch, "max_epochs": n}
        if interrupted is None:
            raise
        if not (last.epoch or model.has_posterior):
            raise interrupted from None
        if not bool(module.graph.projected):
            module.graph.project(runner.training_plan.config.dag_threshold)
        runner.conclude()
        return interrupted
    if checkpoints is not None:
        checkpoints.keep_end(runner)
    return None


def _singles(model: RaptorGraphModel, splitter: ScreenSplitter) -> torch.Tensor:
    """Effects of all perturbed genes, perturbed genes x genes: of the posterior, or else as they were measured."""
    effects, (targets, _) = model.module.effects, splitter.targets
    if effects is not None:
        mean: torch.Tensor = effects.mean(torch.eye(len(model.perturbed_genes)))
        return mean
    assert targets is not None
    return targets.of_singles()


def _targets(
    model: RaptorGraphModel, splitter: ScreenSplitter, design: np.ndarray
) -> tuple[EffectTargets, EffectTargets | None]:
    """Effects to which training holds the network, and those of validation cells, as they were measured."""
    effects, validation = model.module.effects, None
    if splitter.val_split is not None:
        validation = EffectTargets.measured(splitter.val_split.effects, design)
    if effects is not None:
        return EffectTargets.inferred(effects, design, splitter.seed), validation
    return EffectTargets.measured(splitter.train_split.effects, design), validation


@torch.inference_mode()
def _keep_controls(model: RaptorGraphModel, controls: np.ndarray) -> None:
    """Keep latents of training controls, and digests of these and of all controls where some were kept for a test."""
    manager, rng = model.adata_manager, np.random.default_rng(draw_seed(None))
    rows = controls[reference_rows(np.arange(len(controls)), rng)]  # in the order of draws
    model.calibration.keep_reference(model.latents.draw(manager, rows, rng))
    model.control_digests_ = sorted({model.cells.digest(manager, rows) for rows in (controls, None)})


def _runner(
    model: RaptorGraphModel, accelerator: str, devices: int | list[int] | str, **arguments: Any
) -> ScreenRunner:
    """Build the runner; raise for devices and arguments that the trainer does not have."""
    try:
        found: ScreenRunner = model._train_runner_cls(
            model, accelerator=accelerator, devices=plain_devices(devices), **arguments
        )
    except (MisconfigurationException, ImportError, AttributeError, TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"The trainer refuses its arguments: {error} (accelerator={accelerator!r}, devices={devices!r})"
        ) from error
    return found
