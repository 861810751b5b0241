"""The lines of YOLO's label files: boxes, polygons, and what must not be taken for polygons.

Legend: N boxes of an image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ciod_core.arrays import Float32Array

LINE_FORMAT = (
    "a line is `class cx cy width height` or `class x1 y1 x2 y2 x3 y3 …`, relative to the image, "
    "without keypoints, confidence or track id"
)
LARGEST_INDEX = 2**53
# Rounding lets coordinates leave the image; a visibility of 2 or a track id is far beyond this share of its size.
OVERHANG_TOLERATED = 0.01


def parse_label_line(text: str) -> tuple[int, tuple[float, ...]]:
    """Class index and values of one line: four of a box (center and size), or the points of a polygon.

    Raises:
        ValueError: the line is none of the two forms; the message says why.
    """
    try:
        index, *values = map(float, text.split())
    except ValueError:
        raise ValueError("holds something that is no number") from None
    if not (index.is_integer() and abs(index) < LARGEST_INDEX):
        raise ValueError(f"{index:g} is not a class index")
    if len(values) != 4:
        _check_polygon(values)
    return int(index), tuple(values)


def label_lines(class_ids_N: Iterable[int], boxes_N4: Float32Array, size: tuple[int, int]) -> str:
    """The text of a label file: a line for each box, empty without any.

    Args:
        class_ids_N: class index of each box.
        boxes_N4: boxes, xyxy, pixels of the image.
        size: width and height of the image.
    """
    boxes_N4 = boxes_N4 / np.array(size * 2)
    centers_N2, sides_N2 = (boxes_N4[:, :2] + boxes_N4[:, 2:]) / 2, boxes_N4[:, 2:] - boxes_N4[:, :2]
    return "".join(
        f"{class_id} {x:.6f} {y:.6f} {width:.6f} {height:.6f}\n"
        for class_id, (x, y), (width, height) in zip(class_ids_N, centers_N2, sides_N2, strict=True)
    )


def box_of(values: Sequence[float]) -> tuple[float, float, float, float]:
    """The box of a line's values (left, top, width, height; relative to the image): its own, or the polygon's."""
    if len(values) == 4:
        x, y, width, height = values
        return x - width / 2, y - height / 2, width, height
    left, top = min(values[::2]), min(values[1::2])
    return left, top, max(values[::2]) - left, max(values[1::2]) - top


class KeypointRows:
    """Tells boxes with keypoints, or with confidence and track id, from the polygons of a dataset.

    No single row tells: a small polygon in the middle of an image can be read as a box with points in it. But polygons
    differ in their number of points, and those elsewhere cannot be read so. Hence rows are no polygons where all have
    the same length, nine in ten have a box of their own inside the image, and half hold the points behind it there
    (annotators put some outside). Four corners of a rectangle are a polygon.

    Attributes:
        first: where the first row is.
        count: number of rows.
    """

    def __init__(self) -> None:
        self.first = ""
        self.count = 0
        self._lengths: set[int] = set()
        self._inside = self._holding = 0

    @property
    def found(self) -> bool:
        """True where the rows so far are no polygons."""
        one_length = len(self._lengths) == 1
        return one_length and self._inside >= 0.9 * self.count and self._holding >= 0.5 * self.count

    def add(self, values: Sequence[float], place: str) -> None:
        """Look at the values of a line, which is at this place; boxes alone tell nothing."""
        self._lengths |= {len(values)} - {4}
        if len(values) == 4 or len(self._lengths) > 1:
            return
        self.first = self.first or place
        self.count += 1
        x, y, width, height = values[:4]
        inside = all(map(_in_image, (x - width / 2, y - height / 2, x + width / 2, y + height / 2)))
        if inside and not _is_rectangle(values):
            self._inside += 1
            self._holding += any(
                all(
                    abs(px - x) <= width / 2 + OVERHANG_TOLERATED and abs(py - y) <= height / 2 + OVERHANG_TOLERATED
                    for px, py in points
                    if px or py
                )
                for points in _keypoints(values[4:])
            )


def _keypoints(values: Sequence[float]) -> Iterator[list[tuple[float, float]]]:
    """The points that values behind a box may stand for: x y, x y visibility, none in a confidence and a track id."""
    yield list(zip(values[::2], values[1::2], strict=True))
    if len(values) % 3 == 0 and all(visibility in (0, 1) for visibility in values[2::3]):
        yield list(zip(values[::3], values[1::3], strict=True))
    if len(values) == 2 and values[1] in (0, 1):
        yield []


def _check_polygon(values: Sequence[float]) -> None:
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"holds {len(values) + 1} numbers")
    if not all(map(math.isfinite, values)):  # min and max would pass over some NaN
        raise ValueError("holds a coordinate that is not finite")
    beyond = next((value for value in values if not _in_image(value)), None)
    if beyond is not None and not _is_rectangle(values):  # oriented boxes may stick out
        raise ValueError(f"holds {beyond:g}, but coordinates lie between 0 and 1")


def _in_image(value: float) -> bool:
    return -OVERHANG_TOLERATED <= value <= 1 + OVERHANG_TOLERATED


def _is_rectangle(values: Sequence[float]) -> bool:
    """True for four corners in turn, at any angle, with or without the first one again at the end."""
    if len(values) != 8 and (len(values) != 10 or tuple(values[8:]) != tuple(values[:2])):
        return False
    # The diagonals of a parallelogram share their midpoint, also where x and y are scaled differently.
    return all(
        math.isclose(values[axis] + values[axis + 4], values[axis + 2] + values[axis + 6], abs_tol=1e-3)
        for axis in (0, 1)
    )
