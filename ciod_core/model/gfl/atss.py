"""ATSS: adaptive training sample selection (arXiv 1912.02424), the assignment of anchor points to objects in GFL.

Legend: B images, A anchor points, N objects of the batch, G objects of an image, K candidates of each, P positives.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ciod_core.model.base import ABSENT_LOGIT, Assignment, Targets
from ciod_core.model.common.boxes import iou, pairwise_iou
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
    levels = [(predictions.strides_A == stride).nonzero().squeeze(1) for stride in predictions.strides_A.unique()]
    counts = [min(NUM_CANDIDATES, len(level) // predictions.num_heads) for level in levels]
    half_A1 = predictions.strides_A.unsqueeze(1) * (ANCHOR_SIDE / 2)
    anchors_A4 = torch.cat((predictions.points_A2 - half_A1, predictions.points_A2 + half_A1), dim=1)
    parts = []
    for image, boxes_A4 in enumerate(predictions.boxes_BA4):
        object_G = (objects.image_N == image).nonzero().squeeze(1)
        can_predict_GA = predictions.class_logits_BAC[image][:, objects.labels_N[object_G]].T > ABSENT_LOGIT
        predicted_G = can_predict_GA.any(dim=1)
        object_G, can_predict_GA = object_G[predicted_G], can_predict_GA[predicted_G]
        if not len(object_G):
            continue
        boxes_G4 = objects.boxes_N4[object_G]
        centers_G2 = (boxes_G4[:, :2] + boxes_G4[:, 2:]) / 2
        distance_GA = torch.cdist(centers_G2, predictions.points_A2, compute_mode="donot_use_mm_for_euclid_dist")
        candidate_GK = _nearest(distance_GA.masked_fill(~can_predict_GA, torch.inf), levels, counts)
        overlap_GA = _overlaps_of_positives(boxes_G4, anchors_A4, predictions.points_A2, candidate_GK)
        best_A, index_A = overlap_GA.max(dim=0)
        anchor_P = (best_A >= 0).nonzero().squeeze(1)
        index_P = index_A[anchor_P]
        iou_P = iou(boxes_G4[index_P], boxes_A4[anchor_P])
        parts.append(Assignment(torch.full_like(anchor_P, image), anchor_P, object_G[index_P], iou_P))
    if not parts:
        none = objects.labels_N.new_zeros(0)
        return Assignment(none, none, none, predictions.boxes_BA4.new_zeros(0))
    return Assignment(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def _nearest(distance_GA: Tensor, levels: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    """(G, K) the nearest anchor points of every level, as many as its count."""
    return torch.cat(
        [
            level[distance_GA[:, level].topk(count, dim=1, largest=False).indices]
            for level, count in zip(levels, counts, strict=True)
        ],
        dim=1,
    )


def _overlaps_of_positives(boxes_G4: Tensor, anchors_A4: Tensor, points_A2: Tensor, candidate_GK: Tensor) -> Tensor:
    """(G, A) IoU of an object's positives with their anchors, −1 elsewhere."""
    overlap_GA = pairwise_iou(boxes_G4, anchors_A4)
    overlap_GK = overlap_GA.gather(1, candidate_GK)
    threshold_G1 = overlap_GK.mean(dim=1, keepdim=True) + overlap_GK.std(dim=1, keepdim=True)
    points_GK2 = points_A2[candidate_GK]
    margins_GK4 = torch.cat((points_GK2 - boxes_G4[:, None, :2], boxes_G4[:, None, 2:] - points_GK2), dim=2)
    positive_GK = (overlap_GK >= threshold_G1) & (margins_GK4.amin(dim=2) > INSIDE)
    return torch.full_like(overlap_GA, -1.0).scatter_(1, candidate_GK, torch.where(positive_GK, overlap_GK, -1.0))
