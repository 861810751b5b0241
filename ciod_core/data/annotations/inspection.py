"""Rules that annotations of every format must keep beyond their types, and the table made of the sound ones.

Every finding names the first entry that breaks a rule and counts them. Reading for a split stops at the first error; a
health check goes on with the entries that are sound.

Legend: I images, N boxes of all images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ciod_core.arrays import BoolArray, Float64Array, Int64Array, text_array
from ciod_core.classes import look_alikes, refused_list
from ciod_core.data.annotations.box_form import FORMS, OVERHANG_TOLERATED, other_form, unit_of
from ciod_core.data.annotations.findings import Finding, Findings, Severity, raise_first_error
from ciod_core.data.annotations.raw import RawAnnotations
from ciod_core.data.annotations.table import AnnotationTable, offsets_of
from ciod_core.files import LONGEST_PATH, is_inside

# COCO train2017 itself holds two boxes of zero height among 860,001; a whole dataset must not fail for those.
EMPTY_BOXES_TOLERATED = 1e-4
LARGEST_SIDE = 2**20
# Spares nearly every name the two path parsers, which take seconds for the images of COCO.
PLAIN_FILE_NAMES = re.compile(r"(?:\w[\w.-]*+\n)*+")


class _Rule(NamedTuple):
    """A finding's code, a mask of the entries that break the rule, and a message about the one of an index."""

    code: str
    broken: BoolArray
    message: Callable[[int], str]
    severity: Severity = Severity.ERROR


class _Boxes(NamedTuple):
    """Boxes cut to their images, the index of each one's image (0 where unknown), and which of them are sound."""

    xyxy_N4: Float64Array
    image_N: Int64Array
    sound_N: BoolArray
    clipped: int
    dropped: int


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


def inspect(raw: RawAnnotations) -> tuple[AnnotationTable, tuple[Finding, ...]]:
    """Check everything; return a table of what is sound, and all findings."""
    findings = Findings(raw.findings)
    _check_categories(raw, findings)
    sound_I = _check_images(raw, findings)
    boxes = _check_boxes(raw, sound_I, findings)
    return _table(raw, sound_I, boxes), tuple(findings)


def _apply(rules: Iterable[_Rule], findings: Findings) -> None:
    """Add a finding for every rule that at least one entry breaks."""
    for rule in rules:
        if rule.broken.any():
            message = rule.message(int(np.argmax(rule.broken)))
            findings.add(rule.code, message, int(np.count_nonzero(rule.broken)), rule.severity)


def _incomplete(raw: RawAnnotations) -> bool:
    """True where files could not be read, so that what is missing may be in them."""
    return any(finding.severity is Severity.ERROR for finding in raw.findings)


def _check_categories(raw: RawAnnotations, findings: Findings) -> None:
    def place(index: int) -> str:
        return f"{raw.path}: categories[{index}]"

    if not raw.categories and not _incomplete(raw):
        message = f"{raw.path}: categories is empty; the file must list the classes of its boxes"
        findings.add("no-categories", message)
    if refused := refused_list([category.name for category in raw.categories]):
        findings.add("categories-refused", f"{raw.path}: categories holds {refused}; shorten it")
        return
    nameless = np.array([not category.name.strip() for category in raw.categories], dtype=np.bool_)
    rules = (
        _unique("category-id", [category.id for category in raw.categories], "id", place),
        _unique("category-name", [category.name for category in raw.categories], "name", place),
        _Rule("empty-category-name", nameless, lambda index: f"{place(index)}: name is empty; give the class a name"),
    )
    _apply(rules, findings)
    for sentence in look_alikes(category.name for category in raw.categories):
        findings.add("category-look-alike", f"{raw.path}: {sentence}", severity=Severity.WARNING)


def _check_images(raw: RawAnnotations, findings: Findings) -> BoolArray:
    """A mask of the images that can be used."""

    def outside(index: int) -> str:
        return (
            f"{raw.image_place(index)}: file_name {raw.file_names_I[index]!r} does not stay inside the image folder; "
            "write it relative to that folder and without '..'"
        )

    def no_size(index: int) -> str:
        axis = int(np.argmax(wrong_I2[index]))
        size = f"{('width', 'height')[axis]} {int(raw.sizes_I2[index, axis])}"
        return f"{raw.image_place(index)}: {size} is not a size in pixels; correct it"

    if not len(raw.image_ids_I) and not _incomplete(raw):
        findings.add("no-images", f"{raw.path}: images is empty; the annotations must list at least one image")

    def too_long(index: int) -> str:
        name = raw.file_names_I[index]
        return f"{raw.image_place(index)}: file_name {name[:40]!r}… has {len(name):,} characters, which no path has"

    wrong_I2 = (raw.sizes_I2 <= 0) | (raw.sizes_I2 > LARGEST_SIDE)
    long_I = np.array([len(name) > LONGEST_PATH for name in raw.file_names_I], dtype=np.bool_)
    rules = (
        _Rule("file-name-length", long_I, too_long),
        _unique("image-id", raw.image_ids_I.tolist(), "id", raw.image_place),
        _Rule("file-name-outside", _outside(raw.file_names_I), outside),
        _Rule("image-size", _any(wrong_I2), no_size),
    )
    _apply(rules, findings)
    return ~np.logical_or.reduce([rule.broken for rule in rules])


