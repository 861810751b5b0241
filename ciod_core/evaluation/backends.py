"""Two engines that match detections to ground truth: pycocotools, the reference, and hotcoco, the fast one.

Both are given the same columns, with images and categories numbered from 0 in ascending order of their ids, so that
neither sees an id it treats specially (pycocotools takes the annotation id 0 for "unmatched"; hotcoco refuses
negative ids). Both match once, at most 100 detections per image and category.

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
    """Ground truth and detections as columns; boxes are x, y, width, height in float64 pixels.

    Attributes:
        num_images: images are numbered 0..num_images-1.
        num_categories: categories are numbered 0..num_categories-1.
        gt_images_N: image of each ground-truth box.
        gt_categories_N: its category.
        gt_boxes_N4: the boxes.
        gt_areas_N: areas that decide between small, medium and large (COCO: the area of the segment).
        gt_crowd_N: boxes around a crowd, which neither count nor punish.
        dt_images_D: image of each detection.
        dt_categories_D: its category.
        dt_boxes_D4: the boxes.
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


class Curves(NamedTuple):
    """Precision at fixed recalls, and the highest recall; −1 where there is no object to find."""

    precision_TRKA: np.ndarray
    recall_TKA: np.ndarray


def compute_curves(matching: MatchingInput, backend: BackendName) -> Curves:
    """Match all detections once and return precision and recall for every category and area range."""
    if matching.gt_crowd_N.all():
        return _curves_without_objects(matching.num_categories)
    evaluation = _run_hotcoco(matching) if backend == "hotcoco" else _run_pycocotools(matching)
    return Curves(
        np.asarray(evaluation["precision"], dtype=np.float64)[..., -1],
        np.asarray(evaluation["recall"], dtype=np.float64)[..., -1],
    )


def _curves_without_objects(num_categories: int) -> Curves:
    shape_TKA = (len(IOU_THRESHOLDS_T), num_categories, len(AREA_RANGES))
    shape_TRKA = (len(IOU_THRESHOLDS_T), len(RECALL_THRESHOLDS_R), num_categories, len(AREA_RANGES))
    return Curves(np.full(shape_TRKA, -1.0), np.full(shape_TKA, -1.0))


def _run_hotcoco(matching: MatchingInput) -> dict[str, Any]:
    ground_truth = hotcoco.COCO.from_arrays(
        _image_entries(matching),
        _category_entries(matching),
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
    evaluator.evaluate()
    evaluator.accumulate()
    evaluation = evaluator.eval
    assert evaluation is not None, "hotcoco accumulates before it is read"
    return evaluation


def _run_pycocotools(matching: MatchingInput) -> dict[str, Any]:
    # pycocotools reports its progress with print and knows no switch for it.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(_pycocotools_ground_truth(matching), _pycocotools_detections(matching), "bbox")
        evaluator.params.maxDets = [MAX_DETECTIONS]
        evaluator.evaluate()
        evaluator.accumulate()
    evaluation: dict[str, Any] = evaluator.eval
    return evaluation


def _pycocotools_ground_truth(matching: MatchingInput) -> COCO:
    columns = zip(
        matching.gt_images_N.tolist(),
        matching.gt_categories_N.tolist(),
        matching.gt_boxes_N4.tolist(),
        matching.gt_areas_N.tolist(),
        matching.gt_crowd_N.tolist(),
        strict=True,
    )
    return _pycocotools_index(
        matching,
        [
            {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": int(crowd)}
            for number, (image, category, box, area, crowd) in enumerate(columns, start=1)
        ],
    )


def _pycocotools_detections(matching: MatchingInput) -> COCO:
    # Built directly because COCO.loadRes fails on an empty list.
    columns = zip(
        matching.dt_images_D.tolist(),
        matching.dt_categories_D.tolist(),
        matching.dt_boxes_D4.tolist(),
        matching.dt_scores_D.tolist(),
        strict=True,
    )
    return _pycocotools_index(
        matching,
        [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "score": score,
            }
            for number, (image, category, box, score) in enumerate(columns, start=1)
        ],
    )


def _pycocotools_index(matching: MatchingInput, annotations: list[dict[str, Any]]) -> COCO:
    index = COCO()
    index.dataset = {
        "images": _image_entries(matching),
        "categories": _category_entries(matching),
        "annotations": annotations,
    }
    index.createIndex()
    return index


def _image_entries(matching: MatchingInput) -> list[dict[str, Any]]:
    return [{"id": image, "width": 0, "height": 0} for image in range(matching.num_images)]


def _category_entries(matching: MatchingInput) -> list[dict[str, Any]]:
    return [{"id": category, "name": str(category)} for category in range(matching.num_categories)]
