"""A step's labels and a bank's boxes of old classes as one dataset, for review in a labeling tool.

Legend: N boxes that the step labels, on an image or on all; K boxes of the bank; M boxes of the dataset.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ciod_core.arrays import Float64Array
from ciod_core.data.annotations.merging import merge
from ciod_core.data.annotations.table import AnnotationTable, Category, offsets_of
from ciod_core.data.formats.write import WrittenFormat, write_dataset
from ciod_core.model.base import Targets
from ciod_core.model.knowledge import Knowledge
from ciod_core.teachers.report import StepBank


class ReviewLabels(NamedTuple):
    """The dataset, and the teacher's score of each box; NaN for labels."""

    table: AnnotationTable
    scores_M: Float64Array

    @property
    def num_own(self) -> int:
        """Number of labels of the step."""
        return int(np.isnan(self.scores_M).sum())

    @property
    def num_teacher(self) -> int:
        """Number of boxes of the bank."""
        return len(self.scores_M) - self.num_own


def write_labels(bank: StepBank, folder: Path, format: WrittenFormat, ground_truth_iou: float) -> ReviewLabels:
    """Write the step's images with its own labels and, beside them, the bank's boxes of old classes.

    Args:
        bank: the bank and its images.
        folder: new, or empty.
        format: as for `write_dataset`; COCO has the teacher's scores.
        ground_truth_iou: a box of the bank that overlaps a label by this IoU is left out, as in training.

    Raises:
        ConfigError, DataError, OSError: as `write_dataset`.
    """
    labels = review_labels(bank, ground_truth_iou)
    write_dataset(folder, labels.table, bank.teacher.images.image_dir, format, labels.scores_M)
    return labels


def review_labels(bank: StepBank, ground_truth_iou: float) -> ReviewLabels:
    """The dataset that `write_labels` writes; its classes are the old ones and those of the step."""
    own = bank.teacher.images.table
    parts = [_beside_labels(bank, index, ground_truth_iou) for index in range(own.num_images)]
    counts_I = np.array([len(part) for part in parts], dtype=np.int64)
    known = Knowledge.of_batch([Knowledge.empty(len(bank.classes)), *parts])
    boxes_K4 = known.boxes_K4.numpy()
    first_id = int(own.annotation_ids_N.max(initial=0)) + 1
    old = tuple(Category(entry.category_id, entry.name) for entry in bank.classes.entries)
    teacher = replace(
        own.without_boxes(),
        offsets=offsets_of(counts_I),
        annotation_ids_N=first_id + np.arange(len(known), dtype=np.int64),
        category_ids_N=np.array(bank.classes.category_ids, dtype=np.int64)[known.labels_K.numpy()],
        boxes_N4=boxes_K4,
        areas_N=np.prod(boxes_K4[:, 2:] - boxes_K4[:, :2], axis=1),
        crowd_N=np.zeros(len(known), dtype=np.bool_),
        categories=old,
    )
    merged = merge(own, teacher)
    scores_M = np.full(merged.num_boxes, np.nan)
    # Both keep the order of images, and the bank's boxes their own within one.
    scores_M[merged.annotation_ids_N >= first_id] = known.scores_K.numpy()
    new = (category for category in own.categories if category not in old)
    return ReviewLabels(replace(merged, categories=(*old, *new)), scores_M)


def _beside_labels(bank: StepBank, index: int, ground_truth_iou: float) -> Knowledge:
    """The bank's boxes on an image, without those that cover a label."""
    table = bank.teacher.images.table
    boxes_N4 = torch.from_numpy(table.boxes_N4[table.rows_of(index)][~table.crowd_N[table.rows_of(index)]])
    nothing_N = torch.zeros(len(boxes_N4), dtype=torch.int64)
    return bank.teacher.knowledge_of(index).without_overlap(Targets(boxes_N4, nothing_N, nothing_N), ground_truth_iou)
