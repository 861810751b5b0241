"""The result of evaluating one run: every number together with what it was averaged over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ciod_core.errors import DataError, listed
from ciod_core.evaluation.average_precision import METRICS, Metrics
from ciod_core.evaluation.backends import BackendName
from ciod_core.evaluation.incremental import absolute_gap, omega, relative_deficit, relative_gap
from ciod_core.migrations import REPORT_VERSION
from ciod_core.records import Record


class GroupReport(Record):
    """Metrics of a group of classes.

    Attributes:
        classes: the classes that were averaged.
        classes_without_objects: classes of the group that no evaluated image shows; they do not count.
        boxes: ground-truth boxes of the group, crowd boxes not counted.
        metrics: mean over `classes`.
    """

    classes: tuple[str, ...]
    classes_without_objects: tuple[str, ...]
    boxes: int
    metrics: Metrics


class ClassReport(Record):
    """Metrics of one class and what they were measured on.

    Attributes:
        name: of the class.
        category_id: the dataset's id.
        step: that taught it.
        boxes: ground-truth boxes, crowd boxes not counted.
        metrics: average precisions.
        images: images that label the class; None in reports from before there could be others.
    """

    name: str
    category_id: int
    step: int
    boxes: int
    metrics: Metrics
    images: int | None = None


class FalseAlarms(Record):
    """New classes on validation images of earlier steps, which are not labeled with them.

    Attributes:
        images: those images.
        score: lowest score of a detection that counts.
        per_image: detections of new classes per image.
        new_with_negatives: metrics of the new classes with these images as images that show none of them; None unless
            the user says that they show none.
    """

    images: int
    score: float
    per_image: float
    new_with_negatives: Metrics | None = None


class UpperBoundReport(Record):
    """Distance to the detector that was trained on all classes at once.

    Attributes:
        run: name of the joint run.
        metrics: its metrics over all classes, U.
        absolute_gap: U − AP for each metric.
        relative_gap: (U − AP) / U for each metric; None where U is below AP.
        rsd: mean over old classes of (AP_joint − AP) / AP_joint; None at step 1, and where it is below 0.
        rpd: the same over the new classes.
        new_share: AP of the new classes / that of the joint run; None where the joint run's is lower.
    """

    run: str
    metrics: Metrics
    absolute_gap: Metrics
    relative_gap: Metrics
    rsd: float | None
    rpd: float | None
    new_share: float | None = None

    @classmethod
    def between(cls, report: EvaluationReport, joint: EvaluationReport) -> UpperBoundReport:
        """The distance of a report to that of a joint run.

        Raises:
            DataError: when the joint run was evaluated on other classes or images.
        """
        require_comparable(report, joint)
        ap_C = {entry.name: entry.metrics.ap for entry in report.per_class}
        joint_ap_C = {entry.name: entry.metrics.ap for entry in joint.per_class}
        old = report.groups["old"].classes if "old" in report.groups else ()
        new_gap = relative_gap(report.groups["new"].metrics.ap, joint.groups["new"].metrics.ap)
        return cls(
            run=joint.run,
            metrics=joint.overall,
            absolute_gap=_for_each_metric(absolute_gap, report.overall, joint.overall),
            relative_gap=_for_each_metric(relative_gap, report.overall, joint.overall),
            rsd=relative_deficit(ap_C, joint_ap_C, old),
            rpd=relative_deficit(ap_C, joint_ap_C, report.groups["new"].classes),
            new_share=None if new_gap is None else 1.0 - new_gap,
        )


class PublishedBound(Record):
    """Distance to an upper bound of which only the AP is known.

    Attributes:
        ap: the bound, as a fraction.
        absolute_gap: U − AP.
        relative_gap: (U − AP) / U; None where U is below AP.
        omega: mean(1, AP / U) for a run of step 2; None for other steps, which need a bound for every step.
    """

    ap: float
    absolute_gap: float | None
    relative_gap: float | None
    omega: float | None


class EvaluationReport(Record):
    """One run evaluated on one set of images.

    Attributes:
        run: name of the run.
        weights_sha256: hash of the weights that made the detections; None for detections from elsewhere.
        step: step of the run, from 1.
        backend: engine that matched detections to ground truth.
        images: number of evaluated images.
        boxes: ground-truth boxes of the evaluated classes, crowd boxes not counted.
        crowd_boxes: crowd boxes of the evaluated classes, which neither count nor punish.
        detections: number of detections evaluated.
        groups: `all`, `old` (classes of earlier steps; from step 2), `new` (of this step), `step1` … `stepT`. Where the
            images of several steps label different classes, a class counts in the first three on all images that label
            it, and in the others on those of the first step that labels it, so that they compare from step to step.
        per_class: one entry per class, in the order the detector learned them.
        false_alarms: None where every validation image labels some new class, and at step 1.
        upper_bound: filled by `with_upper_bound`.
    """

    format_version: int = REPORT_VERSION
    run: str
    weights_sha256: str | None
    step: int
    backend: BackendName
    images: int
    boxes: int
    crowd_boxes: int
    detections: int
    groups: dict[str, GroupReport]
    per_class: tuple[ClassReport, ...]
    false_alarms: FalseAlarms | None = None
    upper_bound: UpperBoundReport | None = None

    @property
    def labels_differ(self) -> bool:
        """Whether some images label some of the classes alone."""
        return any(entry.images not in (None, self.images) for entry in self.per_class)

    @property
    def overall(self) -> Metrics:
        """Metrics over all classes."""
        return self.groups["all"].metrics

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values ready for JSON; None where a number does not exist, never NaN."""
        return self.model_dump(mode="json")

    def with_upper_bound(self, joint: EvaluationReport) -> EvaluationReport:
        """The same report with its distance to a joint run.

        Raises:
            DataError: when the joint run was evaluated on other classes or images.
        """
        return self.model_copy(update={"upper_bound": UpperBoundReport.between(self, joint)})


def require_comparable(report: EvaluationReport, joint: EvaluationReport) -> None:
    """Refuse an upper bound that was measured on something else.

    Raises:
        DataError: naming what differs.
    """
    names, joint_names = set(report.groups["all"].classes), set(joint.groups["all"].classes)
    if names != joint_names:
        differing = listed(sorted(names ^ joint_names))
        raise DataError(
            f"upper bound '{joint.run}': it averages other classes than '{report.run}' ({differing}); "
            f"evaluate a joint run of step {report.step}"
        )
    if (report.images, report.boxes) != (joint.images, joint.boxes):
        raise DataError(
            f"upper bound '{joint.run}': it was evaluated on {joint.images} images with {joint.boxes} boxes, "
            f"'{report.run}' on {report.images} with {report.boxes}; evaluate both on the same images"
        )


def published_bound(report: EvaluationReport, ap: float) -> PublishedBound:
    """The distance of a report to an AP (a fraction above 0) that was measured elsewhere."""
    own = report.overall.ap
    return PublishedBound(
        ap=ap,
        absolute_gap=absolute_gap(own, ap),
        relative_gap=relative_gap(own, ap),
        omega=omega((None, own), (None, ap)) if report.step == 2 else None,
    )


def _for_each_metric(
    function: Callable[[float | None, float | None], float | None], metrics: Metrics, upper_bound: Metrics
) -> Metrics:
    return Metrics(**{name: function(getattr(metrics, name), getattr(upper_bound, name)) for name in METRICS})
