"""Knowledge selection: which of the frozen teacher's answers are worth teaching.

Center re-sampling (CRS) and the rules it is compared with. All work on a whole batch without looping over
images, classes or anchor points.

Legend: B images, A anchor points, C old classes, K kept answers, Q points to look at, V points that may vouch for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ciod_core.model.boxes import pairwise_iou
from ciod_core.model.knowledge import Knowledge
from ciod_core.model.output import HeadOutput, rows_at
from ciod_core.model.postprocess import grouped_nms

# Rows of the (points × anchor points) overlap matrix held at once: 512 × 8400 floats are 17 MB.
OVERLAP_ROWS = 512


class Answers(NamedTuple):
    """What the teacher says at some anchor points: best class k, its score s, and f = s · the objectness's sigmoid."""

    label: Tensor
    class_score: Tensor
    score: Tensor


class TeacherAnswers:
    """The teacher's answers, anchor point by anchor point.

    Class logits are read where a rule first asks for them, and only once: nothing else of a selection grows with the
    number of classes.

    Attributes:
        output: what the teacher's head says of the batch.
    """

    def __init__(self, output: HeadOutput) -> None:
        self.output = output
        # −1: not read yet.
        self._label_M = torch.full_like(output.obj_logits_BA, -1, dtype=torch.int64).flatten()
        self._best_logit_M = torch.zeros_like(output.obj_logits_BA).flatten()

    def at(self, image_Q: Tensor, point_Q: Tensor) -> Answers:
        """The answers at these anchor points."""
        place_Q = image_Q * self.output.obj_logits_BA.shape[1] + point_Q
        unread_P = place_Q[self._label_M[place_Q] < 0].unique()
        # The largest logit has the largest score: one pass over the classes instead of three.
        rows_PC = self.output.cls_logits_BAC.flatten(0, 1).index_select(0, unread_P)
        self._best_logit_M[unread_P], self._label_M[unread_P] = rows_PC.max(dim=-1)
        obj_logit_Q = self.output.obj_logits_BA[image_Q, point_Q]
        return _answers(self._label_M[place_Q], self._best_logit_M[place_Q], obj_logit_Q)

    def everywhere(self) -> Answers:
        """The answers at all anchor points, (B, A) each, for rules that compare with what is usual in an image."""
        best_logit_BA, label_BA = self.output.cls_logits_BAC.max(dim=-1)
        self._label_M, self._best_logit_M = label_BA.flatten(), best_logit_BA.flatten()
        return _answers(label_BA, best_logit_BA, self.output.obj_logits_BA)


def _answers(label_Q: Tensor, best_logit_Q: Tensor, obj_logit_Q: Tensor) -> Answers:
    class_score_Q = best_logit_Q.sigmoid()
    return Answers(label_Q, class_score_Q, class_score_Q * obj_logit_Q.sigmoid())


SelectionRule = Callable[[TeacherAnswers], Tensor]
"""From the teacher's answers to a (B, A) mask of the anchor points kept before NMS."""


def centre_resampling(*, centre_score: float, other_iou: float, min_score: float) -> SelectionRule:
    """CRS: centres, where s ≥ `centre_score`, and the points of the same class whose box has IoU ≥ `other_iou`
    with a centre's; of both, those with f ≥ `min_score`."""

    def select(teacher: TeacherAnswers) -> Tensor:
        output = teacher.output
        image_Q, point_Q = _promising(output, min_score)
        answers = teacher.at(image_Q, point_Q)
        enough_Q, centre_Q = answers.score >= min_score, answers.class_score >= centre_score
        kept_BA = torch.zeros_like(output.obj_logits_BA, dtype=torch.bool)
        kept_BA[image_Q, point_Q] = enough_Q & centre_Q
        # The others need a centre that vouches for them: few, even at COCO's size.
        for other_Q in (enough_Q & ~centre_Q).nonzero().squeeze(1).split(OVERLAP_ROWS):
            image, point, label = image_Q[other_Q], point_Q[other_Q], answers.label[other_Q]
            iou_QA = pairwise_iou(output.boxes_BA4[image, point].unsqueeze(1), output.boxes_BA4[image]).squeeze(1)
            # Only boxes that are near enough are asked for their class; a centre's objectness does not matter.
            row_V, point_V = (iou_QA >= other_iou).nonzero(as_tuple=True)
            vouching = teacher.at(image[row_V], point_V)
            vouches_V = (vouching.class_score >= centre_score) & (vouching.label == label[row_V])
            kept_BA[image[row_V[vouches_V]], point[row_V[vouches_V]]] = True
        return kept_BA

    return select


