"""Annotation tables from a few lines: which classes lie on which image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ciod_core.data.annotations.table import AnnotationTable, Category


def make_table(images: Sequence[Sequence[int]], categories: Sequence[Category]) -> AnnotationTable:
    """A table whose images hold boxes of these category ids; a negative id is a crowd box.

    Image ids count from 100, annotation ids from 1000.
    """
    signed_ids_N = np.array([category for boxes in images for category in boxes], dtype=np.int64)
    num_boxes = len(signed_ids_N)
    offsets = np.concatenate([[0], np.cumsum([len(boxes) for boxes in images])]).astype(np.int64)
    return AnnotationTable(
        image_ids_I=100 + np.arange(len(images)),
        file_names_I=np.array([f"{number}.jpg" for number in range(len(images))], dtype=np.str_),
        widths_I=np.full(len(images), 64, dtype=np.int32),
        heights_I=np.full(len(images), 64, dtype=np.int32),
        offsets=offsets,
        annotation_ids_N=1000 + np.arange(num_boxes),
        category_ids_N=np.abs(signed_ids_N),
        boxes_N4=np.tile(np.array([1, 1, 9, 9], dtype=np.float32), (num_boxes, 1)),
        areas_N=np.full(num_boxes, 64, dtype=np.float32),
        crowd_N=signed_ids_N < 0,
        categories=tuple(categories),
    )
