"""A training whose parts are measured, for the experiments on cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback

from raptorgraph.model import RaptorGraphModel, _responding, _training
from raptorgraph.model._calibration import Calibration
from raptorgraph.model._graph import EdgeTable
from raptorgraph.model._splitter import ScreenSplitter

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from anndata import AnnData

    from raptorgraph.benchmark._cost import Meter


def train_measured(meter: Meter, adata: AnnData, **kwargs: Any) -> RaptorGraphModel:
    """Set a model up and train it for an epoch, each part in a stage of the meter."""
    with meter.stage("setup"):
        RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
        model = RaptorGraphModel(adata, **kwargs)
    with (
        meter.around(ScreenSplitter, "setup", "sums"),
        meter.around(EdgeTable, "infer", "graph"),
        meter.around(Calibration, "fit", "posterior"),
        meter.around(_training, "start_from_effects", "start"),
        meter.around(_responding, "fit_responses", "responders"),
    ):
        model.train(
            max_epochs=1,
            accelerator="cpu",
            enable_progress_bar=False,
            limit_val_batches=0,
            callbacks=[_Epochs(meter)],
        )
    return model


class _Epochs(Callback):
    """Measures the epochs of a training."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stage = self.meter.stage("epoch")
        self.stage.__enter__()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stage.__exit__(None, None, None)
