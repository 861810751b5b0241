"""Losses that detector families and distillation share. Legend: C classes, D targets, P positives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ciod_core.model.common.boxes import iou
from ciod_core.model.common.log_products import logs_of_products_
from ciod_core.runtime.distributed import mean_across_processes

BOX_WEIGHT = 5.0

# 2^6 factors, each at least 1/2, stay far above the smallest number.
HALVINGS = 6


class _SummedBce(torch.autograd.Function):
    """BCE of a logit z against y is softplus(z) − y·z; softplus(z) is max(z, 0) − log max(σ(z), 1 − σ(z)).

    In float32 a factor rounds by 3e-8. That is nothing beside one likely class; where all are as unlikely as 1e-5, the
    value may be off by a thousandth of itself. The gradient, σ(z) − y, is known along with it and has no such error.
    """

    @staticmethod
    def forward(ctx: Any, logits_PC: Tensor, target_PD: Tensor) -> Tensor:
        num_targets = target_PD.shape[1]
        error_PC = logits_PC.sigmoid()
        factors_PC = 1 - error_PC
        torch.maximum(factors_PC, error_PC, out=factors_PC)
        error_PC[:, :num_targets].sub_(target_PD)
        ctx.save_for_backward(error_PC)
        linear_PC = logits_PC.relu()
        linear_PC[:, :num_targets].addcmul_(logits_PC[:, :num_targets], target_PD, value=-1)
        return linear_PC.sum(dim=1) - logs_of_products_(factors_PC, HALVINGS).sum(dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (error_PC,) = ctx.saved_tensors
        return error_PC * gradients[0].unsqueeze(1), None


def summed_bce(logits_PC: Tensor, target_PD: Tensor) -> Tensor:
    """(P,) BCE summed over classes; classes behind the last target have target 0. Targets get no gradient."""
    total_P: Tensor = _SummedBce.apply(logits_PC, target_PD)
    return total_P


def box_loss(boxes_P4: Tensor, target_boxes_P4: Tensor) -> Tensor:
    """5 · (1 − IoU²) of each positive, (P,)."""
    return BOX_WEIGHT * (1 - iou(boxes_P4, target_boxes_P4).square())


def normalizer(positives: Tensor) -> Tensor:
    """Number of positives that a loss is divided by, averaged over processes, at least 1.

    Args:
        positives: boolean mask.
    """
    return mean_across_processes(positives.sum().float()).clamp(min=1)
