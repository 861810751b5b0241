"""A COCO results file as columns: what any detector found, once every entry is known to make sense.

Legend: N results, M those with a score for every class, T classes of the teacher.
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
from ciod_core.errors import ConfigError, DataError
from ciod_core.teachers.teacher_classes import TeacherClasses

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


class _Described(msgspec.Struct):
    annotations: list[_Entry]
    categories: list[CocoCategory]


@dataclass(frozen=True)
class Results:
    """What a results file holds.

    Attributes:
        classes: the teacher's classes.
        image_ids_N: image of each result.
        columns_N: the position of its class among the teacher's.
        boxes_N4: boxes, xyxy, pixels of the image.
        scores_N: its score, 0..1; as its vector has it, where there is one.
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
        classes: what it calls its classes; None where it says so itself.

    Raises:
        ConfigError: the classes are named nowhere, or twice.
        DataError: the file cannot be read, holds nothing, or an entry makes no sense.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); pass the path of a results file") from None
    with collection_paused():
        content: list[_Entry] | _Described = decode_json(path, data, list[_Entry] | _Described, FORM)
        if isinstance(content, _Described):
            own = TeacherClasses.of(path, ((entry.id, entry.name) for entry in content.categories))
            return _columns(_Entries(f"{path}: annotations", content.annotations, the_classes(path, own, classes)))
        return _columns(_Entries(f"{path}: ", content, the_classes(path, None, classes)))


def the_classes(path: Path, own: TeacherClasses | None, given: TeacherClasses | None) -> TeacherClasses:
    """The classes of a teacher, from itself or from a file beside it.

    Raises:
        ConfigError: neither names them, or both do.
    """
    if own is not None and given is not None:
        raise ConfigError(f"--teacher-classes {given.where}: {path} names its classes itself; leave the option out")
    found = own or given
    if found is None:
        raise ConfigError(f"{path}: does not name its classes; pass --teacher-classes with a file that does")
    return found


@dataclass(frozen=True)
class _Entries:
    """The entries of a file, the classes they speak of, and where a message finds them."""

    place: str
    listed: list[_Entry]
    classes: TeacherClasses

    def refuse(self, wrong_N: BoolArray, fault: Callable[[_Entry], str]) -> None:
        """Refuse the file for the first entry of a mask, if there is one."""
        if wrong_N.any():
            first = int(wrong_N.argmax())
            raise DataError(f"{self.place}[{first}]: {fault(self.listed[first])}")


def _columns(entries: _Entries) -> Results:
    listed, classes, count = entries.listed, entries.classes, len(entries.listed)
    columns_N = classes.columns_of(np.fromiter((entry.category_id for entry in listed), dtype=np.int64, count=count))
    coordinates = chain.from_iterable(entry.bbox for entry in listed)
    xywh_N4 = np.fromiter(coordinates, dtype=np.float64, count=4 * count).reshape(-1, 4)
    scores_N = np.fromiter((entry.score for entry in listed), dtype=np.float64, count=count)
    no_box_N = (xywh_N4[:, 2:].min(axis=1) < 0) | (np.abs(xywh_N4).max(axis=1) > LARGEST_COORDINATE)
    entries.refuse(
        columns_N < 0,
        lambda entry: f"category_id {entry.category_id} is not in {classes.where}; add its name there",
    )
    entries.refuse(
        no_box_N,
        lambda entry: f"bbox {list(entry.bbox)} is no box in an image; write x, y, width, height in pixels",
    )
    entries.refuse(
        _improbable(scores_N), lambda entry: f"score {entry.score:g} is not between 0 and 1; write probabilities"
    )
    stated_N = np.array([entry.scores is not None for entry in listed], dtype=np.bool_)
    vectors_MT = _vectors(entries, stated_N)
    scores_N[stated_N] = _own_scores(entries, stated_N, vectors_MT, columns_N, scores_N)
    return Results(
        classes=classes,
        image_ids_N=np.fromiter((entry.image_id for entry in listed), dtype=np.int64, count=count),
        columns_N=columns_N,
        boxes_N4=np.concatenate((xywh_N4[:, :2], xywh_N4[:, :2] + xywh_N4[:, 2:]), axis=1).astype(np.float32),
        scores_N=scores_N.astype(np.float32),
        vectors_MT=vectors_MT,
        vector_N=np.where(stated_N, np.cumsum(stated_N) - 1, -1),
    )


def _vectors(entries: _Entries, stated_N: BoolArray) -> Float32Array:
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
        _spread(np.any(_improbable(vectors_MT), axis=1), stated_N),
        lambda entry: "scores holds values that are not between 0 and 1; write probabilities",
    )
    return vectors_MT.astype(np.float32)


def _own_scores(
    entries: _Entries,
    stated_N: BoolArray,
    vectors_MT: Float32Array,
    columns_N: Int64Array,
    scores_N: Float64Array,
) -> Float32Array:
    """What a vector says about the class that its result names: the score, unless the vector is in another order."""
    own_M: Float32Array = vectors_MT[np.arange(len(vectors_MT)), columns_N[stated_N]]
    entries.refuse(
        _spread(np.abs(own_M - scores_N[stated_N]) > ROUNDING, stated_N),
        lambda entry: (
            f"score is {entry.score:g}, and scores has another value for category_id {entry.category_id}; "
            f"write them in the order of {entries.classes.where}"
        ),
    )
    return own_M


def _improbable(values: Float64Array) -> BoolArray:
    return (values < 0) | (values > 1)


def _spread(mask_M: np.ndarray, stated_N: BoolArray) -> BoolArray:
    mask_N = np.zeros(len(stated_N), dtype=np.bool_)
    mask_N[stated_N] = mask_M
    return mask_N
