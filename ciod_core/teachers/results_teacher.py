"""A teacher that has answered already: the results file of any detector, image by image.

Legend: N results, K those that are kept, C old classes, T classes of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ciod_core.arrays import BoolArray, Int64Array
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.errors import DataError
from ciod_core.model.knowledge import ImageKnowledge, no_answers
from ciod_core.teachers.bank import BankInfo
from ciod_core.teachers.question import Opened, Question
from ciod_core.teachers.results_file import Results, read_results
from ciod_core.teachers.scored import clipped, has_extent, lowest_score, scored_answers, selected
from ciod_core.teachers.teacher_classes import Matching, match_classes, read_teacher_classes


@dataclass(frozen=True)
class ResultsTeacher:
    """What a results file says about images.

    Attributes:
        info: what is kept of it.
        images_root: the folder that file names are relative to.
        answers: those of all images that the score alone does not rule out.
        rows: which of them belong to an image, by its id.
        on_images: told the number of images.
    """

    info: BankInfo
    images_root: Path
    answers: ImageKnowledge
    rows: Mapping[int, Int64Array]
    on_images: Callable[[int], None] | None = None

    def ask(self, table: AnnotationTable) -> list[ImageKnowledge]:
        """What is kept of the results for every image of a table."""
        sizes = zip(table.image_ids_I.tolist(), table.widths_I.tolist(), table.heights_I.tolist(), strict=True)
        kept = [self._of_image(image_id, (width, height)) for image_id, width, height in sizes]
        if self.on_images is not None:
            self.on_images(table.num_images)
        return kept

    def _of_image(self, image_id: int, size: tuple[int, int]) -> ImageKnowledge:
        if image_id not in self.rows:
            return no_answers(len(self.info.classes))
        return selected(self.answers.pick(self.rows[image_id]), size, self.info.resampler)


def open_results(path: Path, classes_file: Path | None, question: Question) -> Opened:
    """Read a results file and find the images and the old classes of a step in it.

    Raises:
        ConfigError: the classes are not named, or an old one is not among them.
        DataError: the file is malformed, or knows none of the images.
    """
    results = read_results(path, None if classes_file is None else read_teacher_classes(classes_file))
    matching = match_classes(results.classes, question.old)
    in_step_N = np.isin(results.image_ids_N, question.table.image_ids_I)
    notes = (
        *matching.notes,
        *_about_images(path, results.image_ids_N, in_step_N, question),
        *_about_boxes(path, results, in_step_N, question.table),
    )
    labels_N = matching.labels_of(results.columns_N)
    kept_N = in_step_N & (labels_N >= 0) & (results.scores_N >= lowest_score(question.resampler))
    teacher = ResultsTeacher(
        question.described("results", path, matching),
        question.images_root,
        _answers(results, matching, labels_N, np.flatnonzero(kept_N)),
        _rows_by_image(results.image_ids_N[kept_N]),
        question.on_images,
    )
    return Opened(teacher, notes)


def _answers(results: Results, matching: Matching, labels_N: Int64Array, rows_K: Int64Array) -> ImageKnowledge:
    labels_K, vector_K = labels_N[rows_K], results.vector_N[rows_K]
    best_K = results.scores_N[rows_K]
    scores_KC = np.zeros((len(rows_K), len(matching.columns_C)), dtype=np.float32)
    scores_KC[np.arange(len(rows_K)), labels_K] = best_K
    stated_K = vector_K >= 0
    vectors_ST = results.vectors_MT[vector_K[stated_K]]
    scores_KC[stated_K] = vectors_ST[:, matching.columns_C]
    best_K[stated_K] = vectors_ST.max(axis=1)
    return scored_answers(results.boxes_N4[rows_K], labels_K, scores_KC, best_K)


def _rows_by_image(image_ids_K: Int64Array) -> dict[int, Int64Array]:
    order_K = np.argsort(image_ids_K, kind="stable")
    found, starts = np.unique(image_ids_K[order_K], return_index=True)
    return dict(zip(found.tolist(), np.split(order_K, starts[1:]), strict=False))


def _about_images(path: Path, image_ids_N: Int64Array, in_step_N: BoolArray, question: Question) -> tuple[str, ...]:
    """What a user should know about images that only one side has.

    Raises:
        DataError: there is none that both have.
    """
    listed = f"step {question.step} ({question.table.path})"
    num_known, num_listed = len(np.unique(image_ids_N[in_step_N])), len(np.unique(image_ids_N))
    num_images = question.table.num_images
    if not num_known:
        raise DataError(
            f"{path}: none of its {num_listed} image ids is among the {num_images} of {listed}; "
            "run the detector on the images of that file"
        )
    notes = []
    if num_listed > num_known:
        notes.append(
            f"{path}: {num_listed - num_known} of its {num_listed} images are not in {listed} and are left out"
        )
    if num_images > num_known:
        notes.append(f"{path}: has no result for {num_images - num_known} of the {num_images} images of {listed}")
    return tuple(notes)


def _about_boxes(path: Path, results: Results, in_step_N: BoolArray, table: AnnotationTable) -> tuple[str, ...]:
    """Says how many boxes nothing is left of in their images: other units than pixels would do that."""
    order_I = np.argsort(table.image_ids_I)
    place_K = np.searchsorted(table.image_ids_I, results.image_ids_N[in_step_N], sorter=order_I)
    sizes_I2 = np.stack((table.widths_I, table.heights_I), axis=1)
    empty_K = ~has_extent(clipped(results.boxes_N4[in_step_N], sizes_I2[order_I[place_K]].astype(np.float32)))
    if not empty_K.any():
        return ()
    return (
        f"{path}: {empty_K.sum()} of {len(empty_K)} boxes lie outside their image or are thinner than a pixel, and are "
        "left out; bbox is x, y, width, height in pixels",
    )
