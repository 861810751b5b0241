"""The optimiser: which parameters decay, which belong to the head, and how fast each learns."""

from __future__ import annotations

from itertools import groupby

import torch
from torch import nn

from ciod_core.config.schema import TrainingConfig

# Parameters of these parts of a detector answer; all others, backbone and neck, are the trunk that features come from.
HEADS = ("head.", "branches.")


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or AdamW; weight decay on convolution kernels alone."""

    def kind(named: tuple[str, nn.Parameter]) -> tuple[bool, bool]:
        name, parameter = named
        return name.startswith(HEADS), parameter.ndim > 1

    learning = [named for named in model.named_parameters() if named[1].requires_grad]
    groups = [
        {
            "params": [parameter for _, parameter in members],
            "weight_decay": config.weight_decay if decays else 0.0,
            "in_head": in_head,
        }
        for (in_head, decays), members in groupby(sorted(learning, key=kind), key=kind)
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def set_learning_rates(optimizer: torch.optim.Optimizer, lr: float, trunk_rate: float = 1.0) -> None:
    """Heads learn at `lr`, the trunk at `trunk_rate` · `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr if group["in_head"] else trunk_rate * lr
