"""Response distillation: match student and teacher logits at selected anchor points.

A class score that is distilled while the objectness beside it is forgotten is never detected; so class logits are
distilled together with all other responses of the family.

Legend: K kept boxes, C old classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from ciod_core.model.base import Losses, Predictions, rows_at
from ciod_core.model.common.losses import normalizer
from ciod_core.model.knowledge import Knowledge


def kept_count(knowledge: Knowledge) -> Tensor:
    """Number of kept boxes, averaged over processes, at least 1."""
    return normalizer(knowledge.labels_K >= 0)


def class_logits_at(student: Predictions, knowledge: Knowledge) -> Tensor:
    """(K, C) the student's logits of the old classes at the anchor points of the kept boxes."""
    return student.class_logits_at(knowledge.image_K, knowledge.anchor_K)[:, : knowledge.num_classes]


def boxes_at(student: Predictions, knowledge: Knowledge) -> Tensor:
    """(K, 4) the student's boxes at the anchor points of the kept boxes."""
    return student.boxes_BA4[knowledge.image_K, knowledge.anchor_K]


def squared_error(student: Predictions, knowledge: Knowledge, weight: float) -> Losses:
    """Mean squared difference over kept boxes, of the class logits (over old classes) and of each other response."""
    count = kept_count(knowledge)
    class_error_K = (class_logits_at(student, knowledge) - knowledge.class_logits_KC).square().mean(dim=1)
    losses = {"old class": weight * class_error_K.sum() / count}
    for name, logits in student.responses().items():
        student_K = rows_at(logits, knowledge.image_K, knowledge.anchor_K)
        losses[f"old {name}"] = weight * (student_K - knowledge.responses[name]).square().sum() / count
    return losses


def bernoulli_divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL divergence of the student's probability from the teacher's, logit by logit; 0 where they agree.

    The teacher's logits get no gradient.
    """
    teacher_logits = teacher_logits.detach()
    target = teacher_logits.sigmoid()
    return bce(student_logits, target, reduction="none") - bce(teacher_logits, target, reduction="none")
