"""The optimizer: which parameters decay, which belong to the head, and how fast each learns."""

from __future__ import annotations

from itertools import groupby

import torch
from torch import nn

from ciod_core.config.schema import TrainingConfig
from ciod_core.model.base import Detector


def build_optimizer(model: Detector, config: TrainingConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or AdamW; weight decay on convolution kernels alone."""
    trunk = {id(parameter) for parameter in model.trunk_parameters()}

    def kind(parameter: nn.Parameter) -> tuple[bool, bool]:
        return id(parameter) not in trunk, parameter.ndim > 1

    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": list(members),
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
