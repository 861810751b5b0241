"""The result of evaluating one run: every number together with what it was averaged over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from ciod_core.classes import ClassEntry, ClassTable
from ciod_core.data.annotations import AnnotationTable
from ciod_core.errors import DataError
from ciod_core.evaluation.average_precision import Metrics, PrecisionTable, evaluate_detections
from ciod_core.evaluation.backends import BackendName
from ciod_core.evaluation.detections import Detections
from ciod_core.evaluation.incremental import absolute_gap, relative_deficit, relative_gap

FLAVOURS: tuple[str, ...] = tuple(field.name for field in fields(Metrics))


class ReportPart(BaseModel):
    """Base of every part of a report: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GroupReport(ReportPart):
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


class ClassReport(ReportPart):
    """Metrics of one class and the number of its ground-truth boxes (crowd boxes not counted)."""

    name: str
    category_id: int
    step: int
    boxes: int
    metrics: Metrics


class UpperBoundReport(ReportPart):
    """Distance to the detector that was trained on all classes at once.

    Attributes:
        run: name of the joint run.
        metrics: its metrics over all classes, U.
        absolute_gap: U − AP for each flavour.
        relative_gap: (U − AP) / U for each flavour.
        rsd: mean over old classes of (AP_joint − AP) / AP_joint; None at step 1.
        rpd: the same over the new classes.
    """

    run: str
    metrics: Metrics
    absolute_gap: Metrics
    relative_gap: Metrics
    rsd: float | None
    rpd: float | None


class EvaluationReport(ReportPart):
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
        groups: `all`, `old` (classes of earlier steps; from step 2), `new` (of this step), `step1` … `stepT`.
        per_class: one entry per class, in the order the detector learned them.
        upper_bound: filled by `with_upper_bound`.
    """

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
    upper_bound: UpperBoundReport | None = None

    @property
    def overall(self) -> Metrics:
        """Metrics over all classes."""
        return self.groups["all"].metrics

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values ready for JSON; None where a number does not exist, never NaN."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> EvaluationReport:
        """The report that `to_dict` wrote."""
        return cls.model_validate(document)

    def with_upper_bound(self, joint: EvaluationReport) -> EvaluationReport:
        """The same report with its distance to a joint run.

        Raises:
            DataError: when the joint run was evaluated on other classes or images.
        """
        require_comparable(self, joint)
        ap_C = {entry.name: entry.metrics.ap for entry in self.per_class}
        joint_ap_C = {entry.name: entry.metrics.ap for entry in joint.per_class}
        old = self.groups["old"].classes if "old" in self.groups else ()
        bound = UpperBoundReport(
            run=joint.run,
            metrics=joint.overall,
            absolute_gap=_by_flavour(absolute_gap, self.overall, joint.overall),
            relative_gap=_by_flavour(relative_gap, self.overall, joint.overall),
            rsd=relative_deficit(ap_C, joint_ap_C, old),
            rpd=relative_deficit(ap_C, joint_ap_C, self.groups["new"].classes),
        )
        return self.model_copy(update={"upper_bound": bound})


def evaluate_run(
    ground_truth: AnnotationTable,
    detections: Detections,
    classes: ClassTable,
    *,
    run: str,
    weights_sha256: str | None,
    backend: BackendName = "hotcoco",
) -> EvaluationReport:
    """Evaluate the detections of a run and report them by class group.

    Args:
        ground_truth: validation set with (at least) the categories of `classes`.
        detections: what the run found.
        classes: the classes the run knows; the last step in it is the run's step.
        run: name of the run.
        weights_sha256: hash of the weights that made the detections.
        backend: engine that matches detections to ground truth.

    Raises:
        DataError: when detections or classes do not belong to this ground truth.
    """
    precision = evaluate_detections(ground_truth, detections, backend=backend)
    counted_N = ~ground_truth.crowd_N
    boxes_by_id = {
        entry.category_id: int(np.count_nonzero(counted_N & (ground_truth.category_ids_N == entry.category_id)))
        for entry in classes.entries
    }
    of_known_class_N = np.isin(ground_truth.category_ids_N, classes.category_ids)
    groups = {name: _group_report(entries, precision, boxes_by_id) for name, entries in _class_groups(classes).items()}
    return EvaluationReport(
        run=run,
        weights_sha256=weights_sha256,
        step=classes.last_step,
        backend=backend,
        images=ground_truth.num_images,
        boxes=groups["all"].boxes,
        crowd_boxes=int(np.count_nonzero(ground_truth.crowd_N & of_known_class_N)),
        detections=int(np.count_nonzero(np.isin(detections.category_ids_D, classes.category_ids))),
        groups=groups,
        per_class=tuple(
            ClassReport(
                **entry.model_dump(),
                boxes=boxes_by_id[entry.category_id],
                metrics=precision.metrics([entry.category_id]),
            )
            for entry in classes.entries
        ),
    )


def require_comparable(report: EvaluationReport, joint: EvaluationReport) -> None:
    """Refuse an upper bound that was measured on something else.

    Raises:
        DataError: naming what differs.
    """
    names, joint_names = set(report.groups["all"].classes), set(joint.groups["all"].classes)
    if names != joint_names:
        differing = ", ".join(sorted(names ^ joint_names)[:5])
        raise DataError(
            f"upper bound '{joint.run}': it averages other classes than '{report.run}' ({differing}); "
            f"evaluate a joint run of step {report.step}"
        )
    if (report.images, report.boxes) != (joint.images, joint.boxes):
        raise DataError(
            f"upper bound '{joint.run}': it was evaluated on {joint.images} images with {joint.boxes} boxes, "
            f"'{report.run}' on {report.images} with {report.boxes}; evaluate both on the same images"
        )


def _class_groups(classes: ClassTable) -> dict[str, tuple[ClassEntry, ...]]:
    last = classes.last_step
    groups = {"all": classes.entries}
    if last > 1:
        groups["old"] = classes.up_to(last - 1).entries
    groups["new"] = classes.of_step(last).entries
    return groups | {f"step{step}": classes.of_step(step).entries for step in range(1, last + 1)}


def _group_report(entries: Iterable[ClassEntry], precision: PrecisionTable, boxes_by_id: dict[int, int]) -> GroupReport:
    listed = tuple(entries)
    return GroupReport(
        classes=tuple(entry.name for entry in listed if boxes_by_id[entry.category_id]),
        classes_without_objects=tuple(entry.name for entry in listed if not boxes_by_id[entry.category_id]),
        boxes=sum(boxes_by_id[entry.category_id] for entry in listed),
        metrics=precision.metrics(entry.category_id for entry in listed),
    )


def _by_flavour(
    function: Callable[[float | None, float | None], float | None], metrics: Metrics, upper_bound: Metrics
) -> Metrics:
    values, bounds = asdict(metrics), asdict(upper_bound)
    return Metrics(**{flavour: function(values[flavour], bounds[flavour]) for flavour in FLAVOURS})
