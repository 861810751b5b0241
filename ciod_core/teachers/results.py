"""The COCO results file of any detector as a teacher.

Legend: N results of the file, K results of one image, C old classes, S results with a score for every class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ciod_core.arrays import BoolArray, Int64Array
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.errors import DataError
from ciod_core.files import sha256_of_file
from ciod_core.model.knowledge import Knowledge
from ciod_core.teachers.base import SourceFrameTeacher, TeacherIdentity
from ciod_core.teachers.boxes import OldClassImages, ScoredBoxes, clipped, has_extent, lowest_score, select_boxes
from ciod_core.teachers.results_file import Results, read_results
from ciod_core.teachers.teacher_classes import match_classes, read_teacher_classes


class ResultsTeacher(SourceFrameTeacher):
    """The results that a file lists for images.

    Attributes:
        notes: mismatches between file and images that a user should know.
    """

    def __init__(self, path: Path, classes_file: Path | None, asked: OldClassImages) -> None:
        """Read a results file and find the images and old classes of a step in it.

        Raises:
            ConfigError: the classes are not named, or an old one is not among them.
            DataError: the file is malformed, or lists none of the images.
        """
        results = read_results(path, None if classes_file is None else read_teacher_classes(classes_file))
        match = match_classes(results.classes, asked.classes)
        identity = TeacherIdentity(
            teacher_sha256=sha256_of_file(path),
            classes=asked.classes.names,
            image_size=0,
            resampler=asked.resampler,
            teacher="results",
            teacher_ids=match.ids,
        )
        super().__init__(identity, asked.images)
        in_step_N = np.isin(results.image_ids_N, asked.images.table.image_ids_I)
        self.notes = (
            *match.notes,
            *_notes_about_images(path, results.image_ids_N, in_step_N, asked),
            *_notes_about_boxes(path, results, in_step_N, asked.images.table),
        )
        self._results, self._columns_C = results, match.columns_C
        self._labels_N = match.labels_for(results.columns_N)
        kept_N = in_step_N & (self._labels_N >= 0) & (results.scores_N >= lowest_score(asked.resampler))
        self._rows = _rows_by_image(results.image_ids_N, np.flatnonzero(kept_N))

    def knowledge_of(self, index: int) -> Knowledge:
        """The results for one image that the resampler keeps."""
        table = self.images.table
        rows_K = self._rows.get(int(table.image_ids_I[index]), np.zeros(0, dtype=np.int64))
        labels_K, vector_K = self._labels_N[rows_K], self._results.vector_N[rows_K]
        best_K = self._results.scores_N[rows_K]
        scores_KC = np.zeros((len(rows_K), len(self._columns_C)), dtype=np.float32)
        scores_KC[np.arange(len(rows_K)), labels_K] = best_K
        stated_K = vector_K >= 0
        if stated_K.any():
            vectors_ST = self._results.vectors_MT[vector_K[stated_K]]
            scores_KC[stated_K] = vectors_ST[:, self._columns_C]
            best_K[stated_K] = vectors_ST.max(axis=1)
        found = ScoredBoxes(self._results.boxes_N4[rows_K], labels_K, scores_KC, best_K)
        size = int(table.widths_I[index]), int(table.heights_I[index])
        return select_boxes(found, size, self.identity.resampler)


def _rows_by_image(image_ids_N: Int64Array, kept_K: Int64Array) -> dict[int, Int64Array]:
    order_K = kept_K[np.argsort(image_ids_N[kept_K], kind="stable")]
    found, starts = np.unique(image_ids_N[order_K], return_index=True)
    return dict(zip(found.tolist(), np.split(order_K, starts[1:]), strict=False))


def _notes_about_images(
    path: Path, image_ids_N: Int64Array, in_step_N: BoolArray, asked: OldClassImages
) -> tuple[str, ...]:
    """Notes about images that only one side has.

    Raises:
        DataError: they have none in common.
    """
    table = asked.images.table
    listed = f"step {asked.step} ({table.path})"
    num_known, num_listed = len(np.unique(image_ids_N[in_step_N])), len(np.unique(image_ids_N))
    if not num_known:
        raise DataError(
            f"{path}: none of its {num_listed} image ids is among the {table.num_images} of {listed}; "
            "run the detector on the images of that file"
        )
    notes = []
    if num_listed > num_known:
        notes.append(f"{path}: skipped {num_listed - num_known} of its {num_listed} images, which are not in {listed}")
    if table.num_images > num_known:
        missing = table.num_images - num_known
        notes.append(f"{path}: has no result for {missing} of the {table.num_images} images of {listed}")
    return tuple(notes)


def _notes_about_boxes(path: Path, results: Results, in_step_N: BoolArray, table: AnnotationTable) -> tuple[str, ...]:
    """A note about boxes outside their image, if there are any: other units than pixels would cause that."""
    order_I = np.argsort(table.image_ids_I)
    place_K = np.searchsorted(table.image_ids_I, results.image_ids_N[in_step_N], sorter=order_I)
    sizes_I2 = np.stack((table.widths_I, table.heights_I), axis=1)
    empty_K = ~has_extent(clipped(results.boxes_N4[in_step_N], sizes_I2[order_I[place_K]].astype(np.float32)))
    if not empty_K.any():
        return ()
    return (
        f"{path}: dropped {empty_K.sum()} of {len(empty_K)} boxes, which lie outside their image or are thinner than a "
        "pixel; bbox is x, y, width, height in pixels",
    )
