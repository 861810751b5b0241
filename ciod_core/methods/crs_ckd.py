"""CRS + CKD: center re-sampling selects, collaborative distillation transfers. Legend: P positives, K kept answers."""

from __future__ import annotations

import torch
from torch import Tensor

from ciod_core.config.schema import DistillerConfig, ResamplerConfig
from ciod_core.distiller.ckd import collaborative_distillation
from ciod_core.methods.base import Lesson, Method, TrunkRate
from ciod_core.methods.selection import build_recall, build_selection
from ciod_core.methods.supervised import labelled_losses, objectness, supervised
from ciod_core.model.detector import Detector
from ciod_core.model.knowledge import Knowledge
from ciod_core.model.losses import Losses, normaliser
from ciod_core.model.output import Targets
from ciod_core.runtime.distributed import mean_across_processes


def crs_ckd(resampler: ResamplerConfig, distiller: DistillerConfig) -> Method:
    """Positives of new objects learn from their labels, positives of old objects from the teacher.

    What is not published: the student keeps the teacher's batch statistics, and changes no faster than the old objects
    of a batch can hold it in place. Where nothing is labelled, the teacher's objectness may be kept instead of denied.
    """

    def transfer(lesson: Lesson) -> Losses:
        if lesson.knowledge is None:
            return supervised(lesson)
        return {
            "objectness": _objectness(lesson, lesson.knowledge, distiller),
            **labelled_losses(lesson, ~lesson.old_P),
            **_transfer_losses(lesson, lesson.knowledge, distiller),
        }

    return Method(
        build_selection(resampler),
        transfer,
        assigns_knowledge=True,
        grow=_grow_keeping_statistics if distiller.batch_norm == "keep" else Detector.add_classes,
        trunk_rate=_balanced_trunk_rate(distiller.trunk_balance) if distiller.trunk_balance else None,
        recall=build_recall(resampler) if distiller.background == "zero" else None,
    )


def _balanced_trunk_rate(balance: float) -> TrunkRate:
    """The full rate where a batch holds `balance` old objects for every new one, proportionally less below that.

    New objects alone pull the features that old classes need wherever they like; nothing in such a batch would notice.
    An answer counts as much of an object as the teacher is sure of it; replayed labels of old classes hold as well.
    """

    def rate(knowledge: Knowledge, targets: Targets) -> float:
        is_new_N = targets.labels_N >= knowledge.class_logits_KC.shape[1]
        counts = torch.stack((knowledge.scores_K.sum() + (~is_new_N).sum(), is_new_N.sum()))
        num_old, num_new = mean_across_processes(counts).tolist()
        return min(1.0, num_old / max(balance * num_new, 1e-9))

    return rate


def _grow_keeping_statistics(student: Detector, num_new: int) -> None:
    """A later step's images may look different from those that the old classes were learned on."""
    student.add_classes(num_new)
    student.keep_statistics()


def _objectness(lesson: Lesson, knowledge: Knowledge, distiller: DistillerConfig) -> Tensor:
    """Targets: 1 where a label vouches for the object; where the teacher does, 1 or how sure it was."""
    target_P = torch.ones_like(lesson.assignment.iou_P)
    if distiller.objectness == "soft":
        source_P = lesson.assignment.object_P[lesson.old_P]
        target_P[lesson.old_P] = knowledge.obj_logits_K[source_P].sigmoid()
    background_BA = None
    if distiller.background == "teacher":
        assert lesson.teacher is not None
        background_BA = lesson.teacher.obj_logits_BA.sigmoid()
    return objectness(lesson, target_P=target_P, background_BA=background_BA)


def _transfer_losses(lesson: Lesson, knowledge: Knowledge, distiller: DistillerConfig) -> Losses:
    """CKD on the positives of old objects, each taught by the answer whose box it was assigned to."""
    assignment, index_P = lesson.assignment, lesson.old_P.nonzero().squeeze(1)
    sums = collaborative_distillation(
        lesson.cls_logits_PC.index_select(0, index_P),
        lesson.student.boxes_BA4[assignment.image_P[index_P], assignment.anchor_P[index_P]],
        knowledge.class_logits_KC,
        knowledge.boxes_K4,
        assignment.object_P[index_P],
        weighting=distiller.weighting,
        target=distiller.target,
    )
    count = normaliser(lesson.old_P)
    return {
        "old class": distiller.class_weight * sums.class_sum / count,
        "old box": distiller.location_weight * sums.location_sum / count,
    }
