"""What annotations must fulfil beyond their types, whatever format they came in, and the table made of them.

Every check tells the first entry that fails and how many do. Reading for a split stops at the first error; a health
check goes on with the entries that are sound.

Legend: I images, N boxes of all images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import NamedTuple

import numpy as np

from ciod_core.arrays import BoolArray, Float64Array, Int64Array
from ciod_core.data.annotations.findings import Finding, Severity, raise_first_error
from ciod_core.data.annotations.raw import RawAnnotations
from ciod_core.data.annotations.table import AnnotationTable

# COCO train2017 itself holds two boxes of zero height among 860,001; a whole dataset must not fail for those.
EMPTY_BOXES_TOLERATED = 1e-4
# Rounding in annotation tools lets boxes leave their image by up to a pixel; ground truth keeps those as they are.
OVERHANG_TOLERATED = 1.0
LARGEST_SIDE = 2**20
# Spares nearly every name the two path parsers, which take seconds for the images of COCO.
PLAIN_FILE_NAMES = re.compile(r"(?:\w[\w.-]*+\n)*+")


class Inspected(NamedTuple):
    """The sound part of the annotations, and everything that was found."""

    table: AnnotationTable
    findings: tuple[Finding, ...]


def strict_table(raw: RawAnnotations) -> AnnotationTable:
    """The annotations as a table.

    Boxes that leave their image by more than a pixel are cut to it and counted in `clipped_boxes`. A very few boxes
    without extent are left out and counted in `dropped_boxes`.

    Raises:
        DataError: for the first thing that is wrong.
    """
    table, findings = inspect(raw)
    raise_first_error(findings)
    return table


def inspect(raw: RawAnnotations) -> Inspected:
    """Check everything and keep what is sound."""
    found = list(raw.findings)
    _check_categories(raw, found)
    sound_I = _check_images(raw, found)
    position_N, box_sound_N = _check_references(raw, sound_I, found)
    boxes_N4, box_sound_N, clipped, dropped = _check_boxes(raw, position_N, box_sound_N, found)
    return Inspected(_table(raw, sound_I, position_N, box_sound_N, boxes_N4, clipped, dropped), tuple(found))


def is_inside(name: str) -> bool:
    """Whether a file name, read as a POSIX or a Windows path, stays below the folder it is joined to."""
    if not name.strip() or "\0" in name:
        return False
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    climbs = posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts
    return bool(windows.parts) and not climbs


def _check_categories(raw: RawAnnotations, found: list[Finding]) -> None:
    def place(index: int) -> str:
        return f"{raw.path}: categories[{index}]"

    if not raw.categories:
        found.append(
            _error("no-categories", f"{raw.path}: categories is empty; the file must list the classes of its boxes")
        )
    _check_unique("category-id", [category.id for category in raw.categories], "id", place, found)
    _check_unique("category-name", [category.name for category in raw.categories], "name", place, found)
    nameless = [index for index, category in enumerate(raw.categories) if not category.name.strip()]
    if nameless:
        message = f"{place(nameless[0])}: name is empty; give the class a name"
        found.append(_error("empty-category-name", message, len(nameless)))


def _check_images(raw: RawAnnotations, found: list[Finding]) -> BoolArray:
    """Which images can be used."""
    if not len(raw.image_ids_I):
        found.append(_error("no-images", f"{raw.path}: images is empty; the annotations must list at least one image"))
    repeated_I = _check_unique("image-id", raw.image_ids_I, "id", raw.image_place, found)
    outside_I = _outside(raw.file_names_I)
    if outside_I.any():
        index = _first(outside_I)
        message = (
            f"{raw.image_place(index)}: file_name {raw.file_names_I[index]!r} does not stay inside the image folder; "
            "write it relative to that folder and without '..'"
        )
        found.append(_error("file-name-outside", message, _count(outside_I)))
    wrong_I2 = (raw.sizes_I2 <= 0) | (raw.sizes_I2 > LARGEST_SIDE)
    wrong_I = _any(wrong_I2)
    if wrong_I.any():
        index = _first(wrong_I)
        axis = int(np.argmax(wrong_I2[index]))
        message = (
            f"{raw.image_place(index)}: {('width', 'height')[axis]} {int(raw.sizes_I2[index, axis])} is not a size in "
            "pixels; correct it"
        )
        found.append(_error("image-size", message, _count(wrong_I)))
    return ~(repeated_I | outside_I | wrong_I)


def _check_references(raw: RawAnnotations, sound_I: BoolArray, found: list[Finding]) -> tuple[Int64Array, BoolArray]:
    """The index of the image of every box, and which boxes belong to a sound image and a known class."""
    repeated_N = _check_unique("annotation-id", raw.annotation_ids_N, "id", raw.box_place, found)
    position_N, unknown_image_N = _positions(raw.image_ids_N, raw.image_ids_I)
    category_ids = np.array([category.id for category in raw.categories], dtype=np.int64)
    _, unknown_category_N = _positions(raw.category_ids_N, category_ids)
    for field, unknown_N, values_N, known in (
        ("image_id", unknown_image_N, raw.image_ids_N, "images"),
        ("category_id", unknown_category_N, raw.category_ids_N, "categories"),
    ):
        if unknown_N.any():
            index = _first(unknown_N)
            message = (
                f"{raw.box_place(index)}: {field} {int(values_N[index])} is not an id listed under {known}; "
                "correct the id or add it there"
            )
            found.append(_error(f"unknown-{field.removesuffix('_id')}", message, _count(unknown_N)))
    sound_N = ~(repeated_N | unknown_image_N | unknown_category_N)
    sound_N[sound_N] = sound_I[position_N[sound_N]]
    return position_N, sound_N


def _check_boxes(
    raw: RawAnnotations, position_N: Int64Array, sound_N: BoolArray, found: list[Finding]
) -> tuple[Float64Array, BoolArray, int, int]:
    """Boxes as xyxy within their images, which of them can be used, and how many were clipped and dropped."""
    xywh_N4 = raw.boxes_xywh_N4
    infinite_N = _any(~np.isfinite(xywh_N4))
    negative_N = _any(xywh_N4[:, 2:] < 0) & ~infinite_N
    empty_N = _any(xywh_N4[:, 2:] == 0) & ~infinite_N & ~negative_N
    _check_box(raw, infinite_N, "not-finite", "has a coordinate that is not finite", found)
    _check_box(raw, negative_N, "negative", "has a negative width or height", found)
    tolerated = _count(empty_N) <= EMPTY_BOXES_TOLERATED * len(xywh_N4)
    if not tolerated:
        _check_box(raw, empty_N, "empty", "has no width or no height", found)
    sound_N = sound_N & ~infinite_N & ~negative_N & ~empty_N

    with np.errstate(over="ignore", invalid="ignore"):
        boxes_N4 = np.concatenate([xywh_N4[:, :2], xywh_N4[:, :2] + xywh_N4[:, 2:]], axis=1)
    # Without any image no box is sound, and position 0 leads nowhere.
    limits_N2 = raw.sizes_I2[position_N].astype(np.float64) if len(raw.sizes_I2) else np.zeros_like(boxes_N4[:, :2])
    inside_N4 = np.clip(boxes_N4, 0.0, np.concatenate([limits_N2, limits_N2], axis=1))
    outside_N = _any(inside_N4[:, 2:] <= inside_N4[:, :2]) & sound_N
    if outside_N.any():
        width, height = limits_N2[_first(outside_N)].astype(int).tolist()
        _check_box(raw, outside_N, "outside", f"lies outside its image of {width}x{height} pixels", found)
    sound_N &= ~outside_N
    clipped_N = np.zeros(len(sound_N), dtype=np.bool_)
    clipped_N[sound_N] = _any(np.abs(boxes_N4[sound_N] - inside_N4[sound_N]) > OVERHANG_TOLERATED)
    boxes_N4[clipped_N] = inside_N4[clipped_N]
    dropped = _count(empty_N) if tolerated else 0
    _note_repairs(raw, clipped_N, empty_N if tolerated else np.zeros_like(empty_N), found)
    return boxes_N4, sound_N, _count(clipped_N), dropped


def _check_box(raw: RawAnnotations, bad_N: BoolArray, code: str, problem: str, found: list[Finding]) -> None:
    if bad_N.any():
        message = f"{_bbox(raw, bad_N)} {problem}; boxes are [x, y, width, height] in pixels: correct or remove it"
        found.append(_error(f"box-{code}", message, _count(bad_N)))


def _note_repairs(raw: RawAnnotations, clipped_N: BoolArray, dropped_N: BoolArray, found: list[Finding]) -> None:
    for mask_N, code, repair in (
        (clipped_N, "box-clipped", "sticks out of its image and is cut to it"),
        (dropped_N, "box-dropped", "has no extent and is left out"),
    ):
        if mask_N.any():
            message = f"{_bbox(raw, mask_N)} {repair}; correct it if it matters"
            found.append(Finding(Severity.WARNING, code, message, _count(mask_N)))


def _bbox(raw: RawAnnotations, mask_N: BoolArray) -> str:
    index = _first(mask_N)
    return f"{raw.box_place(index)}: bbox [{', '.join(f'{value:g}' for value in raw.boxes_xywh_N4[index])}]"


def _table(
    raw: RawAnnotations,
    sound_I: BoolArray,
    position_N: Int64Array,
    sound_N: BoolArray,
    boxes_N4: Float64Array,
    clipped: int,
    dropped: int,
) -> AnnotationTable:
    rows = np.flatnonzero(sound_N)
    rows = rows[np.argsort(position_N[rows], kind="stable")]
    boxes_per_image_I = np.bincount(position_N[rows], minlength=len(sound_I))[sound_I]
    names_I = [name for name, sound in zip(raw.file_names_I, sound_I.tolist(), strict=True) if sound]
    stated_N = raw.areas_N[rows]
    with np.errstate(invalid="ignore"):
        plausible_N = (stated_N >= 0) & (stated_N <= LARGEST_SIDE**2)
    areas_N = np.where(plausible_N, stated_N, raw.boxes_xywh_N4[rows, 2:].clip(max=LARGEST_SIDE).prod(axis=1))
    sizes_I2 = raw.sizes_I2[sound_I].astype(np.int32)
    return AnnotationTable(
        image_ids_I=raw.image_ids_I[sound_I],
        file_names_I=np.array(names_I, dtype=np.str_),
        widths_I=sizes_I2[:, 0].copy(),
        heights_I=sizes_I2[:, 1].copy(),
        offsets=np.concatenate([[0], np.cumsum(boxes_per_image_I)]).astype(np.int64),
        annotation_ids_N=raw.annotation_ids_N[rows],
        category_ids_N=raw.category_ids_N[rows],
        boxes_N4=boxes_N4[rows].astype(np.float32),
        areas_N=areas_N.astype(np.float32),
        crowd_N=raw.crowd_N[rows],
        categories=raw.categories,
        path=raw.path,
        sha256=raw.sha256,
        clipped_boxes=clipped,
        dropped_boxes=dropped,
    )


def _check_unique(
    what: str, values: Sequence[Hashable] | Int64Array, field: str, place: Callable[[int], str], found: list[Finding]
) -> BoolArray:
    """Which entries repeat the value of an earlier one."""
    repeated = np.zeros(len(values), dtype=np.bool_)
    keys: list[Hashable] = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if len(set(keys)) == len(keys):
        return repeated
    first: dict[Hashable, int] = {}
    for index, key in enumerate(keys):
        repeated[index] = first.setdefault(key, index) != index
    index = _first(repeated)
    message = (
        f"{place(index)}: {field} {keys[index]!r} repeats that of entry {first[keys[index]]}; every entry needs its own"
    )
    found.append(_error(f"duplicate-{what}", message, _count(repeated)))
    return repeated


def _outside(names_I: list[str]) -> BoolArray:
    outside_I = np.zeros(len(names_I), dtype=np.bool_)
    if not PLAIN_FILE_NAMES.fullmatch("".join(f"{name}\n" for name in names_I)):
        outside_I[:] = [not is_inside(name) for name in names_I]
    return outside_I


def _positions(values_N: Int64Array, known: Int64Array) -> tuple[Int64Array, BoolArray]:
    """The position of every value in `known` (0 where it is not there), and which are not there."""
    if not len(known):
        return np.zeros(len(values_N), dtype=np.int64), np.ones(len(values_N), dtype=np.bool_)
    order = np.argsort(known, kind="stable")
    position_N = order[np.clip(np.searchsorted(known, values_N, sorter=order), 0, len(known) - 1)]
    unknown_N = known[position_N] != values_N
    return np.where(unknown_N, 0, position_N), np.asarray(unknown_N, dtype=np.bool_)


def _error(code: str, message: str, count: int = 1) -> Finding:
    return Finding(Severity.ERROR, code, message, count)


def _any(mask_NX: BoolArray) -> BoolArray:
    """Rows in which at least one entry is True."""
    return np.asarray(mask_NX.any(axis=1), dtype=np.bool_)


def _first(mask_N: BoolArray) -> int:
    return int(np.flatnonzero(mask_N)[0])


def _count(mask_N: BoolArray) -> int:
    return int(np.count_nonzero(mask_N))
