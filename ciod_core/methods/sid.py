"""SID: selective and inter-related distillation (Peng et al., CVIU 2021) for anchor-free detectors.

Selective: what names objects is distilled, what locates them is not. Inter-related: so is how instances relate.
"""

from __future__ import annotations

from ciod_core.config.schema import ResamplerConfig, SidConfig
from ciod_core.distiller.features import features_of, relation_loss, tower_loss
from ciod_core.distiller.responses import squared_error
from ciod_core.methods.base import Lesson, Method
from ciod_core.methods.selection import build_selection
from ciod_core.methods.supervised import supervised
from ciod_core.model.losses import Losses


def sid(resampler: ResamplerConfig, config: SidConfig) -> Method:
    """Class outputs and relations of the instances that the resampler selects; the class tower's end everywhere."""

    def transfer(lesson: Lesson) -> Losses:
        if lesson.knowledge is None:
            return supervised(lesson)
        assert lesson.teacher is not None
        student, teacher = features_of(lesson.student), features_of(lesson.teacher)
        instances = lesson.knowledge.image_K, lesson.knowledge.anchor_K
        relation = relation_loss(student.cls_features_BAF[instances], teacher.cls_features_BAF[instances])
        return {
            **supervised(lesson),
            **squared_error(lesson.student, lesson.knowledge, config.class_weight),
            "old feature": config.feature_weight * tower_loss(student, teacher),
            "old relation": config.relation_weight * relation,
        }

    return Method(build_selection(resampler), transfer, features=True)
