"""Average precision on cases whose answer is known, and the traps of the reference evaluator."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import read_coco
from ciod_core.errors import DataError
from ciod_core.evaluation.average_precision import Metrics, evaluate_detections
from ciod_core.evaluation.backends import BackendName
from ciod_core.evaluation.detections import Detections
from tests.helpers.coco_results import coco_results, plain_ap

MakeTable = Callable[..., AnnotationTable]
BACKENDS: tuple[BackendName, ...] = ("hotcoco", "pycocotools")
BOX = (10.0, 10.0, 50.0, 50.0)
FAR = (200.0, 200.0, 250.0, 250.0)
NOTHING = Detections.concatenate([])


def _found(*rows: tuple[int, int, tuple[float, float, float, float], float]) -> Detections:
    return Detections(
        np.array([row[0] for row in rows]),
        np.array([row[1] for row in rows]),
        np.array([row[2] for row in rows]),
        np.array([row[3] for row in rows]),
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_perfect_detections_score_one_even_with_annotation_id_zero(make_table: MakeTable, backend: BackendName) -> None:
    table = make_table([5, 3], [7, 2], [(5, 7, BOX, False), (3, 2, BOX, False)])
    assert 0 in table.annotation_ids_N
    metrics = evaluate_detections(table, _found((5, 7, BOX, 0.9), (3, 2, BOX, 0.4)), backend=backend).metrics()
    assert (metrics.ap, metrics.ap50, metrics.ap75, metrics.ap_medium) == pytest.approx((1.0, 1.0, 1.0, 1.0))
    assert metrics.ap_small is metrics.ap_large is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_false_positive_above_the_hit_halves_precision(make_table: MakeTable, backend: BackendName) -> None:
    table = make_table([1], [1], [(1, 1, BOX, False)])
    metrics = evaluate_detections(table, _found((1, 1, FAR, 0.9), (1, 1, BOX, 0.8)), backend=backend).metrics()
    assert metrics.ap == pytest.approx(0.5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_iou_decides_at_which_thresholds_a_box_counts(make_table: MakeTable, backend: BackendName) -> None:
    table = make_table([1], [1], [(1, 1, (0, 0, 100, 100), False)])
    # IoU 0.77: a hit at .50, .55, … .75, that is at 6 of 10 thresholds.
    metrics = evaluate_detections(table, _found((1, 1, (0, 0, 100, 77), 0.9)), backend=backend).metrics()
    assert (metrics.ap, metrics.ap50, metrics.ap75) == pytest.approx((0.6, 1.0, 1.0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_scores_keep_the_given_order(make_table: MakeTable, backend: BackendName) -> None:
    table = make_table([1], [1], [(1, 1, BOX, False)])
    hit_first = evaluate_detections(table, _found((1, 1, BOX, 0.5), (1, 1, FAR, 0.5)), backend=backend)
    hit_last = evaluate_detections(table, _found((1, 1, FAR, 0.5), (1, 1, BOX, 0.5)), backend=backend)
    assert hit_first.metrics().ap == pytest.approx(1.0)
    assert hit_last.metrics().ap == pytest.approx(0.5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_best_hundred_of_an_image_and_class_count(make_table: MakeTable, backend: BackendName) -> None:
    table = make_table([1], [1], [(1, 1, BOX, False)])
    clutter = [(1, 1, FAR, 0.9)] * 100
    assert evaluate_detections(table, _found(*clutter, (1, 1, BOX, 0.8)), backend=backend).metrics().ap == 0.0
    hundredth = evaluate_detections(table, _found(*clutter[1:], (1, 1, BOX, 0.8)), backend=backend).metrics().ap
    assert hundredth == pytest.approx(0.01)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_crowd_neither_counts_nor_punishes(make_table: MakeTable, backend: BackendName) -> None:
    table = make_table([1], [1, 2], [(1, 1, BOX, False), (1, 1, FAR, True), (1, 2, FAR, True)])
    inside_crowd = (210.0, 210.0, 220.0, 220.0)
    precision = evaluate_detections(table, _found((1, 1, inside_crowd, 0.9), (1, 1, BOX, 0.8)), backend=backend)
    assert precision.metrics([1]).ap == pytest.approx(1.0)
    assert precision.metrics([2]).ap is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_detections_score_zero_where_objects_exist(make_table: MakeTable, backend: BackendName) -> None:
    table = make_table([1, 2], [1, 2], [(1, 1, BOX, False)])
    precision = evaluate_detections(table, NOTHING, backend=backend)
    assert precision.metrics() == Metrics(0.0, 0.0, 0.0, None, 0.0, None)
    assert precision.metrics([2]) == Metrics(None, None, None, None, None, None)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("images", "categories"), [([1], [1]), ([1], []), ([], [1]), ([], [])])
def test_nothing_to_find_gives_no_number(
    make_table: MakeTable, backend: BackendName, images: list[int], categories: list[int]
) -> None:
    precision = evaluate_detections(make_table(images, categories, []), NOTHING, backend=backend)
    assert precision.metrics() == Metrics(None, None, None, None, None, None)
    assert precision.category_ids_K.tolist() == categories


def test_groups_are_means_over_their_classes(make_table: MakeTable) -> None:
    table = make_table([1], [3, 1, 2], [(1, 1, BOX, False), (1, 3, BOX, False)])
    precision = evaluate_detections(table, _found((1, 1, BOX, 0.9), (1, 3, FAR, 0.9), (1, 3, BOX, 0.8)))
    assert precision.metrics([1]).ap == pytest.approx(1.0)
    assert precision.metrics([3]).ap == pytest.approx(0.5)
    assert precision.metrics([3, 1, 2]).ap == precision.metrics().ap == pytest.approx(0.75)
    assert precision.metrics([]).ap is None
    with pytest.raises(DataError, match="category id 9 is not in the ground truth; its ids are 1, 2, 3"):
        precision.metrics([1, 9])


def test_detections_of_another_dataset_are_refused(make_table: MakeTable) -> None:
    table = make_table([1], [5], [(1, 5, BOX, False)])
    with pytest.raises(DataError, match="image id 2 is not in the ground truth"):
        evaluate_detections(table, _found((2, 5, BOX, 0.9)))
    with pytest.raises(DataError, match="category id 0 is not in the ground truth"):
        evaluate_detections(table, _found((1, 0, BOX, 0.9)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_printed(make_table: MakeTable, backend: BackendName, capfd: pytest.CaptureFixture[str]) -> None:
    evaluate_detections(make_table([1], [1], [(1, 1, BOX, False)]), _found((1, 1, BOX, 0.9)), backend=backend)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_real_annotations_score_as_with_plain_pycocotools(real_data: Path, tmp_path: Path) -> None:
    """The usual way, COCO(file) and loadRes(file) of pycocotools, gives the same six numbers."""
    annotations = real_data / "coco-tiny" / "annotations" / "instances_val2017.json"
    table = read_coco(annotations)
    rng = np.random.default_rng(5)
    kept_D = np.repeat(np.flatnonzero(rng.random(table.num_boxes) < 0.8), 2)
    sizes_D4 = np.tile(table.boxes_N4[kept_D, 2:] - table.boxes_N4[kept_D, :2], 2)
    detections = Detections(
        table.image_ids_I[table.image_of_box_N[kept_D]],
        table.category_ids_N[kept_D],
        table.boxes_N4[kept_D] + sizes_D4 * rng.normal(0, 0.1, (len(kept_D), 4)),
        rng.random(len(kept_D)),
    )
    (tmp_path / "results.json").write_text(json.dumps(coco_results(detections)))
    plain = plain_ap(annotations, tmp_path / "results.json")
    ours = astuple(evaluate_detections(table, detections).metrics())
    assert 0.05 < plain[0] < 0.95
    assert ours == pytest.approx(tuple(plain), abs=1e-6)
