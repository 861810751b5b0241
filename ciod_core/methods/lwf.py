"""LwF: learning without forgetting (arXiv 1606.09282) for a detector; the simplest distillation there is."""

from __future__ import annotations

from ciod_core.config.schema import LwfConfig
from ciod_core.distiller.responses import bernoulli_divergence, student_responses
from ciod_core.methods.base import Lesson, Method
from ciod_core.methods.selection import selection_by
from ciod_core.methods.supervised import supervised
from ciod_core.model.knowledge import Knowledge
from ciod_core.model.losses import Losses, normaliser
from ciod_core.resampler.rules import every_point


def lwf(config: LwfConfig) -> Method:
    """At all anchor points the student repeats the teacher's class and objectness; boxes are left alone."""

    def transfer(lesson: Lesson) -> Losses:
        if lesson.knowledge is None:
            return supervised(lesson)
        return {**supervised(lesson), **_distil(lesson, lesson.knowledge, config.weight)}

    return Method(selection_by(every_point(), nms_iou=None, ground_truth_iou=1.0), transfer)


def _distil(lesson: Lesson, knowledge: Knowledge, weight: float) -> Losses:
    """KL divergence summed over anchor points and old classes, per positive.

    The detector's objectness loss, which forgets, is a sum over all anchor points per positive. The same normaliser
    makes λ = 1 mean that teacher and labels pull equally hard at every anchor point, whatever the size of the image.
    """
    responses, count = student_responses(lesson.student, knowledge), normaliser(lesson.assignment.object_P >= 0)
    return {
        "old class": weight * bernoulli_divergence(responses.class_logits_KC, knowledge.class_logits_KC).sum() / count,
        "old objectness": weight * bernoulli_divergence(responses.obj_logits_K, knowledge.obj_logits_K).sum() / count,
    }
