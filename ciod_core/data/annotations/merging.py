"""Merging tables: parts of a dataset with the boxes of both on each image, and datasets in different folders.

Legend: J images of both tables, one after the other; I images of the merged table; N boxes of both.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ciod_core.arrays import text_array
from ciod_core.data.annotations.table import BOX_COLUMNS, IMAGE_COLUMNS, AnnotationTable, offsets_of
from ciod_core.errors import DataError


class LocatedTable(NamedTuple):
    """A table and the folder that its file names are relative to."""

    table: AnnotationTable
    image_dir: Path


def merge_located(parts: Sequence[LocatedTable]) -> LocatedTable:
    """One table of all parts, as `merge` makes it; where their folders differ, names start from the one they share.

    Raises:
        DataError: folders on different drives.
    """
    folder = common_folder([part.image_dir for part in parts])
    return LocatedTable(reduce(merge, (_seen_from(folder, part) for part in parts)), folder)


def common_folder(folders: Sequence[Path]) -> Path:
    """The innermost folder that holds all of these, or the very folder where there is but one.

    Raises:
        DataError: they lie on different drives.
    """
    if len(set(folders)) == 1:
        return folders[0]
    try:
        return Path(os.path.commonpath([folder.resolve() for folder in folders]))
    except ValueError:
        named = ", ".join(map(str, dict.fromkeys(folders)))
        raise DataError(f"{named}: these image folders lie on different drives; move them to the same one") from None


def _seen_from(folder: Path, part: LocatedTable) -> AnnotationTable:
    if part.image_dir == folder:
        return part.table
    prefix = part.image_dir.resolve().relative_to(folder).as_posix()
    names = [name if prefix == "." else f"{prefix}/{name}" for name in part.table.file_names_I.tolist()]
    return replace(part.table, file_names_I=text_array(names))


def unite_images(parts: Sequence[LocatedTable], contents: Sequence[Sequence[str]]) -> list[LocatedTable]:
    """The same tables, where an image that an earlier one has, too, takes the id it has there.

    The labels of a class on such an image are those of the first table that lists the class: what later ones say of it
    are the same objects once more. An image that one table lists twice stays two images there.

    Args:
        parts: tables without a common image id.
        contents: the hash of every image, table by table.
    """
    first_ids: dict[tuple[object, ...], int] = {}
    united: list[LocatedTable] = []
    for (table, image_dir), hashes_I in zip(parts, contents, strict=True):
        times, ids = Counter[tuple[object, ...]](), table.image_ids_I.copy()
        for index, sha256 in enumerate(hashes_I):
            # Where sizes differ, one of the tables speaks of the image as stored and the other of the upright one.
            image = (sha256, *table.size_of(index))
            times[image] += 1
            ids[index] = first_ids.setdefault((*image, times[image]), int(ids[index]))
        new_N = np.ones(table.num_boxes, dtype=np.bool_)
        for earlier, _ in united:
            there_N = np.isin(ids, earlier.image_ids_I)[table.image_of_box_N]
            new_N &= ~(there_N & table.with_category(tuple(category.id for category in earlier.categories)))
        united.append(LocatedTable(replace(table, image_ids_I=ids).select(new_N), image_dir))
    return united


def merge(first: AnnotationTable, second: AnnotationTable) -> AnnotationTable:
    """Both tables' images and boxes, matched by image id.

    The images of `first` come first and in its order, then those that `second` alone has; the boxes of an image are
    those of `first` before those of `second`. The hash of what was read is left behind.

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
    new_categories = (category for category in second.categories if category not in first.categories)
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])[rows]
        for names, rows in ((IMAGE_COLUMNS, rows_I), (BOX_COLUMNS, rows_N))
        for name in names
    }
    return replace(
        first,
        **columns,
        offsets=offsets_of(np.bincount(image_N, minlength=len(rows_I))),
        categories=(*first.categories, *new_categories),
        sha256="",
        clipped_boxes=first.clipped_boxes + second.clipped_boxes,
        dropped_boxes=first.dropped_boxes + second.dropped_boxes,
    )
