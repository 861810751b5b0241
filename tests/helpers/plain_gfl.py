"""ATSS and the losses of GFL as plain loops over Python numbers, from the papers' formulas.

Legend: A anchor points, G objects, R bins of an edge's distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev

from tests.helpers.plain_simota import Box, box_iou, sigmoid


def plain_atss(
    points_A2: Sequence[Sequence[float]],
    strides_A: Sequence[float],
    predictable: Sequence[Sequence[bool]],
    boxes_G4: Sequence[Box],
) -> dict[int, int]:
    """The positives of an image: anchor point → object.

    `predictable` says of every object and anchor point whether the latter names the object's class.
    """
    taken: dict[int, tuple[float, int]] = {}
    for index, box in enumerate(boxes_G4):
        center = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        candidates: list[int] = []
        for stride in sorted(set(strides_A)):
            level = [anchor for anchor, own in enumerate(strides_A) if own == stride and predictable[index][anchor]]
            candidates += sorted(level, key=lambda anchor: math.dist(points_A2[anchor], center))[:9]
        if not candidates:
            continue
        overlaps = {anchor: box_iou(box, anchor_box(points_A2[anchor], strides_A[anchor])) for anchor in candidates}
        threshold = mean(overlaps.values()) + stdev(overlaps.values())
        for anchor, overlap in overlaps.items():
            x, y = points_A2[anchor]
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if overlap >= threshold and inside and overlap > taken.get(anchor, (-1.0, 0))[0]:
                taken[anchor] = overlap, index
    return {anchor: index for anchor, (_, index) in taken.items()}


def anchor_box(point: Sequence[float], stride: float) -> Box:
    """The square of eight strides around a point."""
    x, y = point
    return x - 4 * stride, y - 4 * stride, x + 4 * stride, y + 4 * stride


def plain_qfl(logit: float, target: float) -> float:
    """−|y − σ|² ((1 − y) log(1 − σ) + y log σ)."""
    score = sigmoid(logit)
    return -((target - score) ** 2) * ((1 - target) * math.log(1 - score) + target * math.log(score))


def plain_dfl(logits_R: Sequence[float], distance: float) -> float:
    """−((y_{i+1} − y) log S_i + (y − y_i) log S_{i+1}) for the bins y_i ≤ y < y_{i+1}."""
    distance = min(max(distance, 0.0), len(logits_R) - 1 - 0.1)
    below = int(distance)
    log_sum = math.log(sum(math.exp(logit) for logit in logits_R))
    return -(
        (below + 1 - distance) * (logits_R[below] - log_sum) + (distance - below) * (logits_R[below + 1] - log_sum)
    )


def plain_edges(point: Sequence[float], stride: float, logits_4R: Sequence[Sequence[float]]) -> Box:
    """The box whose edges are at the means of their distributions."""
    distances = []
    for logits_R in logits_4R:
        weights = [math.exp(logit) for logit in logits_R]
        distances.append(stride * sum(bin * weight for bin, weight in enumerate(weights)) / sum(weights))
    left, top, right, bottom = distances
    x, y = point
    return x - left, y - top, x + right, y + bottom


def plain_giou(a: Box, b: Box) -> float:
    """IoU less the share of the hull that neither box covers."""
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    overlap = box_iou(a, b)
    union = areas / (1 + overlap)
    return overlap - (hull - union) / hull
