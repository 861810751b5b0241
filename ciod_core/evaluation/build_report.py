"""From detections to a report: which classes are measured together, and on which images.

Legend: C classes, N ground-truth boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ciod_core.classes import ClassEntry, ClassTable
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.evaluation.average_precision import PrecisionTable, evaluate_detections
from ciod_core.evaluation.backends import BackendName
from ciod_core.evaluation.detections import Detections
from ciod_core.evaluation.labeled_sets import LabeledSets
from ciod_core.evaluation.report import ClassReport, EvaluationReport, GroupReport


def build_report(
    ground_truth: AnnotationTable,
    detections: Detections,
    classes: ClassTable,
    *,
    run: str,
    weights_sha256: str | None,
    backend: BackendName = "hotcoco",
    step: int | None = None,
    labeled: LabeledSets | None = None,
) -> EvaluationReport:
    """Match the detections of a run to ground truth and report them by class group.

    Args:
        ground_truth: validation set with (at least) the categories of `classes`.
        detections: of all images.
        classes: the classes the run knows.
        run: name of the run.
        weights_sha256: hash of the weights that made the detections.
        backend: engine that matches detections to ground truth.
        step: of the run; None: the last one in `classes`.
        labeled: where the classes are labeled; None: everywhere.

    Raises:
        DataError: when detections or classes do not belong to this ground truth.
    """
    if labeled is not None:
        ground_truth, detections = _labeled_part(ground_truth, detections, labeled)
    step = step or classes.last_step
    measured = _Measured.of(ground_truth, detections, classes, backend)
    comparable = measured
    if labeled is not None:
        first_part = _labeled_part(ground_truth, detections, labeled.first_only())
        comparable = _Measured.of(*first_part, classes, backend)
    of_known_class_N = np.isin(ground_truth.category_ids_N, classes.category_ids)
    groups = {name: measured.group(entries) for name, entries in _class_groups(classes, step).items()}
    groups |= {f"step{number}": comparable.group(classes.of_step(number).entries) for number in range(1, step + 1)}
    images_C = [ground_truth.num_images] * len(classes) if labeled is None else labeled.images_C.tolist()
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
        """The mean over a group of classes."""
        boxes_by_id = self.boxes_by_id
        return GroupReport(
            classes=tuple(entry.name for entry in entries if boxes_by_id[entry.category_id]),
            classes_without_objects=tuple(entry.name for entry in entries if not boxes_by_id[entry.category_id]),
            boxes=sum(boxes_by_id[entry.category_id] for entry in entries),
            metrics=self.precision.metrics(entry.category_id for entry in entries),
        )


def _labeled_part(
    ground_truth: AnnotationTable, detections: Detections, labeled: LabeledSets
) -> tuple[AnnotationTable, Detections]:
    """Boxes and detections of the classes that are labeled on their image; the images stay."""
    image_ids_N = ground_truth.image_ids_I[ground_truth.image_of_box_N]
    return (
        ground_truth.select(labeled.count(image_ids_N, ground_truth.category_ids_N)),
        detections.select(labeled.count(detections.image_ids_D, detections.category_ids_D)),
    )


def _class_groups(classes: ClassTable, step: int) -> dict[str, tuple[ClassEntry, ...]]:
    old = {"old": classes.up_to(step - 1).entries} if step > 1 else {}
    return {"all": classes.entries, **old, "new": classes.of_step(step).entries}
