"""What a COCO file must fulfil beyond its types. Every check names the first entry that fails.

Legend: N boxes of all images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ciod_core.data.annotations import BoolArray, Int32Array, Int64Array
from ciod_core.errors import DataError

Float64Array = npt.NDArray[np.float64]

# COCO train2017 itself holds two boxes of zero height among 860,001; a whole dataset must not fail for those.
EMPTY_BOXES_TOLERATED = 1e-4
# Rounding in annotation tools lets boxes leave their image by up to a pixel; ground truth keeps those as they are.
OVERHANG_TOLERATED = 1.0
LARGEST_SIDE = 2**20
# Spares nearly every name the two path parsers, which take seconds for the images of COCO.
PLAIN_FILE_NAME = re.compile(r"\w[\w.-]*")


class CheckedBoxes(NamedTuple):
    """Boxes after the checks.

    Attributes:
        boxes_xyxy_N4: boxes, xyxy, pixels.
        keep_N: False where a box has no extent.
        clipped: how many boxes were cut to their image.
    """

    boxes_xyxy_N4: Float64Array
    keep_N: BoolArray
    clipped: int


def check_unique(values: Sequence[int | str], where: str) -> None:
    """Refuse a repeated value; `where` has a `{}` for the index."""
    if len(set(values)) == len(values):
        return
    first: dict[int | str, int] = {}
    for index, value in enumerate(values):
        if value in first:
            raise DataError(
                f"{where.format(index)}: {value!r} repeats the value of entry {first[value]}; every entry needs its own"
            )
        first[value] = index


def known_positions(values_N: Int64Array, known: Int64Array, *, where: str, what: str) -> Int64Array:
    """The position of every value in `known`, which must hold each of them."""
    order = np.argsort(known, kind="stable")
    position_N = np.clip(np.searchsorted(known, values_N, sorter=order), 0, len(known) - 1)
    position_N = order[position_N]
    unknown = np.flatnonzero(known[position_N] != values_N)
    if len(unknown):
        index = int(unknown[0])
        raise DataError(
            f"{where.format(index)}: {int(values_N[index])} is not an id listed under {what}; "
            f"correct the id or add it there ({_others(len(unknown))})"
        )
    return position_N


def check_file_names(names: Sequence[str], path: Path) -> None:
    """Refuse file names that are empty, absolute or climb out of the image folder."""
    for index, name in enumerate(names):
        if not is_inside(name):
            raise DataError(
                f"{path}: images[{index}].file_name: {name!r} does not stay inside the image folder; "
                "write it relative to that folder and without '..'"
            )


def is_inside(name: str) -> bool:
    """Whether a file name, read as a POSIX or a Windows path, stays below the folder it is joined to."""
    if PLAIN_FILE_NAME.fullmatch(name):
        return True
    if not name.strip() or "\0" in name:
        return False
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    climbs = posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts
    return bool(windows.parts) and not climbs


def check_image_sizes(sizes: Sequence[tuple[int, int]], path: Path) -> None:
    """Refuse widths and heights that no image has."""
    for index, size in enumerate(sizes):
        for side, value in zip(("width", "height"), size, strict=True):
            if not 0 < value <= LARGEST_SIDE:
                raise DataError(f"{path}: images[{index}].{side}: {value} is not a size in pixels; correct it")


def check_boxes(boxes_xywh_N4: Float64Array, sizes_N2: Int32Array, path: Path) -> CheckedBoxes:
    """Turn boxes into xyxy within their images.

    Args:
        boxes_xywh_N4: boxes as the file has them.
        sizes_N2: width and height of the image of each box.
        path: the file, for messages.

    Raises:
        DataError: a box is not finite, has a negative extent, lies outside its image, or too many have no extent.
    """
    _refuse(_any(~np.isfinite(boxes_xywh_N4)), boxes_xywh_N4, path, "has a coordinate that is not finite")
    extents_N2 = boxes_xywh_N4[:, 2:]
    _refuse(_any(extents_N2 < 0), boxes_xywh_N4, path, "has a negative width or height")
    empty_N = _any(extents_N2 == 0)
    if np.count_nonzero(empty_N) > EMPTY_BOXES_TOLERATED * len(boxes_xywh_N4):
        _refuse(empty_N, boxes_xywh_N4, path, "has no width or no height")

    with np.errstate(over="ignore"):
        boxes_N4 = np.concatenate([boxes_xywh_N4[:, :2], boxes_xywh_N4[:, :2] + extents_N2], axis=1)
    limits_N4 = np.concatenate([sizes_N2, sizes_N2], axis=1).astype(np.float64)
    inside_N4 = np.clip(boxes_N4, 0.0, limits_N4)
    outside_N = _any(inside_N4[:, 2:] <= inside_N4[:, :2]) & ~empty_N
    if outside_N.any():
        width, height = sizes_N2[int(np.flatnonzero(outside_N)[0])].tolist()
        _refuse(outside_N, boxes_xywh_N4, path, f"lies outside its image of {width}x{height} pixels")
    clipped_N = _any(np.abs(boxes_N4 - inside_N4) > OVERHANG_TOLERATED) & ~empty_N
    boxes_N4[clipped_N] = inside_N4[clipped_N]
    return CheckedBoxes(boxes_N4, ~empty_N, int(np.count_nonzero(clipped_N)))


def _any(mask_NX: BoolArray) -> BoolArray:
    """Rows in which at least one entry is True."""
    return np.asarray(mask_NX.any(axis=1), dtype=np.bool_)


def _refuse(bad_N: BoolArray, boxes_xywh_N4: Float64Array, path: Path, problem: str) -> None:
    rows = np.flatnonzero(bad_N)
    if len(rows):
        index = int(rows[0])
        box = ", ".join(f"{value:g}" for value in boxes_xywh_N4[index])
        raise DataError(
            f"{path}: annotations[{index}].bbox: [{box}] {problem}; "
            f"boxes are [x, y, width, height] in pixels: correct or remove it ({_others(len(rows))})"
        )


def _others(count: int) -> str:
    return "no other entry has this fault" if count == 1 else f"{count} entries have this fault"
