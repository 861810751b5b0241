"""hotcoco and pycocotools give the same precision; a third evaluator gives the same averages."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.evaluation.average_precision import evaluate_detections
from ciod_core.evaluation.detections import Detections
from tests.helpers.coco_results import coco_results

MakeTable = Callable[..., AnnotationTable]
TOLERANCE = 1e-6
IMAGE_IDS = (30, 4, 17)
CATEGORY_IDS = (90, 1, 13)
SCORES = (0.1, 0.5, 0.5, 0.9, 1.0)

# Few distinct places and sizes, so that overlaps, exact hits, ties and all area ranges are common.
boxes = st.tuples(
    st.sampled_from([0.0, 3.5, 10.0, 60.0]),
    st.sampled_from([0.0, 2.0, 40.0]),
    st.sampled_from([8.0, 31.9, 32.0, 50.0, 96.0, 130.0]),
    st.sampled_from([8.0, 32.0, 48.0, 96.0, 120.0]),
).map(lambda xywh: (xywh[0], xywh[1], xywh[0] + xywh[2], xywh[1] + xywh[3]))
ground_truth_rows = st.lists(
    st.tuples(st.sampled_from(IMAGE_IDS), st.sampled_from(CATEGORY_IDS), boxes, st.booleans()), max_size=12
)
detection_rows = st.lists(
    st.tuples(st.sampled_from(IMAGE_IDS), st.sampled_from(CATEGORY_IDS), boxes, st.sampled_from(SCORES)), max_size=25
)


def _detections(rows: list[tuple[int, int, tuple[float, ...], float]]) -> Detections:
    return Detections(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.float32).reshape(-1, 4),
        np.array([row[3] for row in rows], dtype=np.float32),
    )


def _random_case(
    make_table: MakeTable, seed: int, images: int = 40, categories: int = 6
) -> tuple[AnnotationTable, Detections]:
    """Objects, noisy copies of them and clutter, with scores rounded so that ties happen; up to 150 per image."""
    rng = np.random.default_rng(seed)
    rows, found = [], []
    for image_id in range(images):
        for _ in range(int(rng.integers(0, 12))):
            category_id = int(rng.integers(0, categories))
            corner, size = rng.uniform(0, 300, 2), rng.uniform(5, 200, 2)
            box = (*corner, *(corner + size))
            rows.append((image_id, category_id, box, bool(rng.random() < 0.1)))
            for _ in range(int(rng.integers(0, 14))):
                moved = np.asarray(box) + rng.normal(0, 8, 4)
                found.append((image_id, category_id, tuple(moved), round(float(rng.random()), 1)))
    return make_table(range(images), range(categories), rows), _detections(found)


@settings(max_examples=200, deadline=None)
@given(ground_truth_rows, detection_rows)
def test_curves_are_equal_on_any_case(make_table: MakeTable, gt_rows: list[Any], dt_rows: list[Any]) -> None:
    table, detections = make_table(IMAGE_IDS, CATEGORY_IDS, gt_rows), _detections(dt_rows)
    fast = evaluate_detections(table, detections, backend="hotcoco")
    reference = evaluate_detections(table, detections, backend="pycocotools")
    np.testing.assert_allclose(fast.precision_TRKA, reference.precision_TRKA, atol=TOLERANCE, rtol=0)
    assert fast.category_ids_K.tolist() == reference.category_ids_K.tolist() == sorted(CATEGORY_IDS)


@pytest.mark.parametrize("seed", range(3))
def test_curves_are_equal_on_crowded_images_with_ties(make_table: MakeTable, seed: int) -> None:
    table, detections = _random_case(make_table, seed)
    fast = evaluate_detections(table, detections, backend="hotcoco")
    reference = evaluate_detections(table, detections, backend="pycocotools")
    average = fast.metrics().ap
    assert average is not None
    assert 0.02 < average < 0.9
    np.testing.assert_allclose(fast.precision_TRKA, reference.precision_TRKA, atol=TOLERANCE, rtol=0)


def test_a_third_evaluator_agrees(make_table: MakeTable) -> None:
    faster_coco_eval = pytest.importorskip("faster_coco_eval")
    table, detections = _random_case(make_table, seed=11)
    boxes_N4 = np.concatenate([table.boxes_N4[:, :2], table.boxes_N4[:, 2:] - table.boxes_N4[:, :2]], axis=1)
    dataset = {
        "images": [{"id": int(image_id), "width": 640, "height": 480} for image_id in table.image_ids_I],
        "categories": [category._asdict() for category in table.categories],
        "annotations": [
            {
                "id": row + 1,
                "image_id": int(table.image_ids_I[table.image_of_box_N[row]]),
                "category_id": int(table.category_ids_N[row]),
                "bbox": boxes_N4[row].tolist(),
                "area": float(table.areas_N[row]),
                "iscrowd": int(table.crowd_N[row]),
            }
            for row in range(table.num_boxes)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = faster_coco_eval.COCO(dataset)
        evaluator = faster_coco_eval.COCOeval_faster(
            ground_truth, ground_truth.loadRes(coco_results(detections)), "bbox"
        )
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    ours = astuple(evaluate_detections(table, detections).metrics())
    assert ours == pytest.approx(tuple(evaluator.stats[:6]), abs=TOLERANCE)
