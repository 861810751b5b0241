"""Annotations as columns: a whole dataset in a few NumPy arrays.

A list of dictionaries costs gigabytes at COCO size and is copied into every loading worker; these
arrays cost megabytes and are shared.

Legend: I images, N boxes of all images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ciod_core.arrays import BoolArray, Float32Array, Int32Array, Int64Array, TextArray

IMAGE_COLUMNS = ("image_ids_I", "file_names_I", "widths_I", "heights_I")
BOX_COLUMNS = ("annotation_ids_N", "category_ids_N", "boxes_N4", "areas_N", "crowd_N")


class Category(NamedTuple):
    """A class as the dataset knows it."""

    id: int
    name: str


@dataclass(frozen=True)
class AnnotationTable:
    """Images and boxes of one annotation file; boxes are stored image by image.

    Attributes:
        image_ids_I: the dataset's image ids.
        file_names_I: file names relative to the image folder.
        widths_I: image widths in pixels.
        heights_I: image heights in pixels.
        offsets: shape (I+1,); rows offsets[i]:offsets[i+1] belong to image i.
        annotation_ids_N: the dataset's annotation ids.
        category_ids_N: the dataset's category ids.
        boxes_N4: boxes, xyxy, pixels of the original image.
        areas_N: object areas in square pixels.
        crowd_N: True where a box covers a crowd instead of one object.
        categories: the classes, in the order of the file.
        path: the file the table was read from, for messages.
        sha256: hash of all that the table was read from; empty for a table that was made.
        clipped_boxes: how many boxes stuck out of their image and were cut to it.
        dropped_boxes: how many boxes without extent were left out.
    """

    image_ids_I: Int64Array
    file_names_I: TextArray
    widths_I: Int32Array
    heights_I: Int32Array
    offsets: Int64Array
    annotation_ids_N: Int64Array
    category_ids_N: Int64Array
    boxes_N4: Float32Array
    areas_N: Float32Array
    crowd_N: BoolArray
    categories: tuple[Category, ...]
    path: Path | None = None
    sha256: str = ""
    clipped_boxes: int = 0
    dropped_boxes: int = 0

    def __post_init__(self) -> None:
        assert len(self.offsets) == self.num_images + 1
        assert self.offsets[0] == 0 and self.offsets[-1] == self.num_boxes

    @property
    def num_images(self) -> int:
        """Number of images, those without boxes included."""
        return len(self.image_ids_I)

    @property
    def num_boxes(self) -> int:
        """Number of boxes, crowd boxes included."""
        return len(self.annotation_ids_N)

    def rows_of(self, image: int) -> slice:
        """The rows of the boxes of the image with this index (not id)."""
        return slice(int(self.offsets[image]), int(self.offsets[image + 1]))

    def size_of(self, image: int) -> tuple[int, int]:
        """Width and height in pixels of the image with this index."""
        return int(self.widths_I[image]), int(self.heights_I[image])

    @cached_property
    def image_of_box_N(self) -> Int64Array:
        """Index of the image of every box."""
        return np.repeat(np.arange(self.num_images, dtype=np.int64), np.diff(self.offsets))

    def with_category(self, category_ids: tuple[int, ...] | Int64Array) -> BoolArray:
        """A mask over boxes: True where the category is one of these ids."""
        return np.isin(self.category_ids_N, np.asarray(category_ids, dtype=np.int64))

    def images_with(self, box_mask_N: BoolArray) -> BoolArray:
        """A mask over images: True where at least one box of the mask lies."""
        image_mask_I = np.zeros(self.num_images, dtype=np.bool_)
        image_mask_I[self.image_of_box_N[box_mask_N]] = True
        return image_mask_I

    def select(
        self,
        box_mask_N: BoolArray,
        image_mask_I: BoolArray | None = None,
        categories: tuple[Category, ...] | None = None,
    ) -> AnnotationTable:
        """A smaller table of the same dataset.

        Args:
            box_mask_N: boxes to keep.
            image_mask_I: images to keep; an image that goes takes all its boxes along. None keeps all.
            categories: the classes of the new table; None keeps them as they are.
        """
        if image_mask_I is None:
            image_mask_I = np.ones(self.num_images, dtype=np.bool_)
        # Row numbers, because every column is picked by them faster than by a mask.
        kept_N = np.flatnonzero(box_mask_N & image_mask_I[self.image_of_box_N])
        boxes_per_image_I = np.bincount(self.image_of_box_N[kept_N], minlength=self.num_images)[image_mask_I]
        columns: dict[str, Any] = {name: getattr(self, name)[image_mask_I] for name in IMAGE_COLUMNS}
        columns |= {name: getattr(self, name)[kept_N] for name in BOX_COLUMNS}
        return replace(
            self,
            **columns,
            offsets=offsets_of(boxes_per_image_I),
            categories=self.categories if categories is None else categories,
        )

    def without_boxes(self) -> AnnotationTable:
        """The same images, and nothing of what is labeled on them."""
        return self.select(np.zeros(self.num_boxes, dtype=np.bool_))


def offsets_of(boxes_per_image_I: Int64Array) -> Int64Array:
    """Shape (I+1,): where the rows of each image start, and where those of the last one end."""
    return np.concatenate([[0], np.cumsum(boxes_per_image_I)]).astype(np.int64)
