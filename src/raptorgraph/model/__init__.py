"""The model on scvi-tools."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_calibration": ["Calibration"],
        "_cells": ["Cells"],
        "_graph": ["EdgeTable"],
        "_latents": ["Latents"],
        "_model": ["RaptorGraphModel"],
        "_plan": ["NonFiniteLossError", "RaptorGraphTrainingPlan"],
        "_predictor": ["Predictor"],
        "_status": ["UnfinishedModelWarning"],
    },
)
