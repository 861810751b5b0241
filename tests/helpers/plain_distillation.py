"""The rivals' distillation losses as plain loops over numbers, from their formulas.

An image is a list of anchor points; legend: A anchor points, C old classes, K kept anchor points, F channels.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from ciod_core.model.yolox.predictions import YoloxPredictions
from tests.helpers.plain_crs import Answer, mean_and_deviation, plain_answers, plain_class_nms
from tests.helpers.plain_simota import Box, sigmoid

Place = tuple[int, int]


class Point(NamedTuple):
    """What a detector says at one anchor point, and where that is."""

    class_logits_C: list[float]
    objectness: float
    box: Box
    point: tuple[float, float]
    stride: float


def points_of(output: YoloxPredictions, num_old: int) -> list[list[Point]]:
    """The anchor points of every image, with the logits of the old classes."""
    points, strides = output.points_A2.tolist(), output.strides_A.tolist()
    fields = zip(
        output.class_logits_BAC.tolist(), output.objectness_logits_BA.tolist(), output.boxes_BA4.tolist(), strict=True
    )
    return [
        [Point(row[0][:num_old], *row[1:]) for row in zip(logits, objectness, boxes, points, strides, strict=True)]
        for logits, objectness, boxes in fields
    ]


def answers_of(teacher: YoloxPredictions) -> list[list[Answer]]:
    """The teacher's answers, image by image, as the selection rules compare them."""
    class_scores = teacher.class_logits_BAC.sigmoid()
    scores = class_scores * teacher.objectness_logits_BA.sigmoid().unsqueeze(-1)
    images = zip(class_scores.tolist(), scores.tolist(), teacher.boxes_BA4.tolist(), strict=True)
    return [plain_answers(*image) for image in images]


def plain_elastic_classes(teacher: YoloxPredictions, num_std: float) -> list[Place]:
    """A: the score of the anchor point's best class exceeds mean + num_std · std of its image."""
    places = []
    for image, answers in enumerate(answers_of(teacher)):
        bound = mean_and_deviation([answer.score for answer in answers], num_std)
        places += [(image, anchor) for anchor, answer in enumerate(answers) if answer.score > bound]
    return places


def plain_elastic_boxes(
    teacher: YoloxPredictions, num_std: float, nms_iou: float, untrusted: Collection[Place] = ()
) -> list[Place]:
    """B′: the objectness logit exceeds mean + num_std · std of its image; less untrusted places; class-wise NMS."""
    places = []
    for image, (answers, logits) in enumerate(
        zip(answers_of(teacher), teacher.objectness_logits_BA.tolist(), strict=True)
    ):
        bound = mean_and_deviation(logits, num_std)
        outstanding = [
            anchor for anchor, logit in enumerate(logits) if logit > bound and (image, anchor) not in untrusted
        ]
        places += [(image, anchor) for anchor in plain_class_nms(answers, outstanding, nms_iou)]
    return places


def bce(logit: float, target: float) -> float:
    """Binary cross-entropy of a logit."""
    probability = sigmoid(logit)
    return -target * math.log(probability) - (1 - target) * math.log(1 - probability)


def divergence(logit: float, teacher_logit: float) -> float:
    """KL divergence between two coins, the teacher's being the true one."""
    q, p = sigmoid(logit), sigmoid(teacher_logit)
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def smooth_l1(difference: float) -> float:
    """Half the square up to 1, then linear."""
    return difference**2 / 2 if abs(difference) < 1 else abs(difference) - 0.5


def mean(values: Iterable[float]) -> float:
    """Mean, 0 of nothing."""
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else 0.0


def squared_class_error(student: list[list[Point]], teacher: list[list[Point]], kept: Sequence[Place]) -> float:
    """Mean squared difference of the class logits at the kept places."""
    pairs = [(student[image][anchor].class_logits_C, teacher[image][anchor].class_logits_C) for image, anchor in kept]
    return mean((a - b) ** 2 for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))


def normalized(maps: Sequence[Tensor], by: Sequence[Tensor]) -> list[list[float]]:
    """Each level's values, with every channel less the mean of the channel of `by`, divided by its deviation."""
    levels = []
    for own, reference in zip(maps, by, strict=True):
        values = []
        for channel in range(own.shape[1]):
            listed = reference[:, channel].flatten().tolist()
            center = mean(listed)
            spread = math.sqrt(mean((value - center) ** 2 for value in listed))
            values += [(value - center) / spread for value in own[:, channel].flatten().tolist()]
        levels.append(values)
    return levels


def deltas(point: Point) -> list[float]:
    """Offset of the box's center from the anchor point and log size, in strides."""
    x1, y1, x2, y2 = point.box
    offsets = [((x1 + x2) / 2 - point.point[0]) / point.stride, ((y1 + y2) / 2 - point.point[1]) / point.stride]
    return [*offsets, math.log((x2 - x1) / point.stride), math.log((y2 - y1) / point.stride)]


def box_delta_error(student: list[list[Point]], teacher: list[list[Point]], kept: Sequence[Place]) -> float:
    """Smooth L1 between box deltas divided by 0.1 and 0.2, summed over deltas, the mean over the kept places."""
    pairs = [(deltas(student[image][anchor]), deltas(teacher[image][anchor])) for image, anchor in kept]
    stds = (0.1, 0.1, 0.2, 0.2)
    return mean(
        sum(smooth_l1((a - b) / std) for a, b, std in zip(ours, theirs, stds, strict=True)) for ours, theirs in pairs
    )


def relations(features_KF: Sequence[Sequence[float]]) -> dict[tuple[int, int], float]:
    """Distance of every ordered pair of instances, divided by the mean over pairs."""
    count = len(features_KF)
    pairs = [(one, other) for one in range(count) for other in range(count) if one != other]
    distances = {pair: math.dist(features_KF[pair[0]], features_KF[pair[1]]) for pair in pairs}
    return {pair: distance / mean(distances.values()) for pair, distance in distances.items()}


def relation_error(student_KF: Sequence[Sequence[float]], teacher_KF: Sequence[Sequence[float]]) -> float:
    """Mean smooth L1 between relations."""
    ours, theirs = relations(student_KF), relations(teacher_KF)
    return mean(smooth_l1(ours[pair] - theirs[pair]) for pair in ours)
