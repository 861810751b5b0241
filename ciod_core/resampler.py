"""Knowledge selection: which of the frozen teacher's answers are worth teaching.

Center re-sampling (CRS) and the rules it is compared with. All work on a whole batch without looping over
images, classes or anchor points.

Legend: B images, A anchor points, C old classes, K kept answers, Q points to look at, V points that may vouch for them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ciod_core.knowledge import Knowledge
from ciod_core.model.boxes import pairwise_iou
from ciod_core.model.output import HeadOutput
from ciod_core.model.postprocess import grouped_nms

# Rows of the (points × anchor points) overlap matrix held at once: 4096 × 8400 floats are 140 MB.
OVERLAP_ROWS = 4096


class TeacherScores:
    """What the rules compare, per anchor point: best class score s, its label k, objectness, f = s · its sigmoid."""

    def __init__(self, teacher: HeadOutput) -> None:
        self.boxes_BA4 = teacher.boxes_BA4
        self.obj_logits_BA = teacher.obj_logits_BA
        # The largest logit has the largest score: one pass over the classes instead of three.
        best_logit_BA, self.label_BA = teacher.cls_logits_BAC.max(dim=-1)
        self.class_score_BA = best_logit_BA.sigmoid()
        self.score_BA = self.class_score_BA * teacher.obj_logits_BA.sigmoid()
        self.num_classes = teacher.cls_logits_BAC.shape[-1]

    @property
    def group_BA(self) -> Tensor:
        """One number per image and class."""
        images_B1 = torch.arange(len(self.label_BA), device=self.label_BA.device).unsqueeze(1)
        return images_B1 * self.num_classes + self.label_BA


SelectionRule = Callable[[TeacherScores], Tensor]
"""From the teacher's scores to a (B, A) mask of the anchor points kept before NMS."""


def centre_resampling(*, centre_score: float, other_iou: float, min_score: float) -> SelectionRule:
    """CRS: centres, where s ≥ `centre_score`, and the points of the same class whose box has IoU ≥ `other_iou`
    with a centre's; of both, those with f ≥ `min_score`."""

    def select(teacher: TeacherScores) -> Tensor:
        kept_BA = teacher.score_BA >= min_score
        centre_BA = teacher.class_score_BA >= centre_score
        # Only points that pass min_score and are no centres themselves need an overlap: few, even at COCO's size.
        image_Q, point_Q = (kept_BA & ~centre_BA).nonzero(as_tuple=True)
        # Only points that are a centre in some image can vouch for another: V columns instead of all anchor points.
        vouching_V = centre_BA.any(dim=0).nonzero().squeeze(1)
        boxes_BV4, label_BV = teacher.boxes_BA4[:, vouching_V], teacher.label_BA[:, vouching_V]
        centre_BV = centre_BA[:, vouching_V]
        for start in range(0, len(image_Q), OVERLAP_ROWS):
            image, point = image_Q[start : start + OVERLAP_ROWS], point_Q[start : start + OVERLAP_ROWS]
            boxes_Q4 = teacher.boxes_BA4[image, point]
            iou_QV = pairwise_iou(boxes_Q4.unsqueeze(1), boxes_BV4[image]).squeeze(1)
            same_class_QV = teacher.label_BA[image, point].unsqueeze(1) == label_BV[image]
            near_QV = (iou_QV >= other_iou) & centre_BV[image] & same_class_QV
            kept_BA[image, point] = near_QV.any(dim=1)
        return kept_BA

    return select


def fixed_threshold(score: float) -> SelectionRule:
    """Points with f ≥ `score`."""
    return lambda teacher: teacher.score_BA >= score


def class_statistics(*, num_std: float, fixed_score: float) -> SelectionRule:
    """Points with f ≥ mean + `num_std` · std of f over the points of the same image and class.

    A class that fewer than two points of the image name has no spread and uses `fixed_score`.
    """

    def select(teacher: TeacherScores) -> Tensor:
        group = teacher.group_BA.flatten()
        score = teacher.score_BA.flatten().double()
        num_groups = len(teacher.label_BA) * teacher.num_classes
        count = torch.bincount(group, minlength=num_groups)
        mean = score.new_zeros(num_groups).index_add_(0, group, score) / count.clamp(min=1)
        deviation = (score - mean[group]).square()
        variance = score.new_zeros(num_groups).index_add_(0, group, deviation) / (count - 1).clamp(min=1)
        threshold = torch.where(count >= 2, mean + num_std * variance.sqrt(), fixed_score)
        return (score >= threshold[group]).view_as(teacher.score_BA)

    return select


def global_statistics(*, num_std: float) -> SelectionRule:
    """Points with f ≥ mean + `num_std` · std of f over all points of the image."""

    def select(teacher: TeacherScores) -> Tensor:
        score = teacher.score_BA.double()
        return score >= _outlier_bound(score, num_std)

    return select


def elastic_class_response(*, num_std: float) -> SelectionRule:
    """Points with s > mean + `num_std` · std of s over all points of the image (ERD's class anchors A)."""

    def select(teacher: TeacherScores) -> Tensor:
        score = teacher.class_score_BA.double()
        return score > _outlier_bound(score, num_std)

    return select


def elastic_location_response(*, num_std: float) -> SelectionRule:
    """Points whose objectness logit exceeds mean + `num_std` · std over all points of the image (ERD's box anchors B).

    ERD reads how sure a location is off the distribution of its edges; here objectness was trained to say it.
    """

    def select(teacher: TeacherScores) -> Tensor:
        logit = teacher.obj_logits_BA.double()
        return logit > _outlier_bound(logit, num_std)

    return select


def every_point() -> SelectionRule:
    """All anchor points."""
    return lambda teacher: torch.ones_like(teacher.score_BA, dtype=torch.bool)


def _outlier_bound(value_BA: Tensor, num_std: float) -> Tensor:
    """(B, 1) mean + `num_std` · std of each image."""
    return value_BA.mean(dim=1, keepdim=True) + num_std * value_BA.std(dim=1, keepdim=True)


@torch.no_grad()
def select_knowledge(teacher: HeadOutput, rule: SelectionRule, *, nms_iou: float | None) -> Knowledge:
    """Apply a rule to the teacher's answers and thin them by class-wise NMS on f.

    Args:
        teacher: the frozen teacher's output for the student's batch; all its classes are old classes.
        rule: which anchor points may be kept.
        nms_iou: 0.95 deliberately leaves clusters of near-duplicates (the re-sampling); 0.65 leaves single boxes;
            None keeps whatever the rule keeps.
    """
    answers = TeacherScores(teacher)
    image_K, point_K = rule(answers).nonzero(as_tuple=True)
    if nms_iou is not None:
        survivors = grouped_nms(
            answers.boxes_BA4[image_K, point_K],
            answers.score_BA[image_K, point_K],
            answers.group_BA[image_K, point_K],
            nms_iou,
        )
        # Back to the order of images and anchor points, so that ties later on do not depend on scores.
        survivors = survivors.sort().values
        image_K, point_K = image_K[survivors], point_K[survivors]
    return Knowledge(
        boxes_K4=teacher.boxes_BA4[image_K, point_K],
        labels_K=answers.label_BA[image_K, point_K],
        class_logits_KC=teacher.cls_logits_BAC[image_K, point_K],
        obj_logits_K=teacher.obj_logits_BA[image_K, point_K],
        scores_K=answers.score_BA[image_K, point_K],
        image_K=image_K,
        anchor_K=point_K,
    )
