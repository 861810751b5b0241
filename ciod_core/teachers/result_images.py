"""The images that a results file or a dataset is about: by id, or by file name, as some programs write them.

Legend: N entries of the file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ciod_core.arrays import Int64Array
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.errors import DataError
from ciod_core.teachers.boxes import OldClassImages

# Longer ones are names; ids have up to 2**53.
_MOST_DIGITS = 15


def image_ids(where: str, keys: Sequence[int | str], table: AnnotationTable) -> Int64Array:
    """The image id of every entry; an id that the table does not have where it does not have the image.

    Numbers are ids. Only where some are no ids of the table, but all are names of its files (000123.jpg for 123, as in
    `predictions.json` of Ultralytics), or stand beside names, are they names. A text is a name, with or without
    suffix and folders.

    Args:
        where: where the entries are, for messages.
        keys: image id or file name of every entry.
        table: the images.

    Raises:
        DataError: a name fits several images.
    """
    plain = [int(key) if isinstance(key, str) and _is_number(key) else key for key in keys]
    distinct = dict.fromkeys(plain, 0)
    known = set(table.image_ids_I.tolist())
    names = _images_by_name(table)
    texts = any(isinstance(key, str) for key in distinct)
    if not texts and (known.issuperset(distinct) or not names.keys() >= distinct.keys()):
        return np.array(plain, dtype=np.int64)
    unknown = min(known, default=0) - 1
    for key in distinct:
        found = _find(key, names)
        if len(found) > 1:
            raise DataError(f"{where}: image_id {key!r} fits several images of {table.path}; write their ids")
        distinct[key] = found[0] if found else unknown
        unknown -= not found
    return np.array([distinct[key] for key in plain], dtype=np.int64)


def notes_about_images(path: Path, image_ids_N: Int64Array, old: OldClassImages) -> tuple[str, ...]:
    """Notes about images that only a file or only a step has.

    Args:
        path: the file, for messages.
        image_ids_N: the images that it lists, as often as it does.
        old: the images of the step.

    Raises:
        DataError: they have none in common.
    """
    table = old.images.table
    listed = f"step {old.step} ({table.path})"
    distinct = np.unique(image_ids_N)
    num_known, num_listed = int(np.isin(distinct, table.image_ids_I).sum()), len(distinct)
    if num_listed and not num_known:
        raise DataError(
            f"{path}: none of its {num_listed} images is among the {table.num_images} of {listed}; "
            "run the detector on the images of that file"
        )
    notes = []
    if num_listed > num_known:
        notes.append(f"{path}: skipped {num_listed - num_known} of its {num_listed} images, which are not in {listed}")
    if table.num_images > num_known:
        missing = table.num_images - num_known
        notes.append(f"{path}: has no result for {missing} of the {table.num_images} images of {listed}")
    return tuple(notes)


def _images_by_name(table: AnnotationTable) -> dict[int | str, list[int]]:
    """The image ids by file name, with and without folders and suffix, and by the number that a name is."""
    found: dict[int | str, list[int]] = defaultdict(list)
    pairs = list(zip(table.file_names_I.tolist(), table.image_ids_I.tolist(), strict=True))
    for name, number in pairs:
        path = PurePosixPath(name)
        keys: set[int | str] = {path.name, path.stem}
        for key in keys | ({int(path.stem)} if _is_number(path.stem) else set()):
            found[key].append(number)
    # A whole name is that of one image, even where others are called so in other folders.
    return found | {name: [number] for name, number in pairs}


def _is_number(name: str) -> bool:
    return name.isdecimal() and len(name) <= _MOST_DIGITS


def _find(key: int | str, names: Mapping[int | str, list[int]]) -> list[int]:
    if isinstance(key, int):
        return names.get(key, [])
    path = key.replace("\\", "/")
    return names.get(path) or names.get(PurePosixPath(path).name, [])
