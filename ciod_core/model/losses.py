"""The detection loss, in the parts that methods put together (YOLOX; sums, to be divided by a normaliser).

Legend: B images, A anchor points, C classes, P positives.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from ciod_core.model.boxes import iou

BOX_WEIGHT = 5.0


def objectness_loss(
    obj_logits_BA: Tensor, image_P: Tensor, anchor_P: Tensor, target_P: Tensor, ignored_BA: Tensor | None = None
) -> Tensor:
    """BCE of every anchor point's objectness against its target at positives and 0 elsewhere, summed.

    Anchor points of the mask `ignored_BA` that are no positives are left out.
    """
    target_BA = torch.zeros_like(obj_logits_BA)
    target_BA[image_P, anchor_P] = target_P
    if ignored_BA is None:
        return bce(obj_logits_BA, target_BA, reduction="sum")
    counted_BA = (~ignored_BA).to(obj_logits_BA.dtype)
    counted_BA[image_P, anchor_P] = 1.0
    return bce(obj_logits_BA, target_BA, weight=counted_BA, reduction="sum")


def class_loss(cls_logits_PC: Tensor, labels_P: Tensor, iou_P: Tensor, *, first_class: int = 0) -> Tensor:
    """BCE of the class logits against the one-hot label × IoU, summed over positives and classes.

    Classes before `first_class` are left out.
    """
    target_PC = torch.zeros_like(cls_logits_PC).scatter_(1, labels_P.unsqueeze(1), iou_P.unsqueeze(1))
    return bce(cls_logits_PC[:, first_class:], target_PC[:, first_class:], reduction="sum")


def box_loss(boxes_P4: Tensor, target_boxes_P4: Tensor) -> Tensor:
    """5 · (1 − IoU²) of each positive, (P,)."""
    return BOX_WEIGHT * (1 - iou(boxes_P4, target_boxes_P4).square())
