"""CRS + CKD: center re-sampling selects, collaborative distillation transfers. Legend: P positives, K kept answers."""

from __future__ import annotations

import torch
from torch import Tensor

from ciod_core.config import DistillerConfig, ResamplerConfig
from ciod_core.distiller import collaborative_distillation
from ciod_core.knowledge import Knowledge
from ciod_core.methods.base import Lesson, Losses, Method, normaliser
from ciod_core.methods.selection import build_selection
from ciod_core.methods.supervised import labelled_losses, objectness, supervised


def crs_ckd(resampler: ResamplerConfig, distiller: DistillerConfig) -> Method:
    """Positives of new objects learn from their labels, positives of old objects from the teacher."""

    def transfer(lesson: Lesson) -> Losses:
        if lesson.knowledge is None:
            return supervised(lesson)
        return {
            "objectness": objectness(lesson, _objectness_targets(lesson, lesson.knowledge, distiller)),
            **labelled_losses(lesson, ~lesson.old_P),
            **_transfer_losses(lesson, lesson.knowledge, distiller),
        }

    return Method(build_selection(resampler), transfer, assigns_knowledge=True)


def _objectness_targets(lesson: Lesson, knowledge: Knowledge, distiller: DistillerConfig) -> Tensor:
    """(P,) 1 where a label vouches for the object; where the teacher does, 1 or how sure it was."""
    target_P = torch.ones_like(lesson.assignment.iou_P)
    if distiller.objectness == "soft":
        source_P = lesson.assignment.object_P[lesson.old_P]
        target_P[lesson.old_P] = knowledge.obj_logits_K[source_P].sigmoid()
    return target_P


def _transfer_losses(lesson: Lesson, knowledge: Knowledge, distiller: DistillerConfig) -> Losses:
    """CKD on the positives of old objects, each taught by the answer whose box it was assigned to."""
    old_P, assignment = lesson.old_P, lesson.assignment
    image_P, anchor_P, source_P = assignment.image_P[old_P], assignment.anchor_P[old_P], assignment.object_P[old_P]
    sums = collaborative_distillation(
        lesson.student.cls_logits_BAC[image_P, anchor_P],
        lesson.student.boxes_BA4[image_P, anchor_P],
        knowledge.class_logits_KC[source_P],
        knowledge.boxes_K4[source_P],
        weighting=distiller.weighting,
        target=distiller.target,
    )
    count = normaliser(old_P)
    return {
        "old class": distiller.class_weight * sums.class_sum / count,
        "old box": distiller.location_weight * sums.location_sum / count,
    }
