"""Response distillation: match student and teacher at chosen anchor points.

Legend: B images, A anchor points, K kept boxes or anchor points, C old classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from ciod_core.model.base import Predictions
from ciod_core.model.common.losses import normalizer
from ciod_core.model.knowledge import Knowledge


def class_logits_at(student: Predictions, knowledge: Knowledge) -> Tensor:
    """(K, C) the student's logits of the old classes at the anchor points of the kept boxes."""
    return student.class_logits_at(knowledge.image_K, knowledge.anchor_K)[:, : knowledge.num_classes]


def boxes_at(student: Predictions, knowledge: Knowledge) -> Tensor:
    """(K, 4) the student's boxes at the anchor points of the kept boxes."""
    return student.boxes_BA4[knowledge.image_K, knowledge.anchor_K]


def squared_class_error(student: Predictions, teacher: Predictions, kept_BA: Tensor) -> Tensor:
    """Squared difference of the logits of old classes, the mean over classes and kept anchor points.

    The teacher's logits get no gradient.
    """
    image_K, anchor_K = kept_BA.nonzero(as_tuple=True)
    theirs_KC = teacher.class_logits_at(image_K, anchor_K).detach()
    ours_KC = student.class_logits_at(image_K, anchor_K)[:, : theirs_KC.shape[1]]
    return (ours_KC - theirs_KC).square().mean(dim=1).sum() / normalizer(kept_BA)


def bernoulli_divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL divergence of the student's probability from the teacher's, logit by logit; 0 where they agree.

    The teacher's logits get no gradient.
    """
    teacher_logits = teacher_logits.detach()
    target = teacher_logits.sigmoid()
    return bce(student_logits, target, reduction="none") - bce(teacher_logits, target, reduction="none")
