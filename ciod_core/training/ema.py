"""Exponential moving average of the weights: what is evaluated, saved and handed on as the next teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averages parameters and floating-point buffers; counters are copied."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state: dict[str, Tensor] = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, updates: int) -> None:
        """Take in the model after its `updates`-th optimizer step (from 1).

        The decay ramps up as (1 + n) / (10 + n), so that short runs are not ruled by their first weights.
        """
        weight = 1 - min(self.decay, (1 + updates) / (10 + updates))
        own, new = [], []
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                own.append(self.state[name])
                new.append(tensor)
            else:
                self.state[name].copy_(tensor)
        torch._foreach_lerp_(own, new, weight)
