"""A dataset in which people labeled the old classes as a teacher: every box counts as certain.

Legend: I images of the dataset, N boxes of all of them, K boxes of an image, C old classes.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from ciod_core.arrays import Int64Array
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.source import read_dataset, resolve_dataset
from ciod_core.errors import DataError
from ciod_core.files import MostBytes, read_bytes
from ciod_core.model.knowledge import Knowledge
from ciod_core.teachers.base import SourceFrameTeacher
from ciod_core.teachers.boxes import OldClassImages, lowest_score, one_score_each, select_boxes
from ciod_core.teachers.result_images import image_ids, notes_about_images
from ciod_core.teachers.teacher_classes import TeacherClasses, choose_classes, match_classes, read_teacher_classes


class _Annotation(msgspec.Struct, gc=False):
    score: object = None


class _Labels(msgspec.Struct):
    images: msgspec.Raw
    annotations: list[_Annotation]


def lists_labels(path: Path) -> bool:
    """Whether this is a dataset: a folder, or a COCO file whose boxes do not all have a score, as results have."""
    if path.is_dir():
        return True
    try:
        annotations = msgspec.json.decode(read_bytes(path, MostBytes.ANNOTATIONS), type=_Labels).annotations
    except (OSError, msgspec.DecodeError):  # Whoever reads it as results says what is wrong with it.
        return False
    return any(entry.score is None for entry in annotations)


class LabelsTeacher(SourceFrameTeacher):
    """The labels that a dataset has for images; it may be the export of a labeling tool, with image ids of its own."""

    def __init__(self, path: Path, classes_file: Path | None, old: OldClassImages) -> None:
        """Read a dataset and find the images, by file name, and the old classes of a step in it.

        Args:
            path: a COCO file, or a folder in any layout; of several splits, the training split is read.
            classes_file: has to be None, because a dataset names its classes.
            old: the images.

        Raises:
            ConfigError: an old class is not among its classes.
            DataError: the dataset cannot be read, has none of the images, or has one in another size or twice.
        """
        labels = read_coco(path) if path.is_file() else read_dataset(resolve_dataset(str(path)))[0]
        given = None if classes_file is None else read_teacher_classes(classes_file)
        own = TeacherClasses.from_pairs(path, ((category.id, category.name) for category in labels.categories))
        match = match_classes(choose_classes(path, own, given), old.classes)
        lowest_score(old.resampler)  # Refuses a rule that no list of boxes can serve.
        ids_I = image_ids(str(path), labels.file_names_I.tolist(), old.images.table)
        self._rows = _rows_by_image(path, ids_I, labels, old.images.table)
        super().__init__(
            old.identity(labels.sha256, "results", match.ids),
            old.images,
            (*match.notes, *notes_about_images(path, ids_I, old)),
        )
        self._labels = labels
        self._labels_N = match.labels_for(match.teacher.columns_for(labels.category_ids_N))
        self._num_classes = len(old.classes)

    def knowledge_of(self, index: int) -> Knowledge:
        """The objects of old classes in one image."""
        table, labels = self.images.table, self._labels
        rows_K = self._rows.get(int(table.image_ids_I[index]), np.zeros(0, dtype=np.int64))
        rows_K = rows_K[(self._labels_N[rows_K] >= 0) & ~labels.crowd_N[rows_K]]
        certain_K = np.ones(len(rows_K), dtype=np.float32)
        found = one_score_each(labels.boxes_N4[rows_K], self._labels_N[rows_K], certain_K, self._num_classes)
        return select_boxes(found, table.size_of(index), self.identity.resampler)


def _rows_by_image(
    path: Path, ids_I: Int64Array, labels: AnnotationTable, table: AnnotationTable
) -> dict[int, Int64Array]:
    """The rows of the boxes of each image of the step, by its id there."""
    sizes = {int(image_id): table.size_of(index) for index, image_id in enumerate(table.image_ids_I)}
    rows: dict[int, Int64Array] = {}
    for image, image_id in enumerate(ids_I.tolist()):
        name, size = labels.file_names_I[image], labels.size_of(image)
        if image_id not in sizes:
            continue
        if image_id in rows:
            raise DataError(f"{path}: {name} is there twice; leave one of both in it")
        if size != sizes[image_id]:
            stated, here = ("{} × {}".format(*pair) for pair in (size, sizes[image_id]))
            raise DataError(
                f"{path}: {name} is {stated} pixels there, {here} in {table.path}; export it in its own size"
            )
        rows[image_id] = np.arange(labels.offsets[image], labels.offsets[image + 1])
    return rows
