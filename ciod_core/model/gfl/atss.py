"""ATSS: adaptive training sample selection (arXiv 1912.02424), the assignment of anchor points to objects in GFL.

Legend: B images, A anchor points, N objects of the batch, K candidates of each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ciod_core.model.base import ABSENT_LOGIT, Assignment, Targets
from ciod_core.model.common.boxes import pairwise_iou
from ciod_core.model.common.per_image import assignment_of, cheapest_of_image
from ciod_core.model.common.point_predictions import PointPredictions

NUM_CANDIDATES = 9
# Side of the square that stands for an anchor point, in strides.
ANCHOR_SIDE = 8
# A positive lies inside its object by at least this many pixels.
INSIDE = 0.01


@torch.no_grad()
def assign(predictions: PointPredictions, objects: Targets) -> Assignment:
    """Give every object the anchor points that suit it better than most, every anchor point at most one object.

    Candidates of an object are, on each pyramid level, the `NUM_CANDIDATES` anchor points next to its center. Those
    are positive that lie in the object and whose anchor overlaps it by at least mean + deviation of its candidates.
    An anchor point taken twice goes to the object that its anchor overlaps more. An object is assigned to the head that
    predicts its class; where none does, to nothing.
    """
    image_N, boxes_N4 = objects.image_N, objects.boxes_N4
    if not len(boxes_N4):
        return assignment_of(image_N.new_full(predictions.boxes_BA4.shape[:2], -1), objects, predictions)
    half_A1 = predictions.strides_A.unsqueeze(1) * (ANCHOR_SIDE / 2)
    anchors_A4 = torch.cat((predictions.points_A2 - half_A1, predictions.points_A2 + half_A1), dim=1)
    can_take_NA = predictions.class_logits_BAC[image_N, :, objects.labels_N] > ABSENT_LOGIT
    centers_N2 = (boxes_N4[:, :2] + boxes_N4[:, 2:]) / 2
    distance_NA = torch.cdist(centers_N2, predictions.points_A2, compute_mode="donot_use_mm_for_euclid_dist")
    candidate_NK = _nearest(distance_NA.masked_fill(~can_take_NA, torch.inf), predictions)
    overlap_NA = pairwise_iou(boxes_N4, anchors_A4)
    positive_NA = _positives(overlap_NA, candidate_NK, boxes_N4, predictions.points_A2) & can_take_NA
    cost_NA = torch.where(positive_NA, -overlap_NA, torch.inf)
    object_BA = cheapest_of_image(cost_NA, image_N, len(predictions.boxes_BA4))
    return assignment_of(object_BA, objects, predictions)


def _nearest(distance_NA: Tensor, predictions: PointPredictions) -> Tensor:
    """(N, K) the nearest anchor points of every level, as many as one head has there at most."""
    _, sizes = predictions.strides_A.unique(return_counts=True)
    levels = predictions.strides_A.argsort(stable=True).split(sizes.tolist())
    counts = [min(NUM_CANDIDATES, len(level) // predictions.num_heads) for level in levels]
    return torch.cat(
        [
            level[distance_NA[:, level].topk(count, dim=1, largest=False).indices]
            for level, count in zip(levels, counts, strict=True)
        ],
        dim=1,
    )


def _positives(overlap_NA: Tensor, candidate_NK: Tensor, boxes_N4: Tensor, points_A2: Tensor) -> Tensor:
    """(N, A) mask of the candidates in the object that overlap it enough."""
    overlap_NK = overlap_NA.gather(1, candidate_NK)
    threshold_N1 = overlap_NK.mean(dim=1, keepdim=True) + overlap_NK.std(dim=1, keepdim=True)
    points_NK2 = points_A2[candidate_NK]
    margins_NK4 = torch.cat((points_NK2 - boxes_N4[:, None, :2], boxes_N4[:, None, 2:] - points_NK2), dim=2)
    positive_NK = (overlap_NK >= threshold_N1) & (margins_NK4.amin(dim=2) > INSIDE)
    return torch.zeros_like(overlap_NA, dtype=torch.bool).scatter_(1, candidate_NK, positive_NK)
