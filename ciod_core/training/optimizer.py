"""The optimizer: which parameters decay, which belong to the head, and how fast each learns."""

from __future__ import annotations

from itertools import groupby

import torch
from torch import nn

from ciod_core.config.schema import TrainingConfig
from ciod_core.model.base import Detector


def build_optimizer(model: Detector, config: TrainingConfig) -> torch.optim.Optimizer:
    """SGD or AdamW; weight decay on convolution kernels alone, or on everything."""
    head = {id(parameter) for parameter in model.head_parameters().values()}
    backbone = {id(parameter) for parameter in model.backbone.parameters()}

    def kind(parameter: nn.Parameter) -> tuple[bool, bool]:
        return id(parameter) in head, parameter.ndim > 1

    def group_of(parameter: nn.Parameter) -> tuple[bool, bool, bool]:
        return *kind(parameter), id(parameter) in backbone

    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": list(members),
            "weight_decay": config.weight_decay if is_kernel or config.decay_all else 0.0,
            "in_head": in_head,
            "in_backbone": in_backbone,
        }
        # Sorted by less than it is grouped by: states of earlier versions hold the parameters in this order.
        for (in_head, is_kernel, in_backbone), members in groupby(sorted(learning, key=kind), key=group_of)
    ]
    if config.optimizer == "sgd":
        nesterov = config.nesterov and config.momentum > 0
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def set_learning_rates(
    optimizer: torch.optim.Optimizer, lr: float, trunk_rate: float = 1.0, backbone_rate: float = 1.0
) -> None:
    """Heads learn at `lr`, the trunk at `trunk_rate` · `lr`, the backbone in it at `backbone_rate` times that."""
    for group in optimizer.param_groups:
        share = 1.0 if group["in_head"] else trunk_rate
        group["lr"] = lr * share * (backbone_rate if group["in_backbone"] else 1.0)
