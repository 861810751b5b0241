"""SimOTA: the assignment of anchor points to objects in YOLOX (§2.1; arXiv 2103.14259).

Legend: B images, A anchor points, C classes, N objects of the batch, K candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ciod_core.model.base import ABSENT_LOGIT, Assignment, Targets
from ciod_core.model.common.boxes import iou
from ciod_core.model.common.per_image import assignment_of, cheapest_of_image, count_of_image
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
    image_N, num_images = objects.image_N, len(predictions.boxes_BA4)
    inside_either_NA, inside_both_NA = _geometry(predictions, objects.boxes_N4, center_radius, center_alone)
    candidate_BA = count_of_image(inside_either_NA, image_N, num_images) > 0
    own_logits_NA = predictions.class_logits_BAC[image_N, :, objects.labels_N]
    can_take_NA = candidate_BA[image_N] & (own_logits_NA > ABSENT_LOGIT)
    iou_NA = iou(objects.boxes_N4.unsqueeze(1), predictions.boxes_BA4[image_N]) * can_take_NA
    class_cost_NA = _class_cost(predictions, candidate_BA, own_logits_NA, image_N)
    # In float64 so that adding 1e8 does not round the other terms away.
    cost_NA = as_float64(class_cost_NA - iou_cost * (iou_NA + 1e-8).log())
    cost_NA += OUTSIDE_COST * ~inside_both_NA
    cost_NA.masked_fill_(~can_take_NA, torch.inf)

    taken_NA = _take(cost_NA, iou_NA, num_top_ious)
    taken_twice_BA = count_of_image(taken_NA, image_N, num_images) > 1
    cost_NA.masked_fill_(~(taken_NA | taken_twice_BA[image_N]), torch.inf)
    return assignment_of(cheapest_of_image(cost_NA, image_N, num_images), objects, predictions)


def _geometry(
    predictions: YoloxPredictions, boxes_N4: Tensor, center_radius: float, center_alone: bool
) -> tuple[Tensor, Tensor]:
    """(N, A) masks: anchor point in the box or in its center region; in both. Points carry the half-stride offset.

    With `center_alone` the box does not count, and both are the center region.
    """
    x_A, y_A = (predictions.points_A2 + predictions.strides_A.unsqueeze(1) / 2).unbind(1)
    left, top, right, bottom = boxes_N4.unsqueeze(2).unbind(1)
    in_box = (x_A > left) & (x_A < right) & (y_A > top) & (y_A < bottom)
    reach_A = center_radius * predictions.strides_A
    in_center = ((x_A - (left + right) / 2).abs() < reach_A) & ((y_A - (top + bottom) / 2).abs() < reach_A)
    return (in_center, in_center) if center_alone else (in_box | in_center, in_box & in_center)


def _class_cost(predictions: YoloxPredictions, candidate_BA: Tensor, own_logits_NA: Tensor, image_N: Tensor) -> Tensor:
    """(N, A) BCE of sqrt(class · objectness) against each object's one-hot class, summed over classes.

    It differs between objects in one class only: every class counts as wrong first, then the object's own is corrected.
    Elsewhere than at candidates it has no meaning.
    """
    objectness_BA = predictions.objectness_logits_BA.sigmoid()
    image_K, anchor_K = candidate_BA.nonzero(as_tuple=True)
    # In place: candidates × classes may be a million numbers, and fresh memory costs more than the arithmetic.
    scores_KC = predictions.class_logits_at(image_K, anchor_K).sigmoid_()
    scores_KC = scores_KC.mul_(objectness_BA[image_K, anchor_K].unsqueeze(1)).sqrt_()
    all_wrong_BA = torch.zeros_like(objectness_BA)
    all_wrong_BA[image_K, anchor_K] = -_log_(scores_KC.neg_().add_(1)).sum(dim=1)
    own_NA = (own_logits_NA.sigmoid() * objectness_BA[image_N]).sqrt()
    return all_wrong_BA[image_N] + _log_(1 - own_NA) - _log_(own_NA)


def _log_(score: Tensor) -> Tensor:
    """In place, with the clamp of torch's binary_cross_entropy: a saturated score costs 100, not infinity."""
    return score.log_().clamp_(min=-100)


def _take(cost_NA: Tensor, iou_NA: Tensor, num_top_ious: int) -> Tensor:
    """(N, A) mask of the anchor points that every object takes, whatever others take."""
    num_top = min(num_top_ious, iou_NA.shape[1])
    dynamic_k_N1 = iou_NA.topk(num_top, dim=1).values.sum(dim=1, keepdim=True).int().clamp(min=1)
    cheapest = cost_NA.topk(num_top, dim=1, largest=False)
    is_taken = (torch.arange(num_top, device=cost_NA.device) < dynamic_k_N1) & cheapest.values.isfinite()
    return torch.zeros_like(cost_NA, dtype=torch.bool).scatter_(1, cheapest.indices, is_taken)
