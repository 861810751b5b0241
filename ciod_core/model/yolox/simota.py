"""SimOTA: the assignment of anchor points to objects in YOLOX (§2.1; arXiv 2103.14259).

Legend: B images, A anchor points, C classes, N objects of the batch, G objects of an image, K candidates of an image,
P positives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ciod_core.model.base import ABSENT_LOGIT, Assignment, Targets
from ciod_core.model.common.boxes import pairwise_iou
from ciod_core.model.yolox.predictions import YoloxPredictions
from ciod_core.runtime.device import as_float64

OUTSIDE_COST = 1e8


@torch.no_grad()
def assign(
    predictions: YoloxPredictions,
    objects: Targets,
    *,
    center_radius: float = 2.5,
    center_alone: bool = False,
    num_top_ious: int = 10,
    iou_cost: float = 3.0,
) -> Assignment:
    """Give every object its cheapest anchor points, every anchor point at most one object.

    An anchor point is a candidate when it lies in any box of its image or within `center_radius` strides of any box's
    center (`center_alone`: only if it does the latter), but never for an object whose class it cannot predict. An
    object takes k of them, k = the sum of its `num_top_ious` best IoUs, at least 1, at the lowest cost: BCE of
    sqrt(class · objectness) against its one-hot class, plus `iou_cost` · (−log IoU), plus 1e8 where the point is not
    in both its box and its center region (`center_alone`: not in the region). An anchor point taken twice goes to the
    cheapest object of its image; on equal cost the first one wins.
    """
    parts = []
    for image in range(len(predictions.boxes_BA4)):
        object_G = (objects.image_N == image).nonzero().squeeze(1)
        if not len(object_G):
            continue
        boxes_G4, labels_G = objects.boxes_N4[object_G], objects.labels_N[object_G]
        inside_either_GA, inside_both_GA = _geometry(predictions, boxes_G4, center_radius, center_alone)
        anchor_K = inside_either_GA.any(dim=0).nonzero().squeeze(1)
        class_logits_KC = predictions.class_logits_BAC[image].index_select(0, anchor_K)
        can_predict_GK = class_logits_KC[:, labels_G].T > ABSENT_LOGIT
        iou_GK = pairwise_iou(boxes_G4, predictions.boxes_BA4[image, anchor_K]) * can_predict_GK
        objectness_K = predictions.objectness_logits_BA[image, anchor_K].sigmoid()
        # In float64 so that adding 1e8 does not round the other terms away.
        cost_GK = as_float64(_class_cost(class_logits_KC, objectness_K, labels_G) - iou_cost * (iou_GK + 1e-8).log())
        cost_GK += OUTSIDE_COST * ~inside_both_GA[:, anchor_K]
        cost_GK[~can_predict_GK] = torch.inf

        index_K = _choose(cost_GK, iou_GK, num_top_ious)
        chosen_P = (index_K >= 0).nonzero().squeeze(1)
        index_P = index_K[chosen_P]
        parts.append(
            Assignment(
                torch.full_like(chosen_P, image), anchor_K[chosen_P], object_G[index_P], iou_GK[index_P, chosen_P]
            )
        )
    if not parts:
        none = objects.labels_N.new_zeros(0)
        return Assignment(none, none, none, predictions.boxes_BA4.new_zeros(0))
    return Assignment(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def _geometry(
    predictions: YoloxPredictions, boxes_G4: Tensor, center_radius: float, center_alone: bool
) -> tuple[Tensor, Tensor]:
    """(G, A) masks: anchor point in the box or in its center region; in both. Points carry the half-stride offset.

    With `center_alone` the box does not count, and both are the center region.
    """
    x_A, y_A = (predictions.points_A2 + predictions.strides_A.unsqueeze(1) / 2).unbind(1)
    left, top, right, bottom = boxes_G4.unsqueeze(2).unbind(1)
    in_box = (x_A > left) & (x_A < right) & (y_A > top) & (y_A < bottom)
    reach_A = center_radius * predictions.strides_A
    in_center = ((x_A - (left + right) / 2).abs() < reach_A) & ((y_A - (top + bottom) / 2).abs() < reach_A)
    return (in_center, in_center) if center_alone else (in_box | in_center, in_box & in_center)


def _class_cost(class_logits_KC: Tensor, objectness_K: Tensor, labels_G: Tensor) -> Tensor:
    """(G, K) BCE of sqrt(class · objectness) against each object's one-hot class, summed over classes.

    It differs between objects in one class only: every class counts as wrong first, then the object's own is corrected.
    """
    scores_KC = (class_logits_KC.sigmoid() * objectness_K.unsqueeze(1)).sqrt()
    own_GK = scores_KC[:, labels_G].T
    all_wrong_K = -_log(1 - scores_KC).sum(dim=1)
    return all_wrong_K + _log(1 - own_GK) - _log(own_GK)


def _log(score: Tensor) -> Tensor:
    """With the clamp of torch's binary_cross_entropy: a saturated score costs 100, not infinity."""
    return score.log().clamp(min=-100)


def _choose(cost_GK: Tensor, iou_GK: Tensor, num_top_ious: int) -> Tensor:
    """(K,) index of the object that each candidate is assigned to, −1 for none."""
    num_top = min(num_top_ious, iou_GK.shape[1])
    dynamic_k_G1 = iou_GK.topk(num_top, dim=1).values.sum(dim=1, keepdim=True).int().clamp(min=1)
    cheapest = cost_GK.topk(num_top, dim=1, largest=False)
    is_taken = (torch.arange(num_top, device=cost_GK.device) < dynamic_k_G1) & cheapest.values.isfinite()
    taken_GK = torch.zeros_like(cost_GK, dtype=torch.bool).scatter_(1, cheapest.indices, is_taken)
    count_K = taken_GK.sum(dim=0)
    index_K = torch.where(count_K > 1, cost_GK.argmin(dim=0), taken_GK.int().argmax(dim=0))
    return torch.where(count_K > 0, index_K, -1)
