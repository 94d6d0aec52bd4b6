"""Usual scales of the single effects in sets of genes, from the hyperparameters themselves."""

from __future__ import annotations

import torch


def usual_scale(
    design: torch.Tensor, unseen: torch.Tensor, scale: torch.Tensor, unseen_scale: torch.Tensor
) -> torch.Tensor:
    """Scale of each set (sets x k): 1 of single genes, and another one where a gene was never perturbed alone."""
    of_combinations = torch.where(design @ unseen > 0, unseen_scale, scale)
    return torch.where(design.sum(1) > 1, of_combinations, 1.0)
