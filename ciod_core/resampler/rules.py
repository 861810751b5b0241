"""Selection rules: which of a teacher's anchor points are kept before NMS, as (B, A) masks.

Center re-sampling (CRS), the rules it is compared with, and ERD's. With s the score of an anchor point's best class and
f = s · objectness its detection score.

Legend: B images, A anchor points, C old classes, Q anchor points to look at.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ciod_core.model.base import Predictions
from ciod_core.model.common.boxes import pairwise_iou
from ciod_core.runtime.device import as_float64

# Rows of the (points × anchor points) overlap matrix held at once: 512 × 8400 floats are 17 MB.
OVERLAP_ROWS = 512


class BestClass(NamedTuple):
    """The best class of every anchor point: its label, s and f."""

    label_BA: Tensor
    class_score_BA: Tensor
    score_BA: Tensor


def best_class(teacher: Predictions) -> BestClass:
    """Best class, s and f of every anchor point."""
    # The largest logit has the largest score: one sigmoid per anchor point is enough.
    best_logit_BA, label_BA = teacher.class_logits_BAC.max(dim=-1)
    class_score_BA = best_logit_BA.sigmoid()
    return BestClass(label_BA, class_score_BA, class_score_BA * teacher.objectness())


def center_resampling(teacher: Predictions, *, center_score: float, other_iou: float, min_score: float) -> Tensor:
    """CRS: centers, where s ≥ `center_score`, and the anchor points of the same class whose box has IoU ≥ `other_iou`
    with a center's; of both, those with f ≥ `min_score`."""
    label_BA, class_score_BA, score_BA = best_class(teacher)
    enough_BA, center_BA = score_BA >= min_score, class_score_BA >= center_score
    kept_BA = enough_BA & center_BA
    image_Q, anchor_Q = (enough_BA & ~center_BA).nonzero(as_tuple=True)
    for image, anchor in zip(image_Q.split(OVERLAP_ROWS), anchor_Q.split(OVERLAP_ROWS), strict=True):
        boxes_Q4 = teacher.boxes_BA4[image, anchor]
        iou_QA = pairwise_iou(boxes_Q4.unsqueeze(1), teacher.boxes_BA4[image]).squeeze(1)
        same_class_QA = label_BA[image] == label_BA[image, anchor].unsqueeze(1)
        near_center_QA = (iou_QA >= other_iou) & center_BA[image] & same_class_QA
        kept_BA[image, anchor] = near_center_QA.any(dim=1)
    return kept_BA


def fixed_threshold(teacher: Predictions, score: float) -> Tensor:
    """f ≥ `score`."""
    return best_class(teacher).score_BA >= score


def class_statistics(teacher: Predictions, *, num_std: float, fixed_score: float, min_score: float) -> Tensor:
    """f ≥ mean + `num_std` · std of f over the anchor points of the same image and best class, and f ≥ `min_score`.

    A class that is the best of fewer than two anchor points of the image has no deviation and uses `fixed_score`.
    Without a lowest score, statistics would select the upper tail of an image's background.
    """
    label_BA, _, score_BA = best_class(teacher)
    num_images, _, num_classes = teacher.class_logits_BAC.shape
    images_B1 = torch.arange(num_images, device=label_BA.device).unsqueeze(1)
    group = (images_B1 * num_classes + label_BA).flatten()
    score = as_float64(score_BA.flatten())
    num_groups = num_images * num_classes
    count = torch.bincount(group, minlength=num_groups)
    mean = score.new_zeros(num_groups).index_add_(0, group, score) / count.clamp(min=1)
    deviation = (score - mean[group]).square()
    variance = score.new_zeros(num_groups).index_add_(0, group, deviation) / (count - 1).clamp(min=1)
    threshold = torch.where(count >= 2, mean + num_std * variance.sqrt(), fixed_score)
    return (score >= threshold[group]).view_as(score_BA) & (score_BA >= min_score)


def global_statistics(teacher: Predictions, *, num_std: float, min_score: float) -> Tensor:
    """f ≥ mean + `num_std` · std of f over all anchor points of the image, and f ≥ `min_score`."""
    score_BA = best_class(teacher).score_BA
    outstanding_BA = as_float64(score_BA) >= _outlier_bound(as_float64(score_BA), num_std)
    return outstanding_BA & (score_BA >= min_score)


def elastic_class_response(teacher: Predictions, *, num_std: float) -> Tensor:
    """f > mean + `num_std` · std of f over all anchor points of the image (ERD's class anchors A).

    Not of s, the class score alone: where a family predicts presence apart, the class score of background is untrained.
    """
    score_BA = as_float64(best_class(teacher).score_BA)
    return score_BA > _outlier_bound(score_BA, num_std)


def elastic_location_response(teacher: Predictions, *, num_std: float) -> Tensor:
    """Location confidence > mean + `num_std` · std over all anchor points of the image (ERD's box anchors B).

    ERD takes the confidence of a location from the distribution of its edges; a family without one has another measure.
    """
    confidence_BA = as_float64(teacher.location_confidence())
    return confidence_BA > _outlier_bound(confidence_BA, num_std)


def _outlier_bound(value_BA: Tensor, num_std: float) -> Tensor:
    """(B, 1) mean + `num_std` · std of each image."""
    return value_BA.mean(dim=1, keepdim=True) + num_std * value_BA.std(dim=1, keepdim=True)
