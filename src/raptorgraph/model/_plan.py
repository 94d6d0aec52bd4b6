"""Training plan: schedules of the weights, the domain of the graph, its projection, and a guard."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from scvi.train import TrainingPlan

from raptorgraph.model._config import TrainingConfig

if TYPE_CHECKING:
    from raptorgraph.model._module import RaptorGraphModule


# Rates of the networks, relative to those of the prior and of the scales: they start where they are almost right, and
# an update changes the latents of a cell by the sum of what it changes over thousands of genes.
_RATES = {"encoder": 0.1, "decoder": 0.3}

NONFINITE_FIX = "Lower the learning rate (plan_kwargs={'lr': ...}) or look for extreme values in the data."


class NonFiniteLossError(RuntimeError):
    """A term of the loss became NaN or infinite; training was stopped before the update."""


class RaptorGraphTrainingPlan(TrainingPlan):  # type: ignore[misc]  # scvi-tools has no types
    """scvi-tools' plan with the schedules of this model.

    Parameters
    ----------
    module
        The module to train.
    lr, weight_decay, eps
        Learning rate (default 0.003), decay (1e-4) and epsilon (1e-8) of the optimizer; biases, the graph and the
        modulator are not decayed.
    optimizer
        ``"AdamW"`` (default) or ``"Adam"``.
    lr_schedule
        ``"cosine"`` (default; warm-up over 3 % of the steps, then down to zero) or ``"constant"``.
    kl_weight
        Weight of the KL after its warm-up; default 1.
    kl_warmup
        Share of the epochs over which the KL weight rises linearly from 0; default 0.2 (0 in the default preset).
    kl_per_gene
        Divide the KL by the number of genes (default): reconstruction and KL then are the ELBO per gene at
        ``kl_weight`` = 1, whatever the number of genes.
    free_bits
        KL of each latent, in nats, below which it costs nothing; default 0 (0.05 in the default preset).
    shift_weight, mmd_weight, pair_weight
        Weights of the shifts of conditions (default 1), of the MMD to perturbed cells (0), and of the likelihood of
        paired perturbed cells (0).
    dag_weight, lambda1
        Weight of the graph's score (default 1), and of the sparsity in it (0.05); for ``graph="dagma"`` alone.
    mu, mu_final, mu_path
        Weight in the graph's score: it falls from ``mu`` (default 1) to ``mu_final`` (0.01) until the projection,
        ``"geometric"`` (default) or ``"linear"``, which can end at 0.
    graph_gradient
        Whether the graph's score reaches the encoder; not by default (section 3.2).
    project_at
        Share of the epochs after which the graph is projected to an acyclic one (default 0.8); the rest refines on it.
        1 projects at the end of training.
    dag_threshold
        Edges with an absolute weight at or below it are dropped in the projection; default 0.3, DAGMA's own. The
        latents have unit variance a priori, so weights compare.

    Raises
    ------
    TypeError
        For unknown arguments, and such of a wrong type.
    ValueError
        For a learning rate that is not positive, and other numbers out of their range.

    Examples
    --------
    ``train`` hands the arguments on:

    >>> model.train(max_epochs=1, plan_kwargs={"lr": 1e-3, "kl_weight": 0.5}, enable_progress_bar=False)
    """

    def __init__(self, module: RaptorGraphModule, **arguments: Any) -> None:
        self.config = config = TrainingConfig.of(arguments)
        optimizer = {name: getattr(config, name) for name in ("optimizer", "lr", "weight_decay", "eps")}
        super().__init__(module, **optimizer, **config.loss_settings())
        self.n_retreats = 0

    @property
    def kl_weight(self) -> float:
        """Weight of the KL in the current epoch."""
        n_warm = self.config.kl_warmup * (self.trainer.max_epochs or 1)
        return float(self.config.kl_weight * min(1.0, (self.current_epoch + 1) / max(n_warm, 1.0)))

    @property
    def mu(self) -> float:
        """Weight of the graph's score in the current epoch."""
        first, last = self.config.mu, self.config.mu_final
        share = min(1.0, self.current_epoch / max(1.0, self.config.project_at * (self.trainer.max_epochs or 1)))
        if self.config.mu_path == "linear":
            return float(first + (last - first) * share)
        return float(first * (last / first) ** share)

    def configure_optimizers(self) -> dict[str, Any]:
        """Optimizer with and without decay, and the schedule of the learning rate over all steps."""
        module = self.module
        free = (module.graph.weight, module.distribution.log_scale, *module.modulator.parameters())
        undecayed = {id(parameter) for parameter in free}
        groups: dict[tuple[bool, float], list[torch.nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                decays = parameter.ndim > 1 and id(parameter) not in undecayed
                rate = _RATES.get(name.partition(".")[0], 1.0) if module.config.perturbed_prior else 1.0
                groups.setdefault((decays, rate), []).append(parameter)
        # One pass over the weights. Scaled gradients of half precision cannot be clipped in it.
        fused = module.config.perturbed_prior and module.device.type in ("cpu", "cuda")
        fused = fused and not (self.trainer.gradient_clip_val and "16" in str(self.trainer.precision))
        optimizer = {"AdamW": torch.optim.AdamW, "Adam": torch.optim.Adam}[self.config.optimizer](
            [
                {"params": parameters, "weight_decay": self.config.weight_decay * decays, "lr": self.config.lr * rate}
                for (decays, rate), parameters in groups.items()
            ],
            lr=self.config.lr,
            eps=self.config.eps,
            fused=fused or None,
        )
        if self.config.lr_schedule == "constant":
            return {"optimizer": optimizer}
        n_steps = max(1, int(self.trainer.estimated_stepping_batches))
        n_warm = max(1, round(0.03 * n_steps))

        def factor(step: int) -> float:
            if step < n_warm:
                return (step + 1) / n_warm
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - n_warm) / max(1, n_steps - n_warm))))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        """One step; stops on a loss that is not finite and names the term."""
        self.loss_kwargs.update({"kl_weight": self.kl_weight, "mu": self.mu})
        _, _, output = self.forward(batch, loss_kwargs=self.loss_kwargs)
        if self._any_process(not torch.isfinite(output.loss)):
            bad = [name for name, value in output.extra_metrics.items() if not torch.isfinite(value)]
            raise NonFiniteLossError(
                f"The loss is not finite in epoch {self.current_epoch + 1}: {', '.join(bad) or 'its weighted sum'}. "
                + NONFINITE_FIX
            )
        n = output.n_obs_minibatch
        how = {"on_step": False, "on_epoch": True, "batch_size": n, "sync_dist": self.trainer.world_size > 1}
        self.log("train_loss", output.loss, prog_bar=True, **how)
        if self.trainer.progress_bar_callback is not None:  # which alone shows them
            for name, value in output.extra_metrics.items():
                self.log(name, value, prog_bar=True, logger=False, **how)
        self.compute_and_log_metrics(output, self.train_metrics, "train")
        loss: torch.Tensor = output.loss
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Loss with the final weights, so that epochs compare."""
        weights = {**self.loss_kwargs, "kl_weight": self.config.kl_weight, "mu": self.config.mu_final}
        _, _, output = self.forward(batch, loss_kwargs=weights)
        n = output.n_obs_minibatch
        several = self.trainer.world_size > 1
        self.log("validation_loss", output.loss, on_step=False, on_epoch=True, batch_size=n, sync_dist=several)
        self.compute_and_log_metrics(output, self.val_metrics, "validation")

    def compute_and_log_metrics(self, *args: Any, **kwargs: Any) -> None:
        """As in scvi-tools, which computes under inference mode: its tensors cannot be summed over processes."""
        with torch.no_grad():
            TrainingPlan.compute_and_log_metrics.__wrapped__(self, *args, **kwargs)

    def _any_process(self, stops: bool) -> bool:
        """Whether any of the processes stops: then all do, and none waits for another."""
        if self.trainer.world_size == 1:
            return stops
        return bool(self.trainer.strategy.reduce_boolean_decision(stops, all=False))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Update, and undo the part of it that took the graph out of the acyclicity's domain."""
        if not self.module.graph.weight.requires_grad:
            super().optimizer_step(*args, **kwargs)
            return
        previous = self.module.graph.weight.detach().clone()
        super().optimizer_step(*args, **kwargs)
        self.n_retreats += self.module.graph.retreat(previous) > 0

    def on_train_epoch_end(self) -> None:
        """Project the graph once its share of the epochs is over."""
        done = (self.current_epoch + 1) >= self.config.project_at * (self.trainer.max_epochs or 1)
        if done and not bool(self.module.graph.projected):
            self.module.graph.project(self.config.dag_threshold)

    def on_train_end(self) -> None:
        """Make sure that the graph is acyclic, also after an early stop."""
        if not bool(self.module.graph.projected):
            self.module.graph.project(self.config.dag_threshold)
