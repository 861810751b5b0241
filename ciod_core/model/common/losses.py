"""Losses that detector families and distillation share. Legend: C classes, D targets, P positives."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, pad

from ciod_core.model.common.boxes import iou
from ciod_core.runtime.distributed import mean_across_processes, share_of_images, world_size

BOX_WEIGHT = 5.0


def summed_bce(logits_PC: Tensor, target_PD: Tensor) -> Tensor:
    """(P,) BCE summed over classes; classes behind the last target have target 0."""
    target_PC = pad(target_PD, (0, logits_PC.shape[1] - target_PD.shape[1]))
    return binary_cross_entropy_with_logits(logits_PC, target_PC, reduction="none").sum(dim=1)


def box_loss(boxes_P4: Tensor, target_boxes_P4: Tensor) -> Tensor:
    """5 · (1 − IoU²) of each positive, (P,)."""
    return BOX_WEIGHT * (1 - iou(boxes_P4, target_boxes_P4).square())


def normalizer(positives: Tensor) -> Tensor:
    """Number of positives that a loss is divided by; see `divisor`.

    Args:
        positives: boolean mask.
    """
    return divisor(positives.sum().float())


def divisor(amount: Tensor) -> Tensor:
    """What a sum over this process's batch is divided by, so that the mean over processes is the mean over all batches.

    Args:
        amount: what is there in this process's batch, a scalar; all processes together have at least 1.
    """
    return mean_across_processes(amount).clamp(min=1 / world_size())


def mean_over_images(values_B: Tensor) -> Tensor:
    """The mean over the images of this process's batch, so that the mean over processes is that over all images."""
    return values_B.mean() * share_of_images(len(values_B), values_B.device)
