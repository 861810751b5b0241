"""Images that nobody labeled: a folder of them as a table without boxes. Legend: I images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.images.decode import upright_size
from ciod_core.data.images.files import images_below
from ciod_core.errors import DataError


def unlabeled_images(image_dir: Path) -> AnnotationTable:
    """All images of a folder and its subfolders in order of name, numbered from 1, without boxes and classes.

    Raises:
        DataError: no such folder, no image in it, or one that cannot be read.
    """
    if not image_dir.is_dir():
        raise DataError(f"{image_dir}: no such image folder; check the path")
    names = sorted(path.relative_to(image_dir).as_posix() for path in images_below(image_dir))
    if not names:
        raise DataError(f"{image_dir}: no image in this folder; pass a folder of images")
    sizes_I2 = np.array([upright_size(image_dir / name) for name in names], dtype=np.int32)
    none = np.zeros(0, dtype=np.int64)
    return AnnotationTable(
        image_ids_I=np.arange(1, len(names) + 1, dtype=np.int64),
        file_names_I=np.array(names, dtype=np.str_),
        widths_I=sizes_I2[:, 0],
        heights_I=sizes_I2[:, 1],
        offsets=np.zeros(len(names) + 1, dtype=np.int64),
        annotation_ids_N=none,
        category_ids_N=none,
        boxes_N4=np.zeros((0, 4), dtype=np.float32),
        areas_N=np.zeros(0, dtype=np.float32),
        crowd_N=np.zeros(0, dtype=np.bool_),
        categories=(),
        path=image_dir,
    )


def without_labels(table: AnnotationTable) -> AnnotationTable:
    """The same images, and nothing of what is labeled on them."""
    return table.select(np.zeros(table.num_boxes, dtype=np.bool_))
