"""Scored boxes, which is all that most detectors give, as knowledge. Legend: K boxes, C old classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from ciod_core.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from ciod_core.classes import ClassTable
from ciod_core.config.schema import ResamplerConfig
from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.errors import ConfigError
from ciod_core.model.base import PRESENCE
from ciod_core.model.common.nms import nms_in_order
from ciod_core.model.knowledge import Knowledge
from ciod_core.teachers.base import TeacherIdentity, TeacherKind

# How near to 0 and 1 a probability may come: a logit is finite, and no detector is as sure as that.
CLAMP = 1e-4
SMALLEST_SIDE = 1.0


@dataclass(frozen=True)
class OldClassImages:
    """The images that a teacher other than ciod's weights gives knowledge for.

    Attributes:
        step: whose images they are.
        classes: the old classes; boxes of others are dropped.
        images: the images.
        resampler: the selection.
    """

    step: int
    classes: ClassTable
    images: LocatedTable
    resampler: ResamplerConfig

    def identity(
        self, sha256: str, kind: TeacherKind, teacher_ids: tuple[int, ...], image_size: int = 0
    ) -> TeacherIdentity:
        """The identity of the teacher in the file with this hash for these images."""
        return TeacherIdentity(
            teacher_sha256=sha256,
            classes=self.classes.names,
            image_size=image_size,
            resampler=self.resampler,
            teacher=kind,
            teacher_ids=teacher_ids,
        )


class ScoredBoxes(NamedTuple):
    """What a detector found in one image.

    Attributes:
        boxes_K4: boxes, xyxy, pixels of the source image.
        labels_K: the label of each.
        scores_KC: its score for every old class, 0..1.
        best_K: its best score over all classes of the detector.
    """

    boxes_K4: Float32Array
    labels_K: Int64Array
    scores_KC: Float32Array
    best_K: Float32Array


def one_score_each(
    boxes_K4: Float32Array, labels_K: Int64Array, scores_K: Float32Array, num_classes: int
) -> ScoredBoxes:
    """Boxes with one score for one class."""
    scores_KC = np.zeros((len(labels_K), num_classes), dtype=np.float32)
    scores_KC[np.arange(len(labels_K)), labels_K] = scores_K
    return ScoredBoxes(boxes_K4, labels_K, scores_KC, scores_K)


def select_boxes(found: ScoredBoxes, size: tuple[int, int], resampler: ResamplerConfig) -> Knowledge:
    """The boxes that the resampler keeps, clipped to an image of this width and height.

    A score combines the probability of an object and that of its class. The probability of an object is the best score
    of a box for any class, that of a class is its score as a share of that, so that their product is the score. Both
    are kept within 0.0001 of 0 and 1 and turned into logits.
    """
    shares_KC = found.scores_KC / np.maximum(found.best_K, CLAMP)[:, None]
    scores_K = found.scores_KC[np.arange(len(found.labels_K)), found.labels_K].astype(np.float32)
    count = len(found.labels_K)
    knowledge = Knowledge(
        boxes_K4=torch.from_numpy(found.boxes_K4.astype(np.float32)),
        labels_K=torch.from_numpy(found.labels_K),
        scores_K=torch.from_numpy(scores_K),
        class_logits_KC=torch.from_numpy(_logit(shares_KC)),
        responses={PRESENCE: torch.from_numpy(_logit(found.best_K))},
        image_K=torch.zeros(count, dtype=torch.int64),
        anchor_K=torch.full((count,), -1),
    )
    knowledge = knowledge.pick(torch.from_numpy(scores_K >= lowest_score(resampler)))
    kept = nms_in_order(knowledge.boxes_K4, knowledge.scores_K, knowledge.labels_K, resampler.nms_iou)
    return clip_to_image(knowledge.pick(kept), size)


def clip_to_image(knowledge: Knowledge, size: tuple[int, int]) -> Knowledge:
    """The part of the boxes that lies in an image of this width and height; boxes with none are dropped."""
    clipped_K4 = clipped(knowledge.boxes_K4.numpy(), np.array([size], dtype=np.float32))
    moved = replace(knowledge, boxes_K4=torch.from_numpy(clipped_K4))
    return moved.pick(torch.from_numpy(has_extent(clipped_K4)))


def lowest_score(resampler: ResamplerConfig) -> float:
    """The score from which a rule keeps a listed box.

    A listed box names its class, so that by the rule 'crs' every one is a center.

    Raises:
        ConfigError: the rule compares with the scores at all anchor points, which a list does not have.
    """
    match resampler.rule:
        case "crs":
            return resampler.min_score
        case "fixed":
            return resampler.fixed_score
        case _:
            raise ConfigError(
                f"`resampler.rule`: '{resampler.rule}' compares with the scores at all anchor points, and this teacher "
                "lists only boxes; set it to crs or fixed"
            )


def clipped(boxes_K4: Float32Array, sizes_K2: Float32Array) -> Float32Array:
    """The part of boxes that lies in images of these widths and heights."""
    return boxes_K4.clip(0, sizes_K2[:, [0, 1, 0, 1]])


def has_extent(boxes_K4: Float32Array) -> BoolArray:
    """Mask of the boxes that are at least a pixel wide and high."""
    return (boxes_K4[:, 2:] - boxes_K4[:, :2]).min(axis=1, initial=np.inf) >= SMALLEST_SIDE


def _logit(values: Float32Array | Float64Array) -> Float32Array:
    inside = np.clip(values.astype(np.float64), CLAMP, 1 - CLAMP)
    return np.log(inside / (1 - inside)).astype(np.float32)
