"""Control cells that decoded means are compared on: part of the model, so that a loaded one needs no data."""

from __future__ import annotations

import torch
from torch import nn

_NAMES = ("z", "library", "covariates")
_OLD_PREFIX = "reference_"  # in the state of the posterior of the effects, where older models have them


class ReferenceControls(nn.Module):
    """Latents, library sizes and covariates of some control cells, on the CPU; None before the training."""

    z: torch.Tensor | None = None
    library: torch.Tensor | None = None
    covariates: torch.Tensor | None = None

    def store(self, *values: torch.Tensor | None) -> None:
        """Keep all three; None stands for what the model does not have."""
        for name, value in zip(_NAMES, values, strict=True):
            setattr(self, name, None if value is None else value.cpu())

    def on(self, device: torch.device) -> tuple[torch.Tensor | None, ...]:
        """All three on a device."""
        return tuple(None if value is None else value.to(device) for value in (self.z, self.library, self.covariates))

    def get_extra_state(self) -> dict[str, torch.Tensor]:
        """Return what is known, for ``state_dict``."""
        return {name: getattr(self, name) for name in _NAMES if getattr(self, name) is not None}

    def set_extra_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take over what another instance has."""
        for name in _NAMES:
            setattr(self, name, state[name].cpu() if name in state else None)

    @staticmethod
    def move_old_state(state_dict: dict[str, dict[str, torch.Tensor]], prefix: str) -> None:
        """Give the reference of an older model, in the state of its posterior, its place in the state of the model."""
        new, old = (f"{prefix}{name}._extra_state" for name in ("reference", "effects"))
        if old in state_dict and new not in state_dict:
            known = {name: state_dict[old].get(f"{_OLD_PREFIX}{name}") for name in _NAMES}
            state_dict[new] = {name: value for name, value in known.items() if value is not None}
