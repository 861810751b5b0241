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
        pairs = [(self.state[name], tensor) for name, tensor in model.state_dict().items()]
        # All tensors of a kind at once; one by one, a GPU would need a kernel for each.
        values = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([own for own, _ in values], [new for _, new in values], weight)
        if counters := [pair for pair in pairs if not pair[0].is_floating_point()]:
            torch._foreach_copy_([own for own, _ in counters], [new for _, new in counters])
