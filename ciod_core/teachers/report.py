"""A summary of a knowledge bank, with recall and precision where the hidden labels of the old classes are known.

Legend: K boxes of the bank in an image, G ground-truth boxes of an image, C old classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ciod_core.arrays import Float32Array, Int64Array
from ciod_core.classes import ClassTable
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.model.common.boxes import pairwise_iou
from ciod_core.model.knowledge import Knowledge
from ciod_core.records import Record
from ciod_core.teachers.bank import BankTeacher

MATCH_IOU = 0.5
HISTOGRAM_BINS = 10


@dataclass(frozen=True)
class StepBank:
    """A bank for the images of a step.

    Attributes:
        teacher: the bank and its images.
        step: the step that the images belong to, or the one after the teacher's.
        classes: the old classes.
        num_new: images that the teacher ran on now; the bank held the others already.
        hidden: all labels of the dataset; None where there are none.
        notes: what a user should know about how the teacher fits, a line each.
    """

    teacher: BankTeacher
    step: int
    classes: ClassTable
    num_new: int
    hidden: AnnotationTable | None
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file of the bank."""
        return self.teacher.bank.path

    def hidden_objects(self, index: int) -> tuple[Float32Array, Int64Array] | None:
        """Boxes (G, 4) and labels (G,) of the old classes in an image; None where they are unknown."""
        row = self._hidden_rows.get(int(self.teacher.images.table.image_ids_I[index]))
        if self.hidden is None or row is None:
            return None
        rows = self.hidden.rows_of(row)
        labels_G = self.classes.labels_of(self.hidden.category_ids_N[rows])
        counted_G = (labels_G >= 0) & ~self.hidden.crowd_N[rows]
        return self.hidden.boxes_N4[rows][counted_G], labels_G[counted_G]

    @cached_property
    def _hidden_rows(self) -> dict[int, int]:
        ids = [] if self.hidden is None else self.hidden.image_ids_I.tolist()
        return {image_id: row for row, image_id in enumerate(ids)}


class ClassKnowledge(Record):
    """The boxes of one class in a bank.

    Attributes:
        name: of the class.
        answers: boxes in the bank.
        images: images with at least one.
        hidden_boxes: ground-truth boxes that the step's file hides; None where they are unknown.
        found: of those, how many a box of the bank matches with IoU ≥ 0.5.
    """

    name: str
    answers: int
    images: int
    hidden_boxes: int | None = None
    found: int | None = None

    @property
    def recall(self) -> float | None:
        """Share of the hidden boxes that are found."""
        return self.found / self.hidden_boxes if self.found is not None and self.hidden_boxes else None

    @property
    def precision(self) -> float | None:
        """Share of the bank's boxes that match a hidden box of their own."""
        return self.found / self.answers if self.found is not None and self.answers else None


class BankSummary(Record):
    """The boxes of a bank for the images of a step.

    Attributes:
        images: of the step.
        per_class: by label.
        histogram: boxes by score, in ten equal bins of 0..1.
    """

    images: int
    per_class: tuple[ClassKnowledge, ...]
    histogram: tuple[int, ...]

    @property
    def total(self) -> ClassKnowledge:
        """All classes together; `images` counts an image once for each of its classes."""
        known = [entry for entry in self.per_class if entry.hidden_boxes is not None]
        return ClassKnowledge(
            name="all",
            answers=sum(entry.answers for entry in self.per_class),
            images=sum(entry.images for entry in self.per_class),
            hidden_boxes=sum(entry.hidden_boxes or 0 for entry in known) if known else None,
            found=sum(entry.found or 0 for entry in known) if known else None,
        )


def summarize(bank: StepBank) -> BankSummary:
    """Count the boxes of a bank, and those that match hidden labels."""
    num_classes, num_images = len(bank.classes), bank.teacher.images.table.num_images
    counts_4C = np.zeros((4, num_classes), np.int64)
    scores: list[np.ndarray] = [np.zeros(0, np.float32)]
    for index in range(num_images):
        known = bank.teacher.knowledge_of(index)
        labels_K, hidden = known.labels_K.numpy(), bank.hidden_objects(index)
        count_C = np.bincount(labels_K, minlength=num_classes)
        counts_4C[0] += count_C
        counts_4C[1] += count_C > 0
        scores.append(known.scores_K.numpy())
        if hidden is not None:
            boxes_G4, labels_G = hidden
            counts_4C[2] += np.bincount(labels_G, minlength=num_classes)
            counts_4C[3] += np.bincount(labels_G[found_boxes(known, boxes_G4, labels_G)], minlength=num_classes)
    histogram, _ = np.histogram(np.concatenate(scores), bins=HISTOGRAM_BINS, range=(0.0, 1.0))
    return BankSummary(
        images=num_images,
        per_class=tuple(
            ClassKnowledge(
                name=name,
                answers=answers,
                images=images,
                hidden_boxes=None if bank.hidden is None else hidden_boxes,
                found=None if bank.hidden is None else found,
            )
            for name, (answers, images, hidden_boxes, found) in zip(
                bank.classes.names, counts_4C.T.tolist(), strict=True
            )
        ),
        histogram=tuple(histogram.tolist()),
    )


def found_boxes(known: Knowledge, boxes_G4: Float32Array, labels_G: Int64Array) -> Int64Array:
    """Indices of the ground truth that boxes match: by descending score, each takes the free box it overlaps most."""
    if not len(known) or not len(labels_G):
        return np.zeros(0, np.int64)
    iou_KG = pairwise_iou(known.boxes_K4, torch.from_numpy(boxes_G4)).numpy()
    iou_KG = np.where(known.labels_K.numpy()[:, None] == labels_G, iou_KG, 0.0)
    found = []
    for box in np.argsort(-known.scores_K.numpy(), kind="stable"):
        best = int(iou_KG[box].argmax())
        if iou_KG[box, best] >= MATCH_IOU:
            found.append(best)
            iou_KG[:, best] = 0.0
    return np.array(found, dtype=np.int64)
