"""CRS + CKD: center re-sampling selects, collaborative distillation transfers."""

from __future__ import annotations

import torch

from ciod_core.config import DistillerConfig, ResamplerConfig
from ciod_core.distiller import collaborative_distillation
from ciod_core.methods.base import Lesson, Losses, Method, normaliser
from ciod_core.methods.selection import build_selection
from ciod_core.methods.supervised import labelled_losses, objectness, supervised


def crs_ckd(resampler: ResamplerConfig, distiller: DistillerConfig) -> Method:
    """Positives of new objects learn from their labels, positives of old objects from the teacher."""

    def transfer(lesson: Lesson) -> Losses:
        old_P, knowledge = lesson.old_P, lesson.knowledge
        if knowledge is None:
            return supervised(lesson)
        every_P = torch.ones_like(old_P)
        separate = distiller.normaliser == "separate"
        new_losses = labelled_losses(lesson, ~old_P, ~old_P if separate else every_P)
        image_P, anchor_P = lesson.assignment.image_P[old_P], lesson.assignment.anchor_P[old_P]
        source_P = lesson.assignment.object_P[old_P]
        sums = collaborative_distillation(
            lesson.student.cls_logits_BAC[image_P, anchor_P],
            lesson.student.boxes_BA4[image_P, anchor_P],
            knowledge.class_logits_KC[source_P],
            knowledge.boxes_K4[source_P],
            weighting=distiller.weighting,
            target=distiller.target,
        )
        count = normaliser(old_P if separate else every_P)
        obj_target_P = torch.ones_like(lesson.assignment.iou_P)
        if distiller.objectness == "soft":
            obj_target_P[old_P] = knowledge.obj_logits_K[source_P].sigmoid()
        return {
            "objectness": objectness(lesson, obj_target_P),
            **new_losses,
            "old class": distiller.class_weight * sums.class_sum / count,
            "old box": distiller.location_weight * sums.location_sum / count,
        }

    return Method(selection=build_selection(resampler), transfer=transfer)
