"""The result of evaluating one run: every number together with what it was averaged over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from ciod_core.classes import ClassEntry, ClassTable
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.errors import DataError
from ciod_core.evaluation.average_precision import Metrics, PrecisionTable, evaluate_detections
from ciod_core.evaluation.backends import BackendName
from ciod_core.evaluation.detections import Detections
from ciod_core.evaluation.incremental import absolute_gap, relative_deficit, relative_gap
from ciod_core.evaluation.labelled_sets import LabelledSets

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
        groups: `all`, `old` (classes of earlier steps; from step 2), `new` (of this step), `step1` … `stepT`. Where the
            images of several steps label different classes, a class counts in the first three on all images that label
            it, and in the others on those of the first step that labels it, so that they compare from step to step.
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
    step: int | None = None,
    labelled: LabelledSets | None = None,
) -> EvaluationReport:
    """Evaluate the detections of a run and report them by class group.

    Args:
        ground_truth: validation set with (at least) the categories of `classes`.
        detections: what the run found.
        classes: the classes the run knows.
        run: name of the run.
        weights_sha256: hash of the weights that made the detections.
        backend: engine that matches detections to ground truth.
        step: of the run; None: the last one in `classes`, which taught a class.
        labelled: where the classes are labelled; None: everywhere.

    Raises:
        DataError: when detections or classes do not belong to this ground truth.
    """
    if labelled is not None:
        ground_truth, detections = _labelled_part(ground_truth, detections, labelled)
    step = step or classes.last_step
    measured = _Measured.of(ground_truth, detections, classes, backend)
    comparable = measured
    if labelled is not None:
        first_part = _labelled_part(ground_truth, detections, labelled.first_only())
        comparable = _Measured.of(*first_part, classes, backend)
    of_known_class_N = np.isin(ground_truth.category_ids_N, classes.category_ids)
    groups = {name: measured.group(entries) for name, entries in _class_groups(classes, step).items()}
    groups |= {f"step{number}": comparable.group(classes.of_step(number).entries) for number in range(1, step + 1)}
    images_C = [ground_truth.num_images] * len(classes) if labelled is None else labelled.images_C.tolist()
    return EvaluationReport(
        run=run,
        weights_sha256=weights_sha256,
        step=step,
        backend=backend,
        images=ground_truth.num_images,
        boxes=groups["all"].boxes,
        crowd_boxes=int(np.count_nonzero(ground_truth.crowd_N & of_known_class_N)),
        detections=int(np.count_nonzero(np.isin(detections.category_ids_D, classes.category_ids))),
        groups=groups,
        per_class=tuple(
            ClassReport(
                name=entry.name,
                category_id=entry.category_id,
                step=entry.step,
                boxes=measured.boxes_by_id[entry.category_id],
                metrics=measured.precision.metrics([entry.category_id]),
                images=images,
            )
            for entry, images in zip(classes.entries, images_C, strict=True)
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


@dataclass(frozen=True)
class _Measured:
    """Precision of every class, and how many ground-truth boxes it was measured on, by category id."""

    precision: PrecisionTable
    boxes_by_id: dict[int, int]

    @classmethod
    def of(
        cls, ground_truth: AnnotationTable, detections: Detections, classes: ClassTable, backend: BackendName
    ) -> _Measured:
        counted_N = ~ground_truth.crowd_N
        boxes_by_id = {
            entry.category_id: int(np.count_nonzero(counted_N & (ground_truth.category_ids_N == entry.category_id)))
            for entry in classes.entries
        }
        return cls(evaluate_detections(ground_truth, detections, backend=backend), boxes_by_id)

    def group(self, entries: Sequence[ClassEntry]) -> GroupReport:
        """What was measured on a group of classes."""
        boxes_by_id = self.boxes_by_id
        return GroupReport(
            classes=tuple(entry.name for entry in entries if boxes_by_id[entry.category_id]),
            classes_without_objects=tuple(entry.name for entry in entries if not boxes_by_id[entry.category_id]),
            boxes=sum(boxes_by_id[entry.category_id] for entry in entries),
            metrics=self.precision.metrics(entry.category_id for entry in entries),
        )


def _labelled_part(
    ground_truth: AnnotationTable, detections: Detections, labelled: LabelledSets
) -> tuple[AnnotationTable, Detections]:
    """Boxes and detections of the classes that are labelled on their image; the images stay."""
    image_ids_N = ground_truth.image_ids_I[ground_truth.image_of_box_N]
    return (
        ground_truth.select(labelled.count(image_ids_N, ground_truth.category_ids_N)),
        detections.select(labelled.count(detections.image_ids_D, detections.category_ids_D)),
    )


def _class_groups(classes: ClassTable, step: int) -> dict[str, tuple[ClassEntry, ...]]:
    old = {"old": classes.up_to(step - 1).entries} if step > 1 else {}
    return {"all": classes.entries, **old, "new": classes.of_step(step).entries}


def _by_flavour(
    function: Callable[[float | None, float | None], float | None], metrics: Metrics, upper_bound: Metrics
) -> Metrics:
    values, bounds = asdict(metrics), asdict(upper_bound)
    return Metrics(**{flavour: function(values[flavour], bounds[flavour]) for flavour in FLAVOURS})
