"""Response distillation: the student's answers at the anchor points whose answers were kept of the teacher.

The response that names an object is its class logits together with its objectness logit: on a detector with objectness
a class that is remembered under an objectness that is forgotten is never detected.

Legend: K kept answers, C old classes.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from ciod_core.model.knowledge import Knowledge
from ciod_core.model.losses import Losses, normaliser
from ciod_core.model.output import HeadOutput, rows_at


class Responses(NamedTuple):
    """Answers at K anchor points: class logits of the old classes, objectness logits, boxes xyxy in pixels."""

    class_logits_KC: Tensor
    obj_logits_K: Tensor
    boxes_K4: Tensor


def student_responses(student: HeadOutput, knowledge: Knowledge) -> Responses:
    """What the student says where the teacher said what was kept."""
    image_K, anchor_K = knowledge.image_K, knowledge.anchor_K
    num_old = knowledge.class_logits_KC.shape[1]
    return Responses(
        class_logits_KC=rows_at(student.cls_logits_BAC, image_K, anchor_K)[:, :num_old],
        obj_logits_K=student.obj_logits_BA[image_K, anchor_K],
        boxes_K4=student.boxes_BA4[image_K, anchor_K],
    )


def kept_count(knowledge: Knowledge) -> Tensor:
    """Number of kept answers, averaged over processes, at least 1."""
    return normaliser(knowledge.labels_K >= 0)


def squared_error(student: HeadOutput, knowledge: Knowledge, weight: float) -> Losses:
    """Mean squared difference of the class logits (over answers and old classes) and of the objectness logits."""
    responses, count = student_responses(student, knowledge), kept_count(knowledge)
    class_error_K = (responses.class_logits_KC - knowledge.class_logits_KC).square().mean(dim=1)
    objectness_error_K = (responses.obj_logits_K - knowledge.obj_logits_K).square()
    return {
        "old class": weight * class_error_K.sum() / count,
        "old objectness": weight * objectness_error_K.sum() / count,
    }


def bernoulli_divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL divergence of the student's probability from the teacher's, logit by logit; 0 where they agree."""
    target = teacher_logits.sigmoid()
    return bce(student_logits, target, reduction="none") - bce(teacher_logits, target, reduction="none")
