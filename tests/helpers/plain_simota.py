"""SimOTA of one image as plain loops over Python numbers: what the vectorized assigner has to equal.

Legend: A anchor points, C classes, G objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Box = Sequence[float]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two xyxy boxes; 0 when neither has an area."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union > 0 else 0.0


def plain_simota(
    cls_logits_AC: Sequence[Sequence[float]],
    obj_logits_A: Sequence[float],
    predicted_A4: Sequence[Box],
    points_A2: Sequence[Sequence[float]],
    strides_A: Sequence[float],
    boxes_G4: Sequence[Box],
    labels_G: Sequence[int],
    center_radius: float = 2.5,
    center_alone: bool = False,
) -> dict[int, tuple[int, float]]:
    """The positives of an image: anchor point → (object, IoU)."""
    inside_both: dict[tuple[int, int], bool] = {}
    candidates: set[int] = set()
    for anchor, (point, stride) in enumerate(zip(points_A2, strides_A, strict=True)):
        x, y = point[0] + stride / 2, point[1] + stride / 2
        for index, (x1, y1, x2, y2) in enumerate(boxes_G4):
            in_box = x1 < x < x2 and y1 < y < y2
            away = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2))
            in_center = away < center_radius * stride
            if center_alone:
                in_box = in_center
            inside_both[index, anchor] = in_box and in_center
            if in_box or in_center:
                candidates.add(anchor)

    costs: dict[int, dict[int, float]] = {}
    wanted: dict[int, list[int]] = {}
    for index, (box, label) in enumerate(zip(boxes_G4, labels_G, strict=True)):
        ious = {anchor: box_iou(box, predicted_A4[anchor]) for anchor in candidates}
        costs[index] = {}
        for anchor in candidates:
            cost = _class_cost(cls_logits_AC[anchor], obj_logits_A[anchor], label) - 3 * math.log(ious[anchor] + 1e-8)
            costs[index][anchor] = cost + (0 if inside_both[index, anchor] else 1e8)
        k = max(int(sum(sorted(ious.values(), reverse=True)[:10])), 1)
        for anchor in sorted(candidates, key=lambda anchor: costs[index][anchor])[:k]:
            wanted.setdefault(anchor, []).append(index)

    positives = {}
    for anchor, objects in wanted.items():
        if len(objects) > 1:
            objects = [min(costs, key=lambda index: costs[index][anchor])]
        positives[anchor] = (objects[0], box_iou(boxes_G4[objects[0]], predicted_A4[anchor]))
    return positives


def _class_cost(logits_C: Sequence[float], objectness: float, label: int) -> float:
    total = 0.0
    for index, logit in enumerate(logits_C):
        score = math.sqrt(sigmoid(logit) * sigmoid(objectness))
        probability = score if index == label else 1 - score
        total -= max(math.log(probability), -100.0) if probability > 0 else -100.0
    return total
