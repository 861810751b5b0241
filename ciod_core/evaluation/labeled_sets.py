"""Validation images of several steps, of which each labels some of the classes.

Where a class is not labeled, it is unknown whether a detection of it is right. So a class is measured on the
validation sets that label it, and on no others, as federated datasets such as LVIS do.

Legend: I images, S validation sets, C classes, N boxes or detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ciod_core.arrays import BoolArray, Int64Array
from ciod_core.classes import ClassTable
from ciod_core.data.annotations.table import AnnotationTable


@dataclass(frozen=True)
class LabeledSets:
    """The classes that are labeled on each validation image.

    Attributes:
        image_ids_I: image ids, ascending.
        set_I: the validation set of each image.
        labeled_SC: whether a set labels a class.
        classes: the classes by label.
    """

    image_ids_I: Int64Array
    set_I: Int64Array
    labeled_SC: BoolArray
    classes: ClassTable

    @classmethod
    def of(cls, tables: Sequence[AnnotationTable], classes: ClassTable) -> LabeledSets:
        """A table labels the classes that it lists; no two tables share an image."""
        ids = np.concatenate([table.image_ids_I for table in tables])
        sets = np.repeat(np.arange(len(tables)), [table.num_images for table in tables])
        listed = [np.array([category.id for category in table.categories], dtype=np.int64) for table in tables]
        order = np.argsort(ids)
        return cls(
            image_ids_I=ids[order],
            set_I=sets[order],
            labeled_SC=np.stack([np.isin(classes.category_ids, known) for known in listed]),
            classes=classes,
        )

    @property
    def complete(self) -> bool:
        """Whether every class is labeled on every image."""
        return bool(self.labeled_SC.all())

    @property
    def images_C(self) -> Int64Array:
        """Number of images that every class is measured on."""
        images_S = np.bincount(self.set_I, minlength=len(self.labeled_SC))
        return images_S @ self.labeled_SC.astype(np.int64)

    def first_only(self) -> LabeledSets:
        """Each class on the first set alone that labels it: what later sets add does not change its measure."""
        before_SC: Int64Array = np.cumsum(self.labeled_SC, axis=0, dtype=np.int64) - self.labeled_SC
        return replace(self, labeled_SC=self.labeled_SC & (before_SC == 0))

    def count(self, image_ids_N: Int64Array, category_ids_N: Int64Array) -> BoolArray:
        """Mask of the boxes that count: those of a class that is labeled on their image."""
        labels_N = self.classes.labels_of(category_ids_N)
        set_N = self.set_I[np.searchsorted(self.image_ids_I, image_ids_N)]
        return np.asarray((labels_N >= 0) & self.labeled_SC[set_N, labels_N], dtype=np.bool_)
