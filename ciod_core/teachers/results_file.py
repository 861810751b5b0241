"""A COCO results file of any detector as columns, every entry checked.

Legend: N results, M results with a score for every class, T classes of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np

from ciod_core.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from ciod_core.data.formats.coco import CocoCategory, Integer
from ciod_core.data.formats.json_text import collection_paused, decode_json
from ciod_core.errors import DataError
from ciod_core.teachers.teacher_classes import TeacherClasses, choose_classes

FORM = (
    "a results file is a list of {image_id, category_id, bbox, score}, or an object with such a list as annotations, "
    "and categories"
)
LARGEST_COORDINATE = 1e7
# Scores are often written with two or three digits.
ROUNDING = 0.01


class _Entry(msgspec.Struct, gc=False):
    image_id: Integer
    category_id: Integer
    bbox: tuple[float, float, float, float]
    score: float
    scores: list[float] | None = None


class _WithClasses(msgspec.Struct):
    annotations: list[_Entry]
    categories: list[CocoCategory]


@dataclass(frozen=True)
class Results:
    """The content of a results file.

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


def read_results(path: Path, classes: TeacherClasses | None) -> Results:
    """Read and check a results file.

    Args:
        path: the file.
        classes: the teacher's classes; None where the file names them.

    Raises:
        ConfigError: the classes are named nowhere, or twice.
        DataError: the file cannot be read, holds nothing, or an entry makes no sense.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); pass the path of a results file") from None
    with collection_paused():
        content: list[_Entry] | _WithClasses = decode_json(path, data, list[_Entry] | _WithClasses, FORM)
        if isinstance(content, _WithClasses):
            own = TeacherClasses.from_pairs(path, ((entry.id, entry.name) for entry in content.categories))
            entries = _Entries(f"{path}: annotations", content.annotations, choose_classes(path, own, classes))
        else:
            entries = _Entries(f"{path}: ", content, choose_classes(path, None, classes))
        return _checked_columns(entries)


@dataclass(frozen=True)
class _Entries:
    """The entries of a file, the classes that they name, and their place in messages."""

    place: str
    listed: list[_Entry]
    classes: TeacherClasses

    def refuse(self, wrong_N: BoolArray, fault: Callable[[_Entry], str]) -> None:
        """Refuse the file for the first entry of a mask, if there is one."""
        if wrong_N.any():
            first = int(wrong_N.argmax())
            raise DataError(f"{self.place}[{first}]: {fault(self.listed[first])}")


def _checked_columns(entries: _Entries) -> Results:
    listed, classes, count = entries.listed, entries.classes, len(entries.listed)
    columns_N = classes.columns_for(np.fromiter((entry.category_id for entry in listed), dtype=np.int64, count=count))
    coordinates = chain.from_iterable(entry.bbox for entry in listed)
    xywh_N4 = np.fromiter(coordinates, dtype=np.float64, count=4 * count).reshape(-1, 4)
    scores_N = np.fromiter((entry.score for entry in listed), dtype=np.float64, count=count)
    entries.refuse(
        columns_N < 0,
        lambda entry: f"category_id {entry.category_id} is not in {classes.where}; add its name there",
    )
    entries.refuse(
        (xywh_N4[:, 2:].min(axis=1) < 0) | (np.abs(xywh_N4).max(axis=1) > LARGEST_COORDINATE),
        lambda entry: f"bbox {list(entry.bbox)} is no box in an image; write x, y, width, height in pixels",
    )
    entries.refuse(
        _no_probability(scores_N), lambda entry: f"score {entry.score:g} is not between 0 and 1; write probabilities"
    )
    has_vector_N = np.array([entry.scores is not None for entry in listed], dtype=np.bool_)
    vectors_MT = _score_vectors(entries, has_vector_N)
    own_M: Float32Array = vectors_MT[np.arange(len(vectors_MT)), columns_N[has_vector_N]]
    # Another value for the class that the result names means that the vector is in another order.
    entries.refuse(
        _spread(np.abs(own_M - scores_N[has_vector_N]) > ROUNDING, has_vector_N),
        lambda entry: (
            f"score is {entry.score:g}, and scores has another value for category_id {entry.category_id}; "
            f"write them in the order of {classes.where}"
        ),
    )
    scores_N[has_vector_N] = own_M
    return Results(
        classes=classes,
        image_ids_N=np.fromiter((entry.image_id for entry in listed), dtype=np.int64, count=count),
        columns_N=columns_N,
        boxes_N4=np.concatenate((xywh_N4[:, :2], xywh_N4[:, :2] + xywh_N4[:, 2:]), axis=1).astype(np.float32),
        scores_N=scores_N.astype(np.float32),
        vectors_MT=vectors_MT,
        vector_N=np.where(has_vector_N, np.cumsum(has_vector_N) - 1, -1),
    )


def _score_vectors(entries: _Entries, has_vector_N: BoolArray) -> Float32Array:
    """The scores for all classes, of the results that state them."""
    num_classes = len(entries.classes.ids)
    lengths_N = np.array([num_classes if entry.scores is None else len(entry.scores) for entry in entries.listed])
    entries.refuse(
        lengths_N != num_classes,
        lambda entry: (
            f"scores has {len(entry.scores or ())} values, the teacher {num_classes} classes; "
            f"write one for each, in the order of {entries.classes.where}"
        ),
    )
    values = chain.from_iterable(entry.scores for entry in entries.listed if entry.scores is not None)
    vectors_MT = np.fromiter(values, dtype=np.float64).reshape(-1, num_classes)
    entries.refuse(
        _spread(np.any(_no_probability(vectors_MT), axis=1), has_vector_N),
        lambda entry: "scores holds values that are not between 0 and 1; write probabilities",
    )
    return vectors_MT.astype(np.float32)


def _no_probability(values: Float64Array) -> BoolArray:
    return (values < 0) | (values > 1)


def _spread(mask_M: BoolArray, has_vector_N: BoolArray) -> BoolArray:
    """A mask of the results with a vector as a mask of all results."""
    mask_N = np.zeros(len(has_vector_N), dtype=np.bool_)
    mask_N[has_vector_N] = mask_M
    return mask_N
