"""Detections as the list that a COCO results file holds, and the AP that plain pycocotools gives them."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

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


def plain_ap(ground_truth: Path, results: Path) -> list[float]:
    """The six average precisions of two files, evaluated the usual way: `COCO(file)` and `loadRes(file)`."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(ground_truth))
        evaluator = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return [float(value) for value in evaluator.stats[:6]]
