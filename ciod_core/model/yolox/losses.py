"""The detection loss of YOLOX, in parts. Legend: B images, A anchor points, C classes, P positives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from ciod_core.model.common.losses import summed_bce


def objectness_loss(
    objectness_logits_BA: Tensor,
    image_P: Tensor,
    anchor_P: Tensor,
    target_P: Tensor,
    *,
    background_BA: Tensor | None = None,
    ignored_BA: Tensor | None = None,
) -> Tensor:
    """BCE of every anchor point's objectness, summed.

    Args:
        objectness_logits_BA: predicted logits.
        image_P, anchor_P: the positives.
        target_P: targets of the positives.
        background_BA: targets of all other anchor points; None: 0.
        ignored_BA: mask of anchor points that are left out unless they are positives; None: none are.
    """
    target_BA = torch.zeros_like(objectness_logits_BA) if background_BA is None else background_BA.clone()
    target_BA[image_P, anchor_P] = target_P
    if ignored_BA is None:
        return bce(objectness_logits_BA, target_BA, reduction="sum")
    counted_BA = (~ignored_BA).to(objectness_logits_BA.dtype)
    counted_BA[image_P, anchor_P] = 1.0
    return bce(objectness_logits_BA, target_BA, weight=counted_BA, reduction="sum")


def class_loss(class_logits_PC: Tensor, labels_P: Tensor, iou_P: Tensor, *, first_class: int = 0) -> Tensor:
    """BCE of the class logits against the one-hot label × IoU, summed over positives and classes.

    Classes before `first_class` are left out.
    """
    target_PC = torch.zeros_like(class_logits_PC).scatter_(1, labels_P.unsqueeze(1), iou_P.unsqueeze(1))
    return summed_bce(class_logits_PC[:, first_class:], target_PC[:, first_class:]).sum()
