"""Knowledge transfer: collaborative distillation (CKD) on the positives of old objects.

Each positive takes its targets from the teacher answer whose box it was assigned to. One teacher answer feeds
many student anchor points, at other positions than its own.

Legend: P positives of old objects, C old classes, D all the student's classes.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ciod_core.model.boxes import giou
from ciod_core.model.losses import box_loss, summed_bce

Weighting = Literal["paper", "balanced", "none"]
TargetKind = Literal["soft", "hybrid", "margin-weighted", "hard"]

# Far below any error worth weighing, far above what float32 rounds away: two perfect answers weigh 1 : 1, not 0/0.
WEIGHT_FLOOR = 1e-6


class TransferLosses(NamedTuple):
    """Sums over positives: class and location part."""

    class_sum: Tensor
    location_sum: Tensor


def class_targets(teacher_logits_PC: Tensor, kind: TargetKind) -> Tensor:
    """Targets in 0..1 over the old classes, (P, C).

    `soft` and `margin-weighted`: the teacher's probabilities. `hybrid`: the same with the largest set to 1.
    `hard`: one-hot.
    """
    probability_PC = teacher_logits_PC.sigmoid()
    if kind in ("soft", "margin-weighted"):
        return probability_PC
    best_PC = one_hot(teacher_logits_PC.argmax(dim=1), teacher_logits_PC.shape[1])
    return torch.maximum(probability_PC, best_PC) if kind == "hybrid" else best_PC.to(probability_PC.dtype)


@torch.no_grad()
def collaborative_weights(
    student_logits_PC: Tensor,
    student_boxes_P4: Tensor,
    teacher_logits_PC: Tensor,
    teacher_boxes_P4: Tensor,
    weighting: Weighting,
) -> tuple[Tensor, Tensor]:
    """Weights of the class and the location part of each positive, (P,) each, summing to 2.

    The part in which the student is further from the teacher gets the larger weight. `paper`: class error is the
    summed BCE, which contains the teacher's entropy and grows with the number of classes, so that it outweighs
    location nearly always. `balanced`: class error is the mean over classes of KL = BCE − entropy, which vanishes
    when the student agrees. Location error is 1 − GIoU in both. Weights never carry gradient.
    """
    if weighting == "none":
        ones_P = student_logits_PC.new_ones(len(student_logits_PC))
        return ones_P, ones_P
    probability_PC = teacher_logits_PC.sigmoid()
    class_error_P = summed_bce(student_logits_PC, probability_PC)
    if weighting == "balanced":
        entropy_P = summed_bce(teacher_logits_PC, probability_PC)
        class_error_P = (class_error_P - entropy_P).clamp(min=0) / student_logits_PC.shape[1]
    location_error_P = 1 - giou(student_boxes_P4, teacher_boxes_P4)
    class_error_P, location_error_P = class_error_P + WEIGHT_FLOOR, location_error_P + WEIGHT_FLOOR
    total_P = class_error_P + location_error_P
    return 2 * class_error_P / total_P, 2 * location_error_P / total_P


def collaborative_distillation(
    student_logits_PD: Tensor,
    student_boxes_P4: Tensor,
    teacher_logits_PC: Tensor,
    teacher_boxes_P4: Tensor,
    *,
    weighting: Weighting,
    target: TargetKind,
) -> TransferLosses:
    """CKD's soft losses, summed over positives; the caller divides by their number.

    Class: w_cls · BCE(student, target) summed over classes. An old object is none of the new classes, so their
    target is 0. Location: 5 · w_loc · (1 − IoU²) to the teacher's box.
    `margin-weighted` replaces w_cls by (1 − the teacher's best score)².
    """
    num_old = teacher_logits_PC.shape[1]
    class_weight_P, location_weight_P = collaborative_weights(
        student_logits_PD[:, :num_old], student_boxes_P4, teacher_logits_PC, teacher_boxes_P4, weighting
    )
    if target == "margin-weighted":
        class_weight_P = (1 - teacher_logits_PC.sigmoid().amax(dim=1)).square()
    class_P = summed_bce(student_logits_PD, class_targets(teacher_logits_PC, target))
    location_P = box_loss(student_boxes_P4, teacher_boxes_P4)
    return TransferLosses((class_weight_P * class_P).sum(), (location_weight_P * location_P).sum())
