"""Each class is measured where it is labeled, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ciod_core.classes import class_table
from ciod_core.data.annotations.merging import merge
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.evaluation.build_report import LabeledSets, build_report, labeled_part
from ciod_core.evaluation.chain import summarize_chain
from ciod_core.evaluation.detections import Detections, write_detections
from ciod_core.evaluation.report import EvaluationReport
from tests.helpers.coco_results import plain_ap

MakeTable = Callable[..., AnnotationTable]
CLASSES = class_table([[("cat", 4), ("dog", 2)], [("owl", 1)]])
BOX, ELSEWHERE = (10.0, 10.0, 50.0, 60.0), (100.0, 100.0, 150.0, 160.0)


@pytest.fixture
def tables(make_table: MakeTable) -> list[AnnotationTable]:
    """Step 1 labels cats and dogs on images 1 and 2; step 2 owls on 3 and 4, and cats on 4."""
    first = make_table([1, 2], [4, 2], [(1, 4, BOX, False), (2, 2, BOX, False)])
    second = make_table([3, 4], [1, 4], [(3, 1, BOX, False), (4, 4, ELSEWHERE, False)], first_annotation_id=50)
    return [first, second]


def detections(*rows: tuple[int, int, tuple[float, ...], float]) -> Detections:
    columns = list(zip(*rows, strict=True))
    return Detections(*(np.array(column) for column in columns))


def evaluated(tables: list[AnnotationTable], found: Detections) -> EvaluationReport:
    sets = LabeledSets.of(tables, CLASSES)
    table = merge(*tables)
    return build_report(table, found, CLASSES, run="step2", weights_sha256=None, labeled=sets)


def test_where_classes_are_labeled(tables: list[AnnotationTable]) -> None:
    sets = LabeledSets.of(tables[::-1], CLASSES)
    assert sets.labeled_SC.tolist() == [[True, False, True], [True, True, False]]
    assert not sets.complete
    assert sets.images_C.tolist() == [4, 2, 2]
    ids, categories = np.array([1, 1, 3, 3, 4]), np.array([1, 2, 2, 1, 77])
    assert sets.count(ids, categories).tolist() == [False, True, False, True, False]
    assert sets.first_only().labeled_SC.tolist() == [[True, False, True], [False, True, False]]
    assert LabeledSets.of(tables[:1], CLASSES.up_to(1)).complete


def test_an_image_of_two_tables_has_the_labels_of_both(tables: list[AnnotationTable], make_table: MakeTable) -> None:
    """Step 2 has image 2 of step 1 once more, where it labels owls and cats."""
    shared = make_table([2, 3], [1, 4], [(2, 1, BOX, False), (3, 1, BOX, False)], first_annotation_id=50)
    tables = [tables[0], shared]
    sets = LabeledSets.of(tables, CLASSES)
    assert sets.set_I.tolist() == [1, 0, 2]
    assert sets.labeled_SC[sets.set_I].tolist() == [[True, True, False], [True, True, True], [True, False, True]]
    assert sets.first_only().labeled_SC[sets.set_I].tolist() == [[True, True, False], [True] * 3, [False, False, True]]
    assert sets.images_C.tolist() == [3, 2, 2]
    found = detections((1, 4, BOX, 0.5), (2, 2, BOX, 0.5), (2, 1, BOX, 0.5), (3, 1, BOX, 0.5), (1, 1, BOX, 0.9))
    report = evaluated(tables, found)
    assert report.groups["all"].metrics.ap == pytest.approx(1) and report.images == 3
    assert report.false_alarms is not None and report.false_alarms.images == 1


def test_a_detection_where_nobody_labeled_its_class_is_no_mistake(tables: list[AnnotationTable]) -> None:
    right = [(1, 4, BOX, 0.5), (2, 2, BOX, 0.5), (3, 1, BOX, 0.5), (4, 4, ELSEWHERE, 0.5)]
    # Surer than all that is right: an owl on step 1's image, a dog on step 2's.
    unlabeled = [(1, 1, ELSEWHERE, 0.9), (3, 2, ELSEWHERE, 0.9)]
    report = evaluated(tables, detections(*right, *unlabeled))
    assert {entry.name: entry.metrics.ap for entry in report.per_class} == pytest.approx(
        dict.fromkeys(CLASSES.names, 1)
    )
    assert report.detections == 4 and report.boxes == 4 and report.images == 4
    assert [entry.images for entry in report.per_class] == [4, 2, 2]
    assert report.labels_differ
    # Cats are labeled on step 2's images: there a false one counts.
    assert evaluated(tables, detections(*right, (3, 4, ELSEWHERE, 0.9))).per_class[0].metrics.ap < 1


def test_what_is_saved_gives_the_same_ap_elsewhere(tables: list[AnnotationTable], tmp_path: Path) -> None:
    """Where a class is not labeled, neither file has a box of it; the ids of two validation files are one set."""
    tables[0] = replace(tables[0], annotation_ids_N=np.arange(2))  # One of them is 0.
    near = (12.0, 10.0, 50.0, 60.0)
    found = detections(
        *((1, 4, near, 0.5), (2, 2, BOX, 0.3), (3, 1, BOX, 0.5), (4, 4, ELSEWHERE, 0.5)),
        *((2, 2, ELSEWHERE, 0.9), (3, 4, BOX, 0.8), (1, 1, ELSEWHERE, 0.9), (3, 2, ELSEWHERE, 0.9)),
    )
    sets, table = LabeledSets.of(tables, CLASSES), merge(*tables)
    write_detections(tmp_path / "found.json", *labeled_part(table, found, sets))
    saved = json.loads((tmp_path / "found.json").read_text())
    assert saved[0] == {"image_id": 1, "category_id": 4, "bbox": [12, 10, 38, 50], "score": 0.5}
    assert len(saved) == len((tmp_path / "found.json").read_text().splitlines()) - 2 == 6
    report = evaluated(tables, found)
    metrics = report.groups["all"].metrics
    assert metrics.ap is not None and 0.2 < metrics.ap < 0.9
    ap, ap50, ap75, *_ = plain_ap(tmp_path / "found.ground-truth.json", tmp_path / "found.json")
    assert (metrics.ap, metrics.ap50, metrics.ap75) == pytest.approx((ap, ap50, ap75), abs=1e-9)


def test_groups_of_steps_stay_comparable(tables: list[AnnotationTable]) -> None:
    """The cat of step 2's image is missed: the class is worse for it, what step 1 taught is not forgotten."""
    found = detections((1, 4, BOX, 0.5), (2, 2, BOX, 0.5), (3, 1, BOX, 0.5))
    report = evaluated(tables, found)
    assert report.groups["old"].metrics.ap == pytest.approx((0.5 + 1) / 2, abs=0.01)
    assert report.groups["old"].boxes == 3
    assert report.groups["step1"].metrics.ap == pytest.approx(1)
    assert report.groups["step1"].boxes == 2
    sets = LabeledSets.of(tables[:1], CLASSES.up_to(1))
    assert sets.complete
    before = build_report(tables[0], found.select(np.arange(2)), CLASSES.up_to(1), run="step1", weights_sha256=None)
    assert summarize_chain([before, report]).by_metric["ap"].forgetting == pytest.approx((0,))


