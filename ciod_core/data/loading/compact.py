"""What training needs of an annotation table, in as few bytes as it takes: every loading worker holds a copy.

Legend: I images, N boxes of all images, G boxes of an image, C characters of all file names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ciod_core.arrays import BoolArray, Float32Array, Int32Array, Int64Array
from ciod_core.classes import ClassTable
from ciod_core.data.annotations.table import AnnotationTable


@dataclass(frozen=True)
class CompactTable:
    """Images with their boxes and labels; 20 MB at the size of COCO train2017.

    Attributes:
        image_ids_I: the dataset's image ids.
        sizes_I2: image widths and heights in pixels.
        offsets: shape (I+1,); rows offsets[i]:offsets[i+1] belong to image i.
        boxes_N4: boxes, xyxy, pixels of the original image.
        labels_N: labels of the class table.
        names_C: all file names in UTF-8, one after the other.
        name_ends: shape (I+1,); bytes name_ends[i]:name_ends[i+1] are the name of image i.
        replayed_I: True for images of earlier steps, on which objects of the new classes carry no label.
        path: the file the table was read from, for messages.
    """

    image_ids_I: Int64Array
    sizes_I2: Int32Array
    offsets: Int64Array
    boxes_N4: Float32Array
    labels_N: Int32Array
    names_C: npt.NDArray[np.uint8]
    name_ends: Int64Array
    replayed_I: BoolArray
    path: Path | None

    @classmethod
    def of(
        cls, table: AnnotationTable, classes: ClassTable, *, skip_crowd: bool, replayed_I: BoolArray | None = None
    ) -> CompactTable:
        """Keep all images, and the boxes whose category has a label.

        Args:
            table: images and boxes.
            classes: labels of the categories.
            skip_crowd: leave crowd boxes out.
            replayed_I: mask of the images of earlier steps; None where there are none.
        """
        labels_N = classes.labels_of(table.category_ids_N)
        kept_N = labels_N >= 0
        if skip_crowd:
            kept_N &= ~table.crowd_N
        kept_before = np.concatenate([[0], np.cumsum(kept_N)])
        names = [name.encode("utf-8", "surrogatepass") for name in table.file_names_I.tolist()]
        return cls(
            image_ids_I=table.image_ids_I,
            sizes_I2=np.stack([table.widths_I, table.heights_I], axis=1).astype(np.int32),
            offsets=kept_before[table.offsets],
            boxes_N4=table.boxes_N4[kept_N],
            labels_N=labels_N[kept_N].astype(np.int32),
            names_C=np.frombuffer(b"".join(names), dtype=np.uint8),
            name_ends=np.cumsum([0, *map(len, names)], dtype=np.int64),
            replayed_I=np.zeros(table.num_images, dtype=np.bool_) if replayed_I is None else replayed_I,
            path=table.path,
        )

    def __len__(self) -> int:
        return len(self.image_ids_I)

    def file_name(self, image: int) -> str:
        """The file name of the image with this index."""
        return (
            self.names_C[self.name_ends[image] : self.name_ends[image + 1]].tobytes().decode("utf-8", "surrogatepass")
        )

    def size(self, image: int) -> tuple[int, int]:
        """Width and height of an image in pixels."""
        width, height = self.sizes_I2[image].tolist()
        return width, height

    def boxes_of(self, image: int) -> Float32Array:
        """The boxes (G, 4) of an image, xyxy, pixels of the original image."""
        return self.boxes_N4[self.offsets[image] : self.offsets[image + 1]]

    def labels_of(self, image: int) -> Int64Array:
        """The labels (G,) of an image."""
        return self.labels_N[self.offsets[image] : self.offsets[image + 1]].astype(np.int64)
