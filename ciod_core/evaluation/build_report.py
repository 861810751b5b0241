"""From detections to a report: which classes are measured together, and on which images.

Where a class is not labeled, it is unknown whether a detection of it is right. So a class is measured on the
validation sets that label it, and on no others, as federated datasets such as LVIS do.

Legend: I images, S validation sets, T tables, C classes, N boxes or detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ciod_core.arrays import BoolArray, Int64Array
from ciod_core.classes import ClassEntry, ClassTable
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.evaluation.average_precision import PrecisionTable, evaluate_detections
from ciod_core.evaluation.backends import BackendName
from ciod_core.evaluation.detections import Detections
from ciod_core.evaluation.report import ClassReport, EvaluationReport, FalseAlarms, GroupReport

# From this score on a user would act on a detection.
FALSE_ALARM_SCORE = 0.3


@dataclass(frozen=True)
class LabeledSets:
    """The classes that are labeled on each validation image.

    Attributes:
        image_ids_I: image ids, ascending.
        set_I: the validation set of each image. A set is the images that the same tables have.
        labeled_SC: whether a set labels a class: one of its tables does.
        first_SC: whether the first table that labels a class is one of the set's.
        classes: the classes by label.
    """

    image_ids_I: Int64Array
    set_I: Int64Array
    labeled_SC: BoolArray
    first_SC: BoolArray
    classes: ClassTable

    @classmethod
    def of(cls, tables: Sequence[AnnotationTable], classes: ClassTable) -> LabeledSets:
        """A table labels the classes that it lists; several may have the same image, by its id."""
        ids_I = np.unique(np.concatenate([table.image_ids_I for table in tables]))
        absent_IT = np.stack([~np.isin(ids_I, table.image_ids_I) for table in tables], axis=1)
        absent_ST, set_I = np.unique(absent_IT, axis=0, return_inverse=True)
        listed = [np.array([category.id for category in table.categories], dtype=np.int64) for table in tables]
        labeled_TC = np.stack([np.isin(classes.category_ids, known) for known in listed])
        first_TC = labeled_TC & (np.cumsum(labeled_TC, axis=0) == 1)
        # Of booleans, the product is true where one of a set's tables labels the class.
        return cls(
            image_ids_I=ids_I,
            set_I=set_I.reshape(-1),
            labeled_SC=~absent_ST @ labeled_TC,
            first_SC=~absent_ST @ first_TC,
            classes=classes,
        )

    @property
    def complete(self) -> bool:
        """Whether every class is labeled on every image."""
        return bool(self.labeled_SC.all())

    @property
    def images_C(self) -> Int64Array:
        """Number of images that every class is measured on."""
        images_S = np.bincount(self.set_I, minlength=len(self.labeled_SC))
        return images_S @ self.labeled_SC.astype(np.int64)

    def first_only(self) -> LabeledSets:
        """Each class on the first table alone that labels it: what later ones add does not change its measure."""
        return replace(self, labeled_SC=self.first_SC)

    def without(self, chosen_C: BoolArray) -> BoolArray:
        """Mask of the sets that label none of these classes."""
        return np.logical_not(np.any(self.labeled_SC & chosen_C, axis=1))

    def as_negatives(self, chosen_C: BoolArray) -> LabeledSets:
        """The same sets, where those that label none of these classes show none of them."""
        negative_SC = self.without(chosen_C)[:, None] & chosen_C
        return replace(self, labeled_SC=self.labeled_SC | negative_SC)

    def count(self, image_ids_N: Int64Array, category_ids_N: Int64Array) -> BoolArray:
        """Mask of the boxes that count: those of a class that is labeled on their image."""
        labels_N = self.classes.labels_of(category_ids_N)
        set_N = self.set_I[np.searchsorted(self.image_ids_I, image_ids_N)]
        return np.asarray((labels_N >= 0) & self.labeled_SC[set_N, labels_N], dtype=np.bool_)


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
    negatives: bool = False,
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
        negatives: images of earlier steps show none of the new classes.

    Raises:
        DataError: when detections or classes do not belong to this ground truth.
    """
    step = step or classes.last_step
    false_alarms = None
    if labeled is not None:
        false_alarms = _false_alarms(ground_truth, detections, classes, step, labeled, backend if negatives else None)
        ground_truth, detections = labeled_part(ground_truth, detections, labeled)
    measured = _Measured.of(ground_truth, detections, classes, backend)
    comparable = measured
    if labeled is not None:
        first_part = labeled_part(ground_truth, detections, labeled.first_only())
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
        false_alarms=false_alarms,
    )


def _false_alarms(
    ground_truth: AnnotationTable,
    detections: Detections,
    classes: ClassTable,
    step: int,
    labeled: LabeledSets,
    backend: BackendName | None,
) -> FalseAlarms | None:
    """Detections of new classes on images of earlier steps; with a backend, AP with those images as negatives."""
    new = classes.of_step(step)
    new_C = np.isin(classes.category_ids, new.category_ids)
    unlabeled_I = labeled.without(new_C)[labeled.set_I]
    if step == 1 or not new_C.any() or not unlabeled_I.any():
        return None
    counted_D = np.isin(detections.category_ids_D, new.category_ids) & (detections.scores_D >= FALSE_ALARM_SCORE)
    counted_D &= np.isin(detections.image_ids_D, labeled.image_ids_I[unlabeled_I])
    metrics = None
    if backend is not None:
        everywhere = labeled_part(ground_truth, detections, labeled.as_negatives(new_C))
        metrics = _Measured.of(*everywhere, classes, backend).group(new.entries).metrics
    images = int(unlabeled_I.sum())
    return FalseAlarms(
        images=images,
        score=FALSE_ALARM_SCORE,
        per_image=int(counted_D.sum()) / images,
        new_with_negatives=metrics,
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


def labeled_part(
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