def test_a_class_that_no_image_labels_has_no_number(tables: list[AnnotationTable]) -> None:
    table = tables[0]
    sets = LabeledSets.of([table], CLASSES)
    whole = replace(table, categories=merge(*tables).categories)
    report = build_report(whole, detections((1, 1, BOX, 0.9)), CLASSES, run="step2", weights_sha256=None, labeled=sets)
    assert report.groups["new"].metrics.ap is None and report.groups["new"].classes_without_objects == ("owl",)
    assert report.per_class[2].images == 0


def test_a_step_without_a_new_class(tables: list[AnnotationTable]) -> None:
    report = build_report(
        tables[0], detections((1, 4, BOX, 0.5)), CLASSES.up_to(1), run="step2", weights_sha256=None, step=2
    )
    assert list(report.groups) == ["all", "old", "new", "step1", "step2"]
    assert report.step == 2 and report.groups["new"].classes == () and report.groups["new"].metrics.ap is None
    assert report.groups["old"] == report.groups["all"] == report.groups["step1"]
    assert not report.labels_differ


def test_a_chain_that_began_with_weights_from_elsewhere(tables: list[AnnotationTable]) -> None:
    found = detections((1, 4, BOX, 0.5), (2, 2, BOX, 0.5))
    before = build_report(tables[0], found, CLASSES.up_to(1), run="mine", weights_sha256=None, step=2)
    after = evaluated(tables, found.select(np.arange(1))).model_copy(update={"step": 3})
    summary = summarize_chain([before, after], first_step=2)
    ap = summary.by_metric["ap"]
    assert ap.ap_KJ[0] == (None,) and ap.ap_KJ[1][0] == pytest.approx(1)
    assert ap.forgetting[0] == pytest.approx(0.5)
    assert ap.forgetting_percentage_points is ap.omega is None


def test_false_alarms_are_new_classes_on_images_of_earlier_steps(tables: list[AnnotationTable]) -> None:
    right = [(1, 4, BOX, 0.5), (2, 2, BOX, 0.5), (3, 1, BOX, 0.5), (4, 4, ELSEWHERE, 0.5)]
    # An owl on each image of step 1; a dog where step 2 does not label dogs is no new class.
    alarms = [(1, 1, ELSEWHERE, 0.3), (2, 1, ELSEWHERE, 0.29), (3, 2, ELSEWHERE, 0.9)]
    report = evaluated(tables, detections(*right, *alarms))
    assert report.false_alarms is not None
    assert (report.false_alarms.images, report.false_alarms.score, report.false_alarms.per_image) == (2, 0.3, 0.5)
    assert report.false_alarms.new_with_negatives is None


def test_images_of_earlier_steps_as_negatives(tables: list[AnnotationTable]) -> None:
    """An owl that is surer than the right one counts against the class where step 1's images show none."""
    found = detections((1, 1, ELSEWHERE, 0.9), (3, 1, BOX, 0.5))
    sets = LabeledSets.of(tables, CLASSES)
    report = build_report(
        merge(*tables), found, CLASSES, run="step2", weights_sha256=None, labeled=sets, negatives=True
    )
    assert report.false_alarms is not None and report.false_alarms.new_with_negatives is not None
    assert report.groups["new"].metrics.ap == pytest.approx(1)
    assert report.false_alarms.new_with_negatives.ap == pytest.approx(0.5, abs=0.01)


def test_where_everything_is_labeled_nothing_is_a_false_alarm(tables: list[AnnotationTable]) -> None:
    report = build_report(
        merge(*tables), detections((1, 1, BOX, 0.9)), CLASSES, run="step2", weights_sha256=None, labeled=None
    )
    assert report.false_alarms is None
