"""The detection loss, in the parts that methods put together (YOLOX; sums, to be divided by a normaliser).

Legend: B images, A anchor points, C classes, P positives.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import softplus

from ciod_core.model.boxes import iou

BOX_WEIGHT = 5.0


def objectness_loss(
    obj_logits_BA: Tensor,
    image_P: Tensor,
    anchor_P: Tensor,
    target_P: Tensor,
    *,
    background_BA: Tensor | None = None,
    ignored_BA: Tensor | None = None,
) -> Tensor:
    """BCE of every anchor point's objectness, summed.

    Args:
        target_P: targets of the positives.
        background_BA: targets of all other anchor points; None: 0.
        ignored_BA: mask of anchor points that are left out unless they are positives; None: none are.
    """
    target_BA = torch.zeros_like(obj_logits_BA) if background_BA is None else background_BA.clone()
    target_BA[image_P, anchor_P] = target_P
    if ignored_BA is None:
        return bce(obj_logits_BA, target_BA, reduction="sum")
    counted_BA = (~ignored_BA).to(obj_logits_BA.dtype)
    counted_BA[image_P, anchor_P] = 1.0
    return bce(obj_logits_BA, target_BA, weight=counted_BA, reduction="sum")


def summed_bce(logits_PC: Tensor, target_PD: Tensor) -> Tensor:
    """(P,) BCE summed over classes; classes behind the last target have target 0.

    BCE of a logit z against y is softplus(z) − y·z. Summed like that it is cheap where classes are many: at most one
    pass over them is more than a product.
    """
    return softplus(logits_PC).sum(dim=1) - (logits_PC[:, : target_PD.shape[1]] * target_PD).sum(dim=1)


def class_loss(cls_logits_PC: Tensor, labels_P: Tensor, iou_P: Tensor, *, first_class: int = 0) -> Tensor:
    """BCE of the class logits against the one-hot label × IoU, summed over positives and classes.

    Classes before `first_class` are left out.
    """
    own_logit_P = cls_logits_PC.gather(1, labels_P.unsqueeze(1)).squeeze(1)
    return softplus(cls_logits_PC[:, first_class:]).sum() - (iou_P * own_logit_P * (labels_P >= first_class)).sum()


def box_loss(boxes_P4: Tensor, target_boxes_P4: Tensor) -> Tensor:
    """5 · (1 − IoU²) of each positive, (P,)."""
    return BOX_WEIGHT * (1 - iou(boxes_P4, target_boxes_P4).square())
