"""Two engines that match detections to ground truth: pycocotools, the reference, and hotcoco, the fast one.

Both get the same columns, with images and categories numbered from 0 in ascending order of their ids, so that neither
sees an id that it treats specially (pycocotools takes the annotation id 0 for "unmatched"; hotcoco refuses negative
ids). Both match once, at most 100 detections per image and category.

Legend: N ground-truth boxes, D detections, T IoU thresholds, R recall thresholds, K categories, A area ranges.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any, Literal, NamedTuple

import hotcoco
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

BackendName = Literal["hotcoco", "pycocotools"]

IOU_THRESHOLDS_T = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS_R = np.linspace(0.0, 1.0, 101)
AREA_RANGES = ("all", "small", "medium", "large")
MAX_DETECTIONS = 100


class MatchingInput(NamedTuple):
    """Ground truth and detections as columns; boxes are x, y, width, height in float64 pixels, others numbers from 0.

    Attributes:
        gt_areas_N: areas that decide between small, medium and large (COCO: the area of the segment).
        gt_crowd_N: boxes around a crowd, which count neither as objects nor as false positives.
        dt_scores_D: confidence, sorted from high to low within an image, so that ties have one order.
    """

    num_images: int
    num_categories: int
    gt_images_N: np.ndarray
    gt_categories_N: np.ndarray
    gt_boxes_N4: np.ndarray
    gt_areas_N: np.ndarray
    gt_crowd_N: np.ndarray
    dt_images_D: np.ndarray
    dt_categories_D: np.ndarray
    dt_boxes_D4: np.ndarray
    dt_scores_D: np.ndarray


def precision_curves(matching: MatchingInput, backend: BackendName) -> np.ndarray:
    """Match all detections once.

    Returns:
        (T, R, K, A) precision at fixed recalls; −1 where there is no object to find.
    """
    if matching.gt_crowd_N.all():
        shape_TRKA = (len(IOU_THRESHOLDS_T), len(RECALL_THRESHOLDS_R), matching.num_categories, len(AREA_RANGES))
        return np.full(shape_TRKA, -1.0)
    evaluation = _run_hotcoco(matching) if backend == "hotcoco" else _run_pycocotools(matching)
    return np.asarray(evaluation["precision"], dtype=np.float64)[..., -1]


def hotcoco_evaluator(matching: MatchingInput) -> hotcoco.COCOeval:
    """The evaluator of hotcoco, which has matched nothing yet; it numbers detections from 1, in their order."""
    ground_truth = hotcoco.COCO.from_arrays(
        *_images_and_categories(matching),
        matching.gt_images_N,
        matching.gt_categories_N,
        matching.gt_boxes_N4,
        area=matching.gt_areas_N,
        iscrowd=matching.gt_crowd_N.astype(np.int64),
    )
    rows_D7 = np.column_stack(
        [matching.dt_images_D, matching.dt_boxes_D4, matching.dt_scores_D, matching.dt_categories_D]
    )
    evaluator = hotcoco.COCOeval(ground_truth, ground_truth.load_res(rows_D7.astype(np.float64)), "bbox")
    evaluator.params.max_dets = [MAX_DETECTIONS]
    return evaluator


def _run_hotcoco(matching: MatchingInput) -> dict[str, Any]:
    evaluator = hotcoco_evaluator(matching)
    evaluator.evaluate()
    evaluator.accumulate()
    evaluation = evaluator.eval
    assert evaluation is not None, "hotcoco accumulates before it is read"
    return evaluation


def _run_pycocotools(matching: MatchingInput) -> dict[str, Any]:
    # pycocotools prints its progress and has no switch for it.
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = _pycocotools_index(
            matching,
            image_id=matching.gt_images_N,
            category_id=matching.gt_categories_N,
            bbox=matching.gt_boxes_N4,
            area=matching.gt_areas_N,
            iscrowd=matching.gt_crowd_N.astype(np.int64),
        )
        detections = _pycocotools_index(
            matching,
            image_id=matching.dt_images_D,
            category_id=matching.dt_categories_D,
            bbox=matching.dt_boxes_D4,
            area=matching.dt_boxes_D4[:, 2] * matching.dt_boxes_D4[:, 3],
            iscrowd=np.zeros(len(matching.dt_scores_D), dtype=np.int64),
            score=matching.dt_scores_D,
        )
        evaluator = COCOeval(ground_truth, detections, "bbox")
        evaluator.params.maxDets = [MAX_DETECTIONS]
        evaluator.evaluate()
        evaluator.accumulate()
    evaluation: dict[str, Any] = evaluator.eval
    return evaluation


def _pycocotools_index(matching: MatchingInput, **columns: np.ndarray) -> COCO:
    """Annotations from columns; built directly because `COCO.loadRes` fails on an empty list."""
    images, categories = _images_and_categories(matching)
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    annotations = [{"id": number, **dict(zip(columns, row, strict=True))} for number, row in enumerate(rows, start=1)]
    index = COCO()
    index.dataset = {"images": images, "categories": categories, "annotations": annotations}
    index.createIndex()
    return index


def _images_and_categories(matching: MatchingInput) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    images: list[dict[str, Any]] = [{"id": image, "width": 0, "height": 0} for image in range(matching.num_images)]
    return images, [{"id": category, "name": str(category)} for category in range(matching.num_categories)]