def _check_boxes(raw: RawAnnotations, sound_I: BoolArray, findings: Findings) -> _Boxes:
    def refused(problem: str) -> Callable[[int], str]:
        remedy = f"boxes are {FORMS[raw.box_form]} in {unit_of(raw.box_form)}: correct or remove it"
        return lambda index: f"{bbox(index)} {problem}; {remedy}"

    def repaired(repair: str) -> Callable[[int], str]:
        return lambda index: f"{bbox(index)} {repair}; correct it if it matters"

    def outside(index: int) -> str:
        width, height = limits_N2[index].astype(int).tolist()
        return refused(f"lies outside its image of {width}x{height} pixels")(index)

    def bbox(index: int) -> str:
        values = ", ".join(f"{value:g}" for value in raw.boxes_xywh_N4[index])
        return f"{raw.box_place(index)}: bbox [{values}]"

    image_N, sound_N = _check_references(raw, sound_I, findings)
    extents_N2 = raw.boxes_xywh_N4[:, 2:]
    infinite_N = _any(~np.isfinite(raw.boxes_xywh_N4))
    negative_N = _any(extents_N2 < 0) & ~infinite_N
    empty_N = _any(extents_N2 == 0) & ~infinite_N & ~negative_N
    few_empty = np.count_nonzero(empty_N) <= EMPTY_BOXES_TOLERATED * len(empty_N)
    dropped_N = empty_N & few_empty
    known_N = sound_N & ~infinite_N
    sound_N &= ~(infinite_N | negative_N | empty_N)

    with np.errstate(over="ignore", invalid="ignore"):
        xyxy_N4 = np.concatenate([raw.boxes_xywh_N4[:, :2], raw.boxes_xywh_N4[:, :2] + extents_N2], axis=1)
    # Without any image no box is sound, and index 0 leads nowhere.
    limits_N2 = raw.sizes_I2[image_N].astype(np.float64) if len(raw.sizes_I2) else np.zeros_like(extents_N2)
    inside_N4 = np.clip(xyxy_N4, 0.0, np.concatenate([limits_N2, limits_N2], axis=1))
    outside_N = _any(inside_N4[:, 2:] <= inside_N4[:, :2]) & sound_N
    sound_N &= ~outside_N
    clipped_N = np.zeros_like(sound_N)
    clipped_N[sound_N] = _any(np.abs(xyxy_N4[sound_N] - inside_N4[sound_N]) > OVERHANG_TOLERATED)
    xyxy_N4[clipped_N] = inside_N4[clipped_N]
    rules = (
        _Rule("box-not-finite", infinite_N, refused("has a coordinate that is not finite")),
        _Rule("box-negative", negative_N, refused("has a negative width or height")),
        _Rule("box-empty", empty_N & ~dropped_N, refused("has no width or no height")),
        _Rule("box-outside", outside_N, outside),
        _Rule("box-clipped", clipped_N, repaired("sticks out of its image and is cut to it"), Severity.WARNING),
        _Rule("box-dropped", dropped_N, repaired("has no extent and is left out"), Severity.WARNING),
    )
    wrong_form = other_form(raw, limits_N2, known_N)
    if wrong_form is None:
        _apply(rules, findings)
    else:  # the faults of single boxes follow from it
        findings.add("box-form", *wrong_form)
    return _Boxes(xyxy_N4, image_N, sound_N, int(np.count_nonzero(clipped_N)), int(np.count_nonzero(dropped_N)))


