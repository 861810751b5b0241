"""Two tables of one dataset become one: its images once each, with the boxes of both.

Legend: J images of both tables, one after the other; I images of the merged table; N boxes of both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ciod_core.data.annotations import AnnotationTable, Int64Array

IMAGE_COLUMNS = ("image_ids_I", "file_names_I", "widths_I", "heights_I")
BOX_COLUMNS = ("annotation_ids_N", "category_ids_N", "boxes_N4", "areas_N", "crowd_N")


def merge(first: AnnotationTable, second: AnnotationTable) -> AnnotationTable:
    """Both tables' images and boxes, matched by image id.

    The images of `first` come first and in its order, then those that `second` alone has; the boxes of an image are
    those of `first` before those of `second`. JSON text is left behind, and with it the hash of what was read.

    Args:
        first: its path stays that of the table, for messages.
        second: another part of the same dataset; no box of it is in `first`.
    """
    ids_J = np.concatenate([first.image_ids_I, second.image_ids_I])
    _, seen_first, which_J = np.unique(ids_J, return_index=True, return_inverse=True)
    rows_I = np.sort(seen_first)
    image_J = np.searchsorted(rows_I, seen_first[which_J])
    image_N = image_J[np.concatenate([first.image_of_box_N, second.image_of_box_N + first.num_images])]
    rows_N = np.argsort(image_N, kind="stable")
    boxes_per_image_I = np.bincount(image_N, minlength=len(rows_I))
    new_categories = (category for category in second.categories if category not in first.categories)
    return replace(
        first,
        **_columns(first, second, IMAGE_COLUMNS, rows_I),
        **_columns(first, second, BOX_COLUMNS, rows_N),
        offsets=np.concatenate([[0], np.cumsum(boxes_per_image_I)]).astype(np.int64),
        categories=(*first.categories, *new_categories),
        sha256="",
        clipped_boxes=first.clipped_boxes + second.clipped_boxes,
        dropped_boxes=first.dropped_boxes + second.dropped_boxes,
        image_json=None,
        box_json=None,
    )


def _columns(
    first: AnnotationTable, second: AnnotationTable, names: tuple[str, ...], rows: Int64Array
) -> dict[str, Any]:
    """The named columns of both tables, one below the other, in the order of these rows."""
    return {name: np.concatenate([getattr(first, name), getattr(second, name)])[rows] for name in names}
