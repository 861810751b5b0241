"""What a bank holds, and how much of it is true where the hidden labels of the old classes are known.

Legend: K kept answers of an image, G ground-truth boxes of an image, C old classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from ciod_core.arrays import Int64Array
from ciod_core.classes import ClassTable
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.model.common.boxes import pairwise_iou
from ciod_core.model.knowledge import ImageKnowledge
from ciod_core.teachers.bank import KnowledgeBank

MATCH_IOU = 0.5
HISTOGRAM_BINS = 10


class SummaryPart(BaseModel):
    """Base of every part of a summary: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassKnowledge(SummaryPart):
    """What is known of one class.

    Attributes:
        name: of the class.
        answers: kept answers.
        images: images with at least one.
        hidden_boxes: boxes that the step's file hides; None where nobody knows them.
        found: of those, how many an answer names with IoU ≥ 0.5.
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
        """Share of the answers that find a hidden box of their own."""
        return self.found / self.answers if self.found is not None and self.answers else None


class BankSummary(SummaryPart):
    """What a bank holds for the images of a step.

    Attributes:
        images: of the step.
        per_class: by label.
        histogram: answers by score, in ten equal bins of 0..1.
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


def summarise(
    bank: KnowledgeBank,
    hashes: Sequence[str],
    classes: ClassTable,
    table: AnnotationTable,
    hidden: AnnotationTable | None,
) -> BankSummary:
    """Count what is known of a step's images.

    Args:
        bank: knows all of them.
        hashes: SHA-256 of every image of `table`.
        classes: the old classes.
        table: the step's images.
        hidden: all labels of the dataset, the hidden ones among them; None where there are none.
    """
    num_classes = len(classes)
    answers_C, images_C = np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64)
    boxes_C, found_C = np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64)
    scores: list[np.ndarray] = []
    row_of = {} if hidden is None else {image_id: row for row, image_id in enumerate(hidden.image_ids_I.tolist())}
    for sha256, image_id in zip(hashes, table.image_ids_I.tolist(), strict=True):
        kept = bank.of_image(sha256)
        assert kept is not None
        count_C = np.bincount(kept.labels_K, minlength=num_classes)
        answers_C += count_C
        images_C += count_C > 0
        scores.append(kept.scores_K)
        if hidden is not None and image_id in row_of:
            boxes_G4, labels_G = old_labels(hidden, row_of[image_id], classes)
            boxes_C += np.bincount(labels_G, minlength=num_classes)
            found_C += np.bincount(labels_G[found_boxes(kept, boxes_G4, labels_G)], minlength=num_classes)
    histogram, _ = np.histogram(np.concatenate(scores or [np.zeros(0)]), bins=HISTOGRAM_BINS, range=(0.0, 1.0))
    return BankSummary(
        images=table.num_images,
        per_class=tuple(
            ClassKnowledge(
                name=name,
                answers=int(answers_C[label]),
                images=int(images_C[label]),
                hidden_boxes=None if hidden is None else int(boxes_C[label]),
                found=None if hidden is None else int(found_C[label]),
            )
            for label, name in enumerate(classes.names)
        ),
        histogram=tuple(int(count) for count in histogram),
    )


def old_labels(hidden: AnnotationTable, row: int, classes: ClassTable) -> tuple[np.ndarray, Int64Array]:
    """Boxes and labels of the old classes in one row of a table; crowds are left out."""
    rows = hidden.rows_of(row)
    labels_G = classes.labels_of(hidden.category_ids_N[rows])
    counted_G = (labels_G >= 0) & ~hidden.crowd_N[rows]
    return hidden.boxes_N4[rows][counted_G], labels_G[counted_G]


def found_boxes(kept: ImageKnowledge, boxes_G4: np.ndarray, labels_G: Int64Array) -> Int64Array:
    """Indices of the ground truth that answers find: best answer first, each takes the free box it overlaps most."""
    if not len(kept) or not len(labels_G):
        return np.zeros(0, np.int64)
    iou_KG = pairwise_iou(torch.from_numpy(kept.boxes_K4), torch.from_numpy(boxes_G4)).numpy()
    iou_KG = np.where(kept.labels_K[:, None] == labels_G, iou_KG, 0.0)
    found = []
    for answer in np.argsort(-kept.scores_K, kind="stable"):
        best = int(iou_KG[answer].argmax())
        if iou_KG[answer, best] >= MATCH_IOU:
            found.append(best)
            iou_KG[:, best] = 0.0
    return np.array(found, dtype=np.int64)
