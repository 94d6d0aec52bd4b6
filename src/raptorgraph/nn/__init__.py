"""Blocks of the model: tensors in, tensors out."""

from raptorgraph.nn._expectation import expected_log1p_nb

__all__ = ["expected_log1p_nb"]
