"""The COCO results file of any detector as a teacher.

Legend: N results of the file, M results with a score for every class, K results of one image, C old classes,
T classes of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np

from ciod_core.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from ciod_core.data.annotations.box_form import FEWEST_BOXES
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import CocoCategory, Integer
from ciod_core.data.formats.json_text import collection_paused, decode_json
from ciod_core.errors import DataError
from ciod_core.files import MostBytes, read_bytes, sha256_of_file
from ciod_core.model.knowledge import Knowledge
from ciod_core.teachers.base import SourceFrameTeacher
from ciod_core.teachers.boxes import (
    OldClassImages,
    clipped,
    has_extent,
    lowest_score,
    one_score_each,
    select_boxes,
)
from ciod_core.teachers.result_images import image_ids, notes_about_images
from ciod_core.teachers.teacher_classes import TeacherClasses, choose_classes, match_classes, read_teacher_classes

FORM = (
    "a results file is a list of {image_id, category_id, bbox, score}, or an object with such a list as annotations, "
    "and categories"
)
LARGEST_COORDINATE = 1e7
# Scores are often written with two or three digits.
ROUNDING = 0.01


class ResultsTeacher(SourceFrameTeacher):
    """The results that a file lists for images."""

    def __init__(self, path: Path, classes_file: Path | None, old: OldClassImages) -> None:
        """Read a results file and find the images and old classes of a step in it.

        Raises:
            ConfigError: the classes are not named, or an old one is not among them.
            DataError: the file is malformed, or lists none of the images.
        """
        classes = None if classes_file is None else read_teacher_classes(classes_file)
        results = _read_results(path, classes, old.images.table)
        match = match_classes(results.classes, old.classes)
        in_step_N = np.isin(results.image_ids_N, old.images.table.image_ids_I)
        notes = (
            *match.notes,
            *notes_about_images(path, results.image_ids_N, old),
            *_notes_about_boxes(path, results, in_step_N, old.images.table),
        )
        super().__init__(old.identity(sha256_of_file(path), "results", match.ids), old.images, notes)
        self._results, self._columns_C = results, match.columns_C
        self._labels_N = match.labels_for(results.columns_N)
        kept_N = in_step_N & (self._labels_N >= 0) & (results.scores_N >= lowest_score(old.resampler))
        self._rows = _rows_by_image(results.image_ids_N, np.flatnonzero(kept_N))

    def knowledge_of(self, index: int) -> Knowledge:
        """The results for one image that the resampler keeps."""
        table, results = self.images.table, self._results
        rows_K = self._rows.get(int(table.image_ids_I[index]), np.zeros(0, dtype=np.int64))
        found = one_score_each(
            results.boxes_N4[rows_K], self._labels_N[rows_K], results.scores_N[rows_K], len(self._columns_C)
        )
        stated_K = results.vector_N[rows_K] >= 0
        if stated_K.any():
            vectors = results.vectors_MT[results.vector_N[rows_K][stated_K]]
            found.scores_KC[stated_K] = vectors[:, self._columns_C]
            found.best_K[stated_K] = vectors.max(axis=1)
        return select_boxes(found, (int(table.widths_I[index]), int(table.heights_I[index])), self.identity.resampler)


def _rows_by_image(image_ids_N: Int64Array, kept_K: Int64Array) -> dict[int, Int64Array]:
    order_K = kept_K[np.argsort(image_ids_N[kept_K], kind="stable")]
    found, starts = np.unique(image_ids_N[order_K], return_index=True)
    return dict(zip(found.tolist(), np.split(order_K, starts[1:]), strict=False))


def _notes_about_boxes(path: Path, results: _Results, in_step_N: BoolArray, table: AnnotationTable) -> tuple[str, ...]:
    """A note about boxes outside their image, if there are any.

    Raises:
        DataError: all of them are: they are in another unit.
    """
    order_I = np.argsort(table.image_ids_I)
    place_K = np.searchsorted(table.image_ids_I, results.image_ids_N[in_step_N], sorter=order_I)
    sizes_I2 = np.stack((table.widths_I, table.heights_I), axis=1)
    empty_K = ~has_extent(clipped(results.boxes_N4[in_step_N], sizes_I2[order_I[place_K]].astype(np.float32)))
    if not empty_K.any():
        return ()
    problem = "lie outside their image or are thinner than a pixel; bbox is x, y, width, height in pixels"
    if empty_K.all() and len(empty_K) >= FEWEST_BOXES:
        raise DataError(f"{path}: all {len(empty_K)} boxes {problem}")
    return (f"{path}: dropped {empty_K.sum()} of {len(empty_K)} boxes, which {problem}",)


@dataclass(frozen=True)
class _Results:
    """The content of a results file, every entry checked.

    Attributes:
        classes: the teacher's classes.
        image_ids_N: image of each result.
        columns_N: the position of its class among the teacher's.
        boxes_N4: boxes, xyxy, pixels of the image.
        scores_N: its score, 0..1; taken from its vector where there is one.
        vectors_MT: scores for all classes, of the results that state them.
        vector_N: the row of a result in `vectors_MT`; −1 where it states none.
    """

    classes: TeacherClasses
    image_ids_N: Int64Array
    columns_N: Int64Array
    boxes_N4: Float32Array
    scores_N: Float32Array
    vectors_MT: Float32Array
    vector_N: Int64Array


class _Entry(msgspec.Struct, gc=False):
    image_id: Integer | str
    category_id: Integer
    bbox: tuple[float, float, float, float]
    score: float
    scores: list[float] | None = None
    file_name: str | None = None


class _WithClasses(msgspec.Struct):
    annotations: list[_Entry]
    categories: list[CocoCategory]


def _read_results(path: Path, classes: TeacherClasses | None, table: AnnotationTable) -> _Results:
    """Read and check a results file on images of a table; `classes` are those of a file that does not name them."""
    try:
        data = read_bytes(path, MostBytes.ANNOTATIONS)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); pass the path of a results file") from None
    with collection_paused():
        content: list[_Entry] | _WithClasses = decode_json(path, data, list[_Entry] | _WithClasses, FORM)
        if isinstance(content, _WithClasses):
            own = TeacherClasses.from_pairs(path, ((entry.id, entry.name) for entry in content.categories))
            return _columns(f"{path}: annotations", content.annotations, choose_classes(path, own, classes), table)
        return _columns(f"{path}: ", content, choose_classes(path, None, classes), table)


def _columns(place: str, entries: Sequence[_Entry], classes: TeacherClasses, table: AnnotationTable) -> _Results:
    """The entries as columns; `place` is where they stand, for messages."""

    def refuse(rows: Int64Array, fault: Callable[[_Entry], str]) -> None:
        if len(rows):
            raise DataError(f"{place}[{rows[0]}]: {fault(entries[rows[0]])}")

    count, num_classes = len(entries), len(classes.ids)
    columns_N = classes.columns_for(np.fromiter((entry.category_id for entry in entries), dtype=np.int64, count=count))
    coordinates = chain.from_iterable(entry.bbox for entry in entries)
    xywh_N4 = np.fromiter(coordinates, dtype=np.float64, count=4 * count).reshape(-1, 4)
    scores_N = np.fromiter((entry.score for entry in entries), dtype=np.float64, count=count)
    refuse(
        np.flatnonzero(columns_N < 0),
        lambda entry: f"category_id {entry.category_id} is not in {classes.where}; add its name there",
    )
    refuse(
        np.flatnonzero((xywh_N4[:, 2:].min(axis=1) < 0) | (np.abs(xywh_N4).max(axis=1) > LARGEST_COORDINATE)),
        lambda entry: f"bbox {list(entry.bbox)} is no box in an image; write x, y, width, height in pixels",
    )
    refuse(
        np.flatnonzero(_no_probability(scores_N)),
        lambda entry: f"score {entry.score:g} is not between 0 and 1; write probabilities",
    )
    vectors = [entry.scores for entry in entries if entry.scores is not None]
    has_vector_N = np.array([entry.scores is not None for entry in entries], dtype=np.bool_)
    row_M = np.flatnonzero(has_vector_N)
    refuse(
        row_M[np.array([len(vector) != num_classes for vector in vectors], dtype=np.bool_)],
        lambda entry: (
            f"scores has {len(entry.scores or ())} values, the teacher {num_classes} classes; "
            f"write one for each, in the order of {classes.where}"
        ),
    )
    exact_MT = np.fromiter(chain.from_iterable(vectors), dtype=np.float64).reshape(-1, num_classes)
    refuse(
        row_M[_no_probability(exact_MT).any(axis=1)],
        lambda entry: "scores holds values that are not between 0 and 1; write probabilities",
    )
    vectors_MT = exact_MT.astype(np.float32)
    own_M = vectors_MT[np.arange(len(row_M)), columns_N[row_M]]
    # Another value for the class that the result names means that the vector is in another order.
    refuse(
        row_M[np.abs(own_M - scores_N[row_M]) > ROUNDING],
        lambda entry: (
            f"score is {entry.score:g}, and scores has another value for category_id {entry.category_id}; "
            f"write them in the order of {classes.where}"
        ),
    )
    scores_N[row_M] = own_M
    return _Results(
        classes=classes,
        image_ids_N=image_ids(
            place.removesuffix(": "), [entry.file_name or entry.image_id for entry in entries], table
        ),
        columns_N=columns_N,
        boxes_N4=np.concatenate((xywh_N4[:, :2], xywh_N4[:, :2] + xywh_N4[:, 2:]), axis=1).astype(np.float32),
        scores_N=scores_N.astype(np.float32),
        vectors_MT=vectors_MT,
        vector_N=np.where(has_vector_N, np.cumsum(has_vector_N) - 1, -1),
    )


def _no_probability(values: Float64Array) -> BoolArray:
    return (values < 0) | (values > 1)
