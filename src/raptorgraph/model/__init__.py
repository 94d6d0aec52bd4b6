"""The model on scvi-tools."""

from raptorgraph.model._model import RaptorGraphModel
from raptorgraph.model._plan import NonFiniteLossError, RaptorGraphTrainingPlan

__all__ = ["NonFiniteLossError", "RaptorGraphModel", "RaptorGraphTrainingPlan"]