def fixed_threshold(score: float) -> SelectionRule:
    """Points with f ≥ `score`."""

    def select(teacher: TeacherAnswers) -> Tensor:
        image_Q, point_Q = _promising(teacher.output, score)
        kept_BA = torch.zeros_like(teacher.output.obj_logits_BA, dtype=torch.bool)
        kept_BA[image_Q, point_Q] = teacher.at(image_Q, point_Q).score >= score
        return kept_BA

    return select


def _promising(output: HeadOutput, score: float) -> tuple[Tensor, Tensor]:
    """Image and anchor point wherever f can reach `score`: f never exceeds the objectness, which needs no class."""
    image_Q, point_Q = (output.obj_logits_BA.sigmoid() >= score).nonzero(as_tuple=True)
    return image_Q, point_Q


def class_statistics(*, num_std: float, fixed_score: float) -> SelectionRule:
    """Points with f ≥ mean + `num_std` · std of f over the points of the same image and class.

    A class that fewer than two points of the image name has no spread and uses `fixed_score`.
    """

    def select(teacher: TeacherAnswers) -> Tensor:
        label_BA, _, score_BA = teacher.everywhere()
        num_images, _, num_classes = teacher.output.cls_logits_BAC.shape
        images_B1 = torch.arange(num_images, device=label_BA.device).unsqueeze(1)
        group = (images_B1 * num_classes + label_BA).flatten()
        score = score_BA.flatten().double()
        num_groups = num_images * num_classes
        count = torch.bincount(group, minlength=num_groups)
        mean = score.new_zeros(num_groups).index_add_(0, group, score) / count.clamp(min=1)
        deviation = (score - mean[group]).square()
        variance = score.new_zeros(num_groups).index_add_(0, group, deviation) / (count - 1).clamp(min=1)
        threshold = torch.where(count >= 2, mean + num_std * variance.sqrt(), fixed_score)
        return (score >= threshold[group]).view_as(score_BA)

    return select


def global_statistics(*, num_std: float) -> SelectionRule:
    """Points with f ≥ mean + `num_std` · std of f over all points of the image."""

    def select(teacher: TeacherAnswers) -> Tensor:
        score = teacher.everywhere().score.double()
        return score >= _outlier_bound(score, num_std)

    return select


def elastic_class_response(*, num_std: float) -> SelectionRule:
    """Points with s > mean + `num_std` · std of s over all points of the image (ERD's class anchors A)."""

    def select(teacher: TeacherAnswers) -> Tensor:
        score = teacher.everywhere().class_score.double()
        return score > _outlier_bound(score, num_std)

    return select


def elastic_location_response(*, num_std: float) -> SelectionRule:
    """Points whose objectness logit exceeds mean + `num_std` · std over all points of the image (ERD's box anchors B).

    ERD reads how sure a location is off the distribution of its edges; here objectness was trained to say it.
    """

    def select(teacher: TeacherAnswers) -> Tensor:
        logit = teacher.output.obj_logits_BA.double()
        return logit > _outlier_bound(logit, num_std)

    return select


def every_point() -> SelectionRule:
    """All anchor points."""
    return lambda teacher: torch.ones_like(teacher.output.obj_logits_BA, dtype=torch.bool)


def thinned(boxes_K4: Tensor, score_K: Tensor, group_K: Tensor, nms_iou: float) -> Tensor:
    """Indices of the answers that survive NMS within each group, in the order they had, so that ties later on do not
    depend on scores."""
    return grouped_nms(boxes_K4, score_K, group_K, nms_iou).sort().values


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
    teacher_answers = TeacherAnswers(teacher)
    image_K, point_K = rule(teacher_answers).nonzero(as_tuple=True)
    answers = teacher_answers.at(image_K, point_K)
    if nms_iou is not None:
        group_K = image_K * teacher.cls_logits_BAC.shape[2] + answers.label
        survivors = thinned(teacher.boxes_BA4[image_K, point_K], answers.score, group_K, nms_iou)
        image_K, point_K = image_K[survivors], point_K[survivors]
        answers = Answers(*(field[survivors] for field in answers))
    return Knowledge(
        boxes_K4=teacher.boxes_BA4[image_K, point_K],
        labels_K=answers.label,
        class_logits_KC=rows_at(teacher.cls_logits_BAC, image_K, point_K),
        obj_logits_K=teacher.obj_logits_BA[image_K, point_K],
        scores_K=answers.score,
        image_K=image_K,
        anchor_K=point_K,
    )
