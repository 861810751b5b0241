"""Knowledge transfer: collaborative distillation (CKD) on the positives of old objects.

Each positive takes its targets from the kept teacher box that it was assigned to. One kept box is the source of many
student anchor points, at other positions than its own; what can be computed per kept box is computed there.

Legend: P positives of old objects, K kept teacher boxes, C old classes, D all the student's classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ciod_core.model.common.boxes import giou
from ciod_core.model.common.losses import box_loss, summed_bce

Weighting = Literal["paper", "balanced", "none"]
TargetKind = Literal["soft", "hybrid", "margin-weighted", "hard"]

# Of positives, (P,), from what is predicted and its targets.
PositiveLoss = Callable[[Tensor, Tensor], Tensor]

# Far below any error worth weighing, far above what float32 rounds away: two errors of 0 weigh 1 : 1, not 0/0.
WEIGHT_FLOOR = 1e-6


class TransferLosses(NamedTuple):
    """Sums over positives: class and location part."""

    class_sum: Tensor
    location_sum: Tensor


def class_targets(teacher_logits_KC: Tensor, kind: TargetKind) -> Tensor:
    """Targets in 0..1 over the old classes, (K, C).

    `soft` and `margin-weighted`: the teacher's probabilities. `hybrid`: the same with the largest set to 1.
    `hard`: one-hot.
    """
    probability_KC = teacher_logits_KC.sigmoid()
    if kind in ("soft", "margin-weighted"):
        return probability_KC
    best_KC = one_hot(teacher_logits_KC.argmax(dim=1), teacher_logits_KC.shape[1])
    return torch.maximum(probability_KC, best_KC) if kind == "hybrid" else best_KC.to(probability_KC.dtype)


@torch.no_grad()
def collaborative_weights(
    student_logits_PD: Tensor,
    student_boxes_P4: Tensor,
    teacher_logits_KC: Tensor,
    teacher_boxes_K4: Tensor,
    source_P: Tensor,
    weighting: Weighting,
) -> tuple[Tensor, Tensor]:
    """Weights of the class and the location part of each positive, (P,) each, summing to 2.

    `source_P` is the index of each positive's kept box.
    The part in which the student is further from the teacher gets the larger weight. Class errors are over all the
    student's classes: an old object is none of the new ones. `paper`: class error is the summed BCE, which contains the
    teacher's entropy and grows with the number of classes, so that it outweighs location nearly always. `balanced`:
    class error is the mean over classes of KL = BCE − entropy, which vanishes when the student agrees. Location error
    is 1 − GIoU in both. Weights never carry gradient.
    """
    if weighting == "none":
        ones_P = student_logits_PD.new_ones(len(student_logits_PD))
        return ones_P, ones_P
    probability_KC = teacher_logits_KC.sigmoid()
    class_error_P = summed_bce(student_logits_PD, probability_KC.index_select(0, source_P))
    if weighting == "balanced":
        entropy_K = summed_bce(teacher_logits_KC, probability_KC)
        class_error_P = (class_error_P - entropy_K[source_P]).clamp(min=0) / student_logits_PD.shape[1]
    location_error_P = 1 - giou(student_boxes_P4, teacher_boxes_K4[source_P])
    class_error_P, location_error_P = class_error_P + WEIGHT_FLOOR, location_error_P + WEIGHT_FLOOR
    total_P = class_error_P + location_error_P
    return 2 * class_error_P / total_P, 2 * location_error_P / total_P


def collaborative_distillation(
    student_logits_PD: Tensor,
    student_boxes_P4: Tensor,
    teacher_logits_KC: Tensor,
    teacher_boxes_K4: Tensor,
    source_P: Tensor,
    *,
    weighting: Weighting,
    target: TargetKind,
    class_loss: PositiveLoss = summed_bce,
    location_loss: PositiveLoss = box_loss,
) -> TransferLosses:
    """CKD's soft losses, summed over positives; the caller divides by their number.

    Class: w_cls · loss(student, target). An old object is none of the new classes, so their target is 0. Location:
    w_loc · loss(box, the teacher's box). Both losses are the detector's own, YOLOX's as published: BCE summed over
    classes, and 5 · (1 − IoU²).
    `margin-weighted` replaces w_cls by (1 − the teacher's best score)². `source_P` is the index of each
    positive's kept box.
    """
    class_weight_P, location_weight_P = collaborative_weights(
        student_logits_PD, student_boxes_P4, teacher_logits_KC, teacher_boxes_K4, source_P, weighting
    )
    if target == "margin-weighted":
        class_weight_P = (1 - teacher_logits_KC.sigmoid().amax(dim=1)).square()[source_P]
    target_PC = class_targets(teacher_logits_KC, target).index_select(0, source_P)
    class_P = class_loss(student_logits_PD, target_PC)
    location_P = location_loss(student_boxes_P4, teacher_boxes_K4[source_P])
    return TransferLosses((class_weight_P * class_P).sum(), (location_weight_P * location_P).sum())
