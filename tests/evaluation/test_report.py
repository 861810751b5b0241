"""Reports say what they averaged, and chains of reports say what was kept."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from ciod_core.classes import ClassTable, class_table
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.errors import DataError
from ciod_core.evaluation.build_report import build_report
from ciod_core.evaluation.chain import summarize_chain
from ciod_core.evaluation.detections import Detections
from ciod_core.evaluation.report import EvaluationReport

MakeTable = Callable[..., AnnotationTable]

BOXES = {category_id: (60.0 * category_id, 10.0, 60.0 * category_id + 40.0, 60.0) for category_id in range(1, 6)}
CLASSES = class_table([[("cat", 4), ("dog", 2)], [("owl", 1)], [("elk", 3), ("yak", 5)]])
SHA256 = "ab" * 32


@pytest.fixture
def ground_truth(make_table: MakeTable) -> AnnotationTable:
    """Two images of one box of cat, dog, owl and elk each, and a crowd of elks; no yak anywhere."""
    rows = [(image_id, category_id, BOXES[category_id], False) for image_id in (1, 2) for category_id in (1, 2, 3, 4)]
    return make_table([1, 2, 3], [1, 2, 3, 4, 5], [*rows, (3, 3, BOXES[3], True)])


def _detections_with_ap(ap_by_category: dict[int, float]) -> Detections:
    """Boxes whose AP is 1 (both found), .5 (one false positive above every hit) or 0 (nothing)."""
    found = []
    for category_id, ap in ap_by_category.items():
        for image_id in (1, 2):
            if ap > 0:
                found.append((image_id, category_id, BOXES[category_id], 0.6))
            if ap == 0.5:
                found.append((image_id, category_id, (0.0, 400.0, 20.0, 420.0), 0.9))
    return Detections(
        np.array([row[0] for row in found]),
        np.array([row[1] for row in found]),
        np.array([row[2] for row in found]),
        np.array([row[3] for row in found]),
    )


def _report(
    ground_truth: AnnotationTable, classes: ClassTable, ap_by_category: dict[int, float], run: str
) -> EvaluationReport:
    return build_report(ground_truth, _detections_with_ap(ap_by_category), classes, run=run, weights_sha256=SHA256)


def test_groups_name_the_classes_they_average(ground_truth: AnnotationTable) -> None:
    report = _report(ground_truth, CLASSES, {4: 1.0, 2: 0.5, 1: 0.0, 3: 0.5}, "step3")
    assert list(report.groups) == ["all", "old", "new", "step1", "step2", "step3"]
    assert report.groups["all"].classes == ("cat", "dog", "owl", "elk")
    assert report.groups["new"].classes == ("elk",)
    assert report.groups["new"].classes_without_objects == ("yak",)
    assert report.groups["old"].classes == ("cat", "dog", "owl")
    measured = {name: group.metrics.ap for name, group in report.groups.items()}
    expected = {"all": 0.5, "old": 0.5, "new": 0.5, "step1": 0.75, "step2": 0.0, "step3": 0.5}
    assert measured == pytest.approx(expected, abs=1e-9)


def test_report_counts_what_it_saw(ground_truth: AnnotationTable) -> None:
    report = _report(ground_truth, CLASSES, {4: 1.0, 2: 0.5}, "step3")
    assert (report.images, report.boxes, report.crowd_boxes, report.detections) == (3, 8, 1, 6)
    assert (report.run, report.weights_sha256, report.step, report.backend) == ("step3", SHA256, 3, "hotcoco")
    assert [(entry.name, entry.category_id, entry.step, entry.boxes) for entry in report.per_class] == [
        ("cat", 4, 1, 2),
        ("dog", 2, 1, 2),
        ("owl", 1, 2, 2),
        ("elk", 3, 3, 2),
        ("yak", 5, 3, 0),
    ]


def test_a_run_of_an_early_step_is_evaluated_on_its_own_classes(ground_truth: AnnotationTable) -> None:
    report = _report(ground_truth, CLASSES.up_to(1), {4: 1.0, 2: 1.0}, "step1")
    assert list(report.groups) == ["all", "new", "step1"]
    assert report.groups["all"] == report.groups["new"] == report.groups["step1"]
    assert (report.boxes, report.crowd_boxes) == (4, 0)
    assert report.overall.ap == pytest.approx(1.0)


def test_report_survives_json_and_has_no_nan(ground_truth: AnnotationTable) -> None:
    joint = _report(ground_truth, CLASSES, {4: 1.0, 2: 1.0, 1: 1.0, 3: 1.0}, "joint3")
    report = _report(ground_truth, CLASSES, {4: 1.0}, "step3").with_upper_bound(joint)
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert EvaluationReport.model_validate(json.loads(text)) == report
    assert json.loads(text)["per_class"][-1]["metrics"]["ap"] is None
    assert json.loads(text)["groups"]["all"]["metrics"]["ap_large"] is None


def test_classes_that_the_ground_truth_lacks_are_refused(ground_truth: AnnotationTable) -> None:
    with pytest.raises(DataError, match="category id 77 is not in the ground truth"):
        _report(ground_truth, class_table([[("cat", 4), ("gnu", 77)]]), {4: 1.0}, "step1")


def test_upper_bound_gives_gaps_and_deficits(ground_truth: AnnotationTable) -> None:
    joint = _report(ground_truth, CLASSES, {4: 1.0, 2: 1.0, 1: 0.5, 3: 1.0}, "joint3")
    report = _report(ground_truth, CLASSES, {4: 0.5, 2: 0.0, 1: 0.5, 3: 0.5}, "step3").with_upper_bound(joint)
    bound = report.upper_bound
    assert bound is not None
    assert bound.run == "joint3"
    assert bound.absolute_gap.ap == pytest.approx(0.875 - 0.375)
    assert bound.relative_gap.ap50 == pytest.approx(0.5 / 0.875)
    assert bound.absolute_gap.ap_large is None
    assert bound.rsd == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert bound.rpd == pytest.approx(0.5)
    assert bound.new_share == pytest.approx(0.5)


def test_a_joint_run_below_the_run_gives_no_ratio(ground_truth: AnnotationTable) -> None:
    joint = _report(ground_truth, CLASSES, {4: 0.5, 2: 0.5, 1: 0.5, 3: 0.5}, "joint3")
    report = _report(ground_truth, CLASSES, {4: 1.0, 2: 0.0, 1: 1.0, 3: 1.0}, "step3").with_upper_bound(joint)
    bound = report.upper_bound
    assert bound is not None
    assert bound.relative_gap.ap is bound.rsd is bound.rpd is bound.new_share is None
    assert bound.absolute_gap.ap == pytest.approx(-0.25)


def test_an_upper_bound_of_other_classes_or_images_is_refused(
    ground_truth: AnnotationTable, make_table: MakeTable
) -> None:
    report = _report(ground_truth, CLASSES, {4: 1.0}, "step3")
    with pytest.raises(DataError, match=r"'joint2': it averages other classes than 'step3' \(elk\)"):
        report.with_upper_bound(_report(ground_truth, CLASSES.up_to(2), {4: 1.0}, "joint2"))
    fewer = make_table(
        [1], [1, 2, 3, 4, 5], [(1, category_id, BOXES[category_id], False) for category_id in (1, 2, 3, 4)]
    )
    other = build_report(fewer, Detections.concatenate([]), CLASSES, run="joint3", weights_sha256=None)
    with pytest.raises(DataError, match="1 images with 4 boxes, 'step3' on 3 with 8"):
        report.with_upper_bound(other)


@pytest.fixture
def chain(ground_truth: AnnotationTable) -> list[EvaluationReport]:
    """Step 1 knows both classes, step 2 forgets one of them for half, step 3 forgets the owl."""
    return [
        _report(ground_truth, CLASSES.up_to(1), {4: 1.0, 2: 1.0}, "step1"),
        _report(ground_truth, CLASSES.up_to(2), {4: 1.0, 2: 0.0, 1: 1.0}, "step2"),
        _report(ground_truth, CLASSES, {4: 1.0, 2: 0.5, 1: 0.0, 3: 0.5}, "step3"),
    ]


def test_chain_summary_worked_out_by_hand(ground_truth: AnnotationTable, chain: list[EvaluationReport]) -> None:
    bounds = {
        2: _report(ground_truth, CLASSES.up_to(2), {4: 1.0, 2: 1.0, 1: 1.0}, "joint2"),
        3: _report(ground_truth, CLASSES, {4: 1.0, 2: 1.0, 1: 1.0, 3: 0.5}, "joint3"),
    }
    summary = summarize_chain(chain, bounds)
    ap = summary.by_metric["ap"]
    assert [list(row) for row in ap.ap_KJ] == [
        pytest.approx([1.0]),
        pytest.approx([0.5, 1.0]),
        pytest.approx([0.75, 0.0, 0.5]),
    ]
    assert ap.upper_bound_T[0] is None
    assert ap.upper_bound_T[1:] == pytest.approx((1.0, 0.875))
    assert ap.omega == pytest.approx((1 + (2 / 3) / 1.0 + 0.5 / 0.875) / 3)
    assert ap.absolute_gap == pytest.approx(0.375)
    assert ap.forgetting == pytest.approx((0.25, 1.0))
    assert ap.forgetting_percentage_points == pytest.approx(0.25)
    assert ap.backward_transfer == pytest.approx((-0.25 - 1.0) / 2)
    assert (ap.ap_old, ap.ap_new) == pytest.approx((0.5, 0.5))
    assert ap.harmonic_ap == pytest.approx(0.5)
    assert (summary.rsd, summary.rpd) == pytest.approx(((0 + 0.5 + 1) / 3, 0.0), abs=1e-9)
    assert (summary.runs, summary.upper_bounds) == (("step1", "step2", "step3"), {2: "joint2", 3: "joint3"})
    assert summary.by_metric["ap_large"].omega is None


def test_chain_without_upper_bounds_has_no_gap_but_knows_forgetting(chain: list[EvaluationReport]) -> None:
    summary = summarize_chain(chain)
    assert summary.by_metric["ap"].omega is summary.by_metric["ap"].relative_gap is summary.rsd is None
    assert summary.by_metric["ap"].forgetting == pytest.approx((0.25, 1.0))
    json.dumps(summary.to_dict(), allow_nan=False)


def test_chain_must_start_at_step_one_and_skip_none(chain: list[EvaluationReport]) -> None:
    for broken, steps in ((chain[1:], r"\[2, 3\]"), (chain[::2], r"\[1, 3\]"), ([], r"\[\]")):
        with pytest.raises(DataError, match=rf"the reports are of steps {steps}; give one report per step"):
            summarize_chain(broken)


def test_a_report_without_a_metric_that_was_added_later_is_read(ground_truth: AnnotationTable) -> None:
    document = _report(ground_truth, CLASSES, {4: 1.0}, "step3").to_dict()
    for part in (*document["groups"].values(), *document["per_class"]):
        del part["metrics"]["ap75"]
    report = EvaluationReport.model_validate(document)
    assert report.overall.ap75 is None and report.overall.ap50 is not None


def test_the_names_of_a_chain_as_json_stay(chain: list[EvaluationReport]) -> None:
    document = summarize_chain(chain).to_dict()
    assert list(document) == ["runs", "upper_bounds", "shared_first_step", "flavours", "rsd", "rpd"]
    assert list(document["flavours"]) == ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
