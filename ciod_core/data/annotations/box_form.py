"""Boxes written in another form than their format's: shares of the image for pixels, corners for sizes.

Each such box looks like a box, so that only all of them together tell.

Legend: N boxes of all images.
"""

from __future__ import annotations

import numpy as np

from ciod_core.arrays import BoolArray, Float64Array
from ciod_core.data.annotations.raw import BoxForm, RawAnnotations

# Rounding in annotation tools lets boxes leave their image by up to a pixel; ground truth keeps those as they are.
OVERHANG_TOLERATED = 1.0
# A file with fewer boxes in question is not judged.
FEWEST_BOXES = 3
# Boxes from 0,0 to 2,2 hold any share of the image, be it a size or a corner. Tiny objects lie all over their images:
# not half of a dataset's boxes are found in this one spot.
CORNER_PIXELS = 2.0
IN_THE_CORNER = 0.5
# Objects reach to all sides of their images. So boxes that are read rightly rarely fit in another form as well: as
# corners, those whose distance from the left is larger than their width do not; as centers, those at the left do not.
MISFITTING, FITTING_OTHERWISE = 0.25, 0.98

FORMS: dict[BoxForm, str] = {
    "xywh": "[x, y, width, height]",
    "cxcywh": "[center x, center y, width, height]",
    "xyxy": "[x1, y1, x2, y2]",
}


def unit_of(form: BoxForm) -> str:
    """The unit of a form, for messages."""
    return "shares of the image (0 to 1)" if form == "cxcywh" else "pixels"


@np.errstate(over="ignore", invalid="ignore")
def other_form(raw: RawAnnotations, limits_N2: Float64Array, known_N: BoolArray) -> tuple[str, int] | None:
    """What shows that the boxes are in another form, if anything does, and how many of them show it.

    Args:
        raw: the annotations.
        limits_N2: width and height of the image of every box, in pixels.
        known_N: True where that image is known and the box is finite.
    """
    rows_N = np.flatnonzero(known_N)
    written_N4, limits_N2 = _written(raw)[rows_N], limits_N2[rows_N]
    stated_N4 = _corners(written_N4, raw.box_form)
    corner_N = _all((stated_N4 >= -OVERHANG_TOLERATED) & (stated_N4 <= CORNER_PIXELS))
    if _many(corner_N, IN_THE_CORNER):
        cause = "divided by its size twice" if raw.box_form == "cxcywh" else "as shares of it (0 to 1)"
        problem = (
            f"lies in the very corner of its image, {cause} like most boxes; export boxes in {unit_of(raw.box_form)}"
        )
        return f"{raw.box_place(int(rows_N[np.argmax(corner_N)]))} {problem}", int(corner_N.sum())
    misfit_N = ~_fits(stated_N4, limits_N2)
    if not _many(misfit_N, MISFITTING):
        return None
    for form in FORMS:
        if form != raw.box_form and _fits(_corners(written_N4, form), limits_N2).mean() >= FITTING_OTHERWISE:
            problem = (
                f"does not fit its image as {FORMS[raw.box_form]}, but does as {FORMS[form]}, like the other boxes; "
                f"write them as {FORMS[raw.box_form]}"
            )
            return f"{raw.box_place(int(rows_N[np.argmax(misfit_N)]))} {problem}", int(misfit_N.sum())
    return None


def _many(mask_N: BoolArray, share: float) -> bool:
    count = int(mask_N.sum())
    return count >= FEWEST_BOXES and count >= share * len(mask_N)


def _fits(xyxy_N4: Float64Array, limits_N2: Float64Array) -> BoolArray:
    """True where a box has an extent and lies in its image."""
    inside_N2 = (xyxy_N4[:, :2] >= -OVERHANG_TOLERATED) & (xyxy_N4[:, 2:] <= limits_N2 + OVERHANG_TOLERATED)
    return _all(inside_N2 & (xyxy_N4[:, 2:] > xyxy_N4[:, :2]))


def _written(raw: RawAnnotations) -> Float64Array:
    """The boxes in pixels, in the form in which their file states them."""
    start_N2, extent_N2 = raw.boxes_xywh_N4[:, :2], raw.boxes_xywh_N4[:, 2:]
    match raw.box_form:
        case "xywh":
            return raw.boxes_xywh_N4
        case "cxcywh":
            return np.concatenate([start_N2 + extent_N2 / 2, extent_N2], axis=1)
        case "xyxy":
            return np.concatenate([start_N2, start_N2 + extent_N2], axis=1)


def _corners(written_N4: Float64Array, form: BoxForm) -> Float64Array:
    """Boxes of this form as left, top, right, bottom."""
    first_N2, second_N2 = written_N4[:, :2], written_N4[:, 2:]
    match form:
        case "xywh":
            return np.concatenate([first_N2, first_N2 + second_N2], axis=1)
        case "cxcywh":
            return np.concatenate([first_N2 - second_N2 / 2, first_N2 + second_N2 / 2], axis=1)
        case "xyxy":
            return written_N4


def _all(mask_NX: BoolArray) -> BoolArray:
    """Rows in which every entry is True."""
    return np.asarray(mask_NX.all(axis=1), dtype=np.bool_)
