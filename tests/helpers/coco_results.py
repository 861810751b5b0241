"""Detections as the list that a COCO results file holds."""

from __future__ import annotations

from typing import Any

from ciod_core.evaluation.detections import Detections


def coco_results(detections: Detections) -> list[dict[str, Any]]:
    """One entry per detection; boxes are x, y, width, height."""
    columns = (
        detections.image_ids_D.tolist(),
        detections.category_ids_D.tolist(),
        detections.boxes_xywh_D4().tolist(),
        detections.scores_D.tolist(),
    )
    names = ("image_id", "category_id", "bbox", "score")
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
