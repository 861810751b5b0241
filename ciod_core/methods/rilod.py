"""RILOD (arXiv 1904.00781): class logits, box deltas and the neck's features of the teacher are all matched.

Legend: K kept answers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from ciod_core.config.schema import ResamplerConfig, RilodConfig
from ciod_core.distiller.features import features_of, neck_loss
from ciod_core.distiller.responses import kept_count, squared_error, student_responses
from ciod_core.methods.base import Lesson, Method
from ciod_core.methods.selection import build_selection
from ciod_core.methods.supervised import supervised
from ciod_core.model.knowledge import Knowledge
from ciod_core.model.losses import Losses

SMALLEST_SIDE = 1e-6


def rilod(resampler: ResamplerConfig, config: RilodConfig) -> Method:
    """Old-class logits and box deltas are matched where the resampler selects, the neck's features everywhere."""

    def transfer(lesson: Lesson) -> Losses:
        if lesson.knowledge is None:
            return supervised(lesson)
        assert lesson.teacher is not None
        neck = neck_loss(features_of(lesson.student), features_of(lesson.teacher))
        return {
            **supervised(lesson),
            **squared_error(lesson.student, lesson.knowledge, config.class_weight),
            "old box": config.box_weight * _box_loss(lesson, lesson.knowledge),
            "old feature": config.feature_weight * neck,
        }

    return Method(build_selection(resampler), transfer, features=True)


def _box_loss(lesson: Lesson, knowledge: Knowledge) -> Tensor:
    """Smooth L1 between the box deltas of student and teacher, the mean over kept answers and deltas."""
    strides_K1 = lesson.student.strides_A[knowledge.anchor_K, None]
    boxes_K4 = student_responses(lesson.student, knowledge).boxes_K4
    error_K4 = smooth_l1_loss(
        box_deltas(boxes_K4, strides_K1), box_deltas(knowledge.boxes_K4, strides_K1), reduction="none"
    )
    return error_K4.mean(dim=1).sum() / kept_count(knowledge)


def box_deltas(boxes_K4: Tensor, strides_K1: Tensor) -> Tensor:
    """(K, 4) centre and log size in strides: what a box is decoded from, but for the anchor point.

    Student and teacher are compared at the same anchor point, where it cancels out.
    """
    centres_K2 = (boxes_K4[:, :2] + boxes_K4[:, 2:]) / 2
    sides_K2 = (boxes_K4[:, 2:] - boxes_K4[:, :2]).clamp(min=SMALLEST_SIDE)
    return torch.cat((centres_K2 / strides_K1, (sides_K2 / strides_K1).log()), dim=1)