def _check_references(raw: RawAnnotations, sound_I: BoolArray, findings: Findings) -> tuple[Int64Array, BoolArray]:
    """The index of every box's image, and a mask of the boxes with an id of their own, a sound image and a class."""

    def unknown(field: str, values_N: Int64Array, known: str) -> Callable[[int], str]:
        return lambda index: (
            f"{raw.box_place(index)}: {field} {int(values_N[index])} is not an id listed under {known}; "
            "correct the id or add it there"
        )

    category_ids = np.array([category.id for category in raw.categories], dtype=np.int64)
    image_N, unknown_image_N = _positions(raw.image_ids_N, raw.image_ids_I)
    _, unknown_category_N = _positions(raw.category_ids_N, category_ids)
    rules = (
        _unique("annotation-id", raw.annotation_ids_N.tolist(), "id", raw.box_place),
        _Rule("unknown-image", unknown_image_N, unknown("image_id", raw.image_ids_N, "images")),
        _Rule("unknown-category", unknown_category_N, unknown("category_id", raw.category_ids_N, "categories")),
    )
    # Of images or classes that are not there at all, one finding is enough.
    _apply(
        (rule for rule, known in zip(rules, (True, len(raw.image_ids_I), raw.categories), strict=True) if known),
        findings,
    )
    sound_N = ~np.logical_or.reduce([rule.broken for rule in rules])
    sound_N[sound_N] = sound_I[image_N[sound_N]]
    return image_N, sound_N


def _table(raw: RawAnnotations, sound_I: BoolArray, boxes: _Boxes) -> AnnotationTable:
    rows = np.flatnonzero(boxes.sound_N)
    rows = rows[np.argsort(boxes.image_N[rows], kind="stable")]
    boxes_per_image_I = np.bincount(boxes.image_N[rows], minlength=len(sound_I))[sound_I]
    names_I = [name for name, sound in zip(raw.file_names_I, sound_I.tolist(), strict=True) if sound]
    stated_N = raw.areas_N[rows]
    with np.errstate(invalid="ignore"):
        plausible_N = (stated_N >= 0) & (stated_N <= LARGEST_SIDE**2)
    areas_N = np.where(plausible_N, stated_N, raw.boxes_xywh_N4[rows, 2:].clip(max=LARGEST_SIDE).prod(axis=1))
    sizes_I2 = raw.sizes_I2[sound_I].astype(np.int32)
    return AnnotationTable(
        image_ids_I=raw.image_ids_I[sound_I],
        file_names_I=text_array(names_I),
        widths_I=sizes_I2[:, 0].copy(),
        heights_I=sizes_I2[:, 1].copy(),
        offsets=offsets_of(boxes_per_image_I),
        annotation_ids_N=raw.annotation_ids_N[rows],
        category_ids_N=raw.category_ids_N[rows],
        boxes_N4=boxes.xyxy_N4[rows].astype(np.float32),
        areas_N=areas_N.astype(np.float32),
        crowd_N=raw.crowd_N[rows],
        categories=raw.categories,
        path=raw.path,
        sha256=raw.sha256,
        clipped_boxes=boxes.clipped,
        dropped_boxes=boxes.dropped,
    )


def _unique(what: str, values: Sequence[Hashable], field: str, place: Callable[[int], str]) -> _Rule:
    """Entries must not repeat the value of an earlier one."""
    first: dict[Hashable, int] = {}
    repeated = np.array([first.setdefault(value, index) != index for index, value in enumerate(values)], dtype=np.bool_)
    return _Rule(
        f"duplicate-{what}",
        repeated,
        lambda index: (
            f"{place(index)}: {field} {values[index]!r} repeats that of entry {first[values[index]]}; "
            "every entry needs its own"
        ),
    )


def _outside(names_I: list[str]) -> BoolArray:
    """A mask of the file names that do not stay inside the image folder."""
    if PLAIN_FILE_NAMES.fullmatch("".join(f"{name}\n" for name in names_I)):
        return np.zeros(len(names_I), dtype=np.bool_)
    return np.array([not is_inside(name) for name in names_I], dtype=np.bool_)


def _positions(values_N: Int64Array, known: Int64Array) -> tuple[Int64Array, BoolArray]:
    """The position of every value in `known` (0 where it is not there), and a mask of those that are not there."""
    if not len(known):
        return np.zeros(len(values_N), dtype=np.int64), np.ones(len(values_N), dtype=np.bool_)
    order = np.argsort(known, kind="stable")
    position_N = order[np.clip(np.searchsorted(known, values_N, sorter=order), 0, len(known) - 1)]
    unknown_N = known[position_N] != values_N
    return np.where(unknown_N, 0, position_N), np.asarray(unknown_N, dtype=np.bool_)


def _any(mask_NX: BoolArray) -> BoolArray:
    """Rows in which at least one entry is True."""
    return np.asarray(mask_NX.any(axis=1), dtype=np.bool_)
