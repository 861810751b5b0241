"""The base of methods that match a teacher's responses: LwF, RILOD, SID and ERD.

The detectors they were published for classify every anchor point and have no objectness, their losses are of another
size, and labels of new classes never act on outputs of old ones. What that does for them is supplied here, the same for
all, where a family does not have it.

Legend: B images, A anchor points, N labeled objects, C new classes.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ciod_core.methods.base import Method
from ciod_core.model.base import Assignment, Detector, Losses, Predictions, Targets
from ciod_core.model.common.boxes import iou
from ciod_core.model.common.losses import normalizer
from ciod_core.model.common.per_image import count_of_image
from ciod_core.model.knowledge import Knowledge
from ciod_core.resampler.rules import best_class


class OldObjects(NamedTuple):
    """Where a teacher detects old objects of a batch.

    Attributes:
        knowledge: one box for each: selected, after NMS, reconciled with the labels.
        trusted_BA: mask of the anchor points at which the teacher does not contradict a label.
        num_positives: what the detector's losses are divided by, a scalar.
    """

    knowledge: Knowledge
    trusted_BA: Tensor
    num_positives: Tensor


class MatchingMethod(Method):
    """Labels teach new classes and boxes; the teacher teaches the outputs of old classes, and where there is an object.

    - Where neither a label nor a positive is, the target presence is the teacher's, not 0.
    - Where the teacher detects an old object, no new class is.
    - Where the teacher's box overlaps a label of another class (`resampler.ground_truth_iou`), the teacher is wrong and
      teaches nothing.

    The knowledge of a batch is what the resampler selects; subclasses match at the anchor points of their own choice.
    """

    needs = frozenset({"selected", "dense"})

    @abstractmethod
    def match(self, student: Predictions, teacher: Predictions, old: OldObjects) -> Losses:
        """The method's own losses.

        Args:
            student, teacher: predictions of the batch, with features where the method needs them.
            old: where the teacher detects old objects.
        """

    def losses(
        self,
        detector: Detector,
        student: Predictions,
        objects: Targets,
        knowledge: Knowledge,
        ignored_BA: Tensor | None = None,
    ) -> Losses:
        """The labels' losses over new classes, `new absent` at old objects, and the method's own."""
        teacher = knowledge.dense
        assert teacher is not None
        trusted_BA = trusted_points(teacher, objects, self.resampler.ground_truth_iou)
        assignment = detector.assign(student, objects)
        num_positives = normalizer(assignment.object_P >= 0)
        losses = detector.losses(
            student,
            objects,
            assignment,
            first_class=knowledge.num_classes,
            ignored_BA=ignored_BA,
            background=teacher,
            background_mask_BA=trusted_BA,
        )
        if not detector.classifies_background:
            losses["new absent"] = absence_loss(student, teacher, assignment, trusted_BA) / num_positives
        return losses | self.match(student, teacher, OldObjects(knowledge, trusted_BA, num_positives))


@torch.no_grad()
def trusted_points(teacher: Predictions, objects: Targets, iou_threshold: float) -> Tensor:
    """(B, A) mask of the anchor points whose box, as the teacher sees it, overlaps no label of another class.

    Args:
        teacher: its predictions.
        objects: the labels; where one has the teacher's class, both agree.
        iou_threshold: IoU from which boxes are of the same object; from 1 on the teacher is trusted everywhere.
    """
    label_BA = best_class(teacher).label_BA
    if iou_threshold >= 1:
        return torch.ones_like(label_BA, dtype=torch.bool)
    iou_NA = iou(teacher.boxes_BA4[objects.image_N], objects.boxes_N4.unsqueeze(1))
    differs_NA = label_BA[objects.image_N] != objects.labels_N.unsqueeze(1)
    wrong_NA = (iou_NA >= iou_threshold) & differs_NA
    return count_of_image(wrong_NA, objects.image_N, len(label_BA)) == 0


def absence_loss(student: Predictions, teacher: Predictions, assignment: Assignment, trusted_BA: Tensor) -> Tensor:
    """BCE of the new classes against 0, weighted by the teacher's score for its best class, summed.

    Positives have targets of their own and take no part, nor do points at which the teacher is not trusted.
    """
    weight_BA = best_class(teacher).score_BA * trusted_BA
    weight_BA[assignment.image_P, assignment.anchor_P] = 0.0
    new_logits_BAC = student.class_logits_BAC[..., teacher.class_logits_BAC.shape[2] :]
    # softplus(z) is the cross-entropy of z with a target of 0.
    loss_BA = softplus(new_logits_BAC).sum(dim=2)
    return (weight_BA * loss_BA).sum()
