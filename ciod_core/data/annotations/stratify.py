"""Dividing images in two so that every class has the same share of its images in both: iterative stratification.

After Sechidis, Tsoumakas and Vlahavas, On the Stratification of Multi-Label Data (ECML PKDD 2011): the class with the
fewest images left is divided next. Here images come in groups that stay together, and the number held out is exact as
far as the groups allow.

Legend: I images, N boxes, G groups, C classes in order of name, of which the last, without a name, is that of images
without objects; M pairs of a group and a class that it shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from ciod_core.arrays import BoolArray, Int64Array
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.records import Record

# Of exchanges that would hold out one class more: a matter of seconds with a million boxes.
MOST_TRIALS = 1000


class HeldOut(Record):
    """How a validation half was made out of the training images, as the manifest records it."""

    amount: float = Field(description="what was asked for: a share below 1, or a number of images")
    seed: int
    images: int = Field(description="images that were held out")
    of_images: int = Field(description="images that the dataset has")


@dataclass(frozen=True)
class _Pairs:
    """What the groups show, sorted by group; crowds are no objects.

    Attributes:
        group_M: the group of every pair.
        class_M: the class that it shows.
        images_M: on how many of its images.
        boxes_M: in how many boxes.
        offsets: shape (G+1,); rows offsets[g]:offsets[g+1] belong to group g.
        images_C: images of each class.
    """

    group_M: Int64Array
    class_M: Int64Array
    images_M: Int64Array
    boxes_M: Int64Array
    offsets: Int64Array
    images_C: Int64Array

    def held_C(self, held_G: BoolArray) -> Int64Array:
        """Images of each class in the groups that are held out."""
        images_M = self.images_M * held_G[self.group_M]
        return np.bincount(self.class_M, weights=images_M, minlength=len(self.images_C)).astype(np.int64)

    @classmethod
    def of(cls, table: AnnotationTable, group_I: Int64Array) -> _Pairs:
        by_name = sorted(table.categories, key=lambda category: category.name)
        position = {category.id: place for place, category in enumerate(by_name)}
        classes = len(by_name) + 1
        object_N = np.flatnonzero(~table.crowd_N)
        class_N = np.array([position[number] for number in table.category_ids_N[object_N].tolist()], dtype=np.int64)
        shown, boxes = np.unique(table.image_of_box_N[object_N] * classes + class_N, return_counts=True)
        empty = np.setdiff1d(np.arange(table.num_images), shown // classes) * classes + classes - 1
        shown, boxes = np.concatenate([shown, empty]), np.concatenate([boxes, np.zeros_like(empty)])
        cells, pair = np.unique(group_I[shown // classes] * classes + shown % classes, return_inverse=True)
        images_M = np.bincount(pair)
        group_M, class_M = cells // classes, cells % classes
        return cls(
            group_M=group_M,
            class_M=class_M,
            images_M=images_M,
            boxes_M=np.bincount(pair, weights=boxes).astype(np.int64),
            offsets=np.searchsorted(group_M, np.arange(int(group_I.max()) + 2)),
            images_C=np.bincount(class_M, weights=images_M, minlength=classes).astype(np.int64),
        )


def choose_held_out(table: AnnotationTable, group_I: Int64Array, pinned_G: Int64Array, wanted: int) -> BoolArray:
    """Choose the images of one part, the held-out one; the rest stays.

    Every class has its share of images in both parts, and is in both where two groups show it; one that a single group
    shows stays. The number of images counts for more than that a rare class is held out, too.

    Args:
        table: the annotations.
        group_I: the group of every image, which are numbered from 0 in the order in which they are to be dealt.
        pinned_G: 1 where a group is to be held out, −1 where it is to stay, 0 where it is free.
        wanted: number of images to hold out, below their number.

    Returns:
        Shape (I,): True where an image is held out.
    """
    pairs, free_G, images_G = _Pairs.of(table, group_I), pinned_G == 0, np.bincount(group_I)
    held_G = _to_number(_deal(pairs, pinned_G, wanted / table.num_images), pairs, free_G, images_G, wanted)
    return _with_more_classes(held_G, pairs, free_G, images_G, wanted)[group_I]


def _deal(pairs: _Pairs, pinned_G: Int64Array, share: float) -> BoolArray:
    """Shape (G,): True where a group is held out."""
    held_G, dealt_G = pinned_G > 0, pinned_G != 0
    dealt_M = dealt_G[pairs.group_M]
    num_classes = len(pairs.images_C)
    groups_left_C = np.bincount(pairs.class_M[~dealt_M], minlength=num_classes)
    # Row 0: images of each class that stay; row 1: those held out.
    images_2C = np.zeros((2, num_classes), dtype=np.int64)
    np.add.at(
        images_2C, (held_G[pairs.group_M[dealt_M]].astype(np.int64), pairs.class_M[dealt_M]), pairs.images_M[dealt_M]
    )
    # Of a class, groups with many boxes come first: then both parts get some with many and some with few.
    order_M = np.lexsort((pairs.group_M, -pairs.boxes_M, pairs.class_M))
    starts = np.searchsorted(pairs.class_M[order_M], np.arange(num_classes + 1))
    while groups_left_C.any():
        rarest = int(np.where(groups_left_C, groups_left_C, len(pairs.group_M) + 1).argmin())
        for pair in order_M[starts[rarest] : starts[rarest + 1]].tolist():
            group = int(pairs.group_M[pair])
            if dealt_G[group]:
                continue
            rows = slice(int(pairs.offsets[group]), int(pairs.offsets[group + 1]))
            classes = pairs.class_M[rows]
            last = classes[groups_left_C[classes] == 1]
            if (images_2C[0, last] == 0).any():
                held = False
            elif (images_2C[1, last] == 0).any():
                held = True
            else:
                kept_then, held_then = images_2C[:, rarest] + pairs.images_M[pair] / 2
                held = held_then * (1 - share) < kept_then * share
            held_G[group], dealt_G[group] = held, True
            images_2C[int(held), classes] += pairs.images_M[rows]
            groups_left_C[classes] -= 1
    return held_G


def _to_number(held_G: BoolArray, pairs: _Pairs, free_G: BoolArray, images_G: Int64Array, wanted: int) -> BoolArray:
    """Move groups, those first that disturb the shares least, until so many images are held out."""
    held_G, share = held_G.copy(), wanted / images_G.sum()
    images_M, images_of_class_M = pairs.images_M, pairs.images_C[pairs.class_M]
    while missing := wanted - int(images_G[held_G].sum()):
        sign = 1 if missing > 0 else -1
        held_M = pairs.held_C(held_G)[pairs.class_M]
        surplus_M = sign * (held_M - share * images_of_class_M)
        cost_G = np.bincount(pairs.group_M, weights=(2 * surplus_M + images_M) * images_M / images_of_class_M)
        left_M = (images_of_class_M - held_M if sign > 0 else held_M) - images_M
        emptied_G = np.bincount(pairs.group_M, weights=left_M == 0)
        movable_G = free_G & (held_G != (sign > 0)) & (images_G <= abs(missing))
        if sign > 0:
            # A class without a training image need not be measured.
            movable_G &= emptied_G == 0
        candidates = np.flatnonzero(movable_G)
        if not len(candidates):
            break
        best = candidates[np.lexsort((cost_G[candidates], emptied_G[candidates]))[0]]
        held_G[best] = not held_G[best]
    return held_G


def _with_more_classes(
    held_G: BoolArray, pairs: _Pairs, free_G: BoolArray, images_G: Int64Array, wanted: int
) -> BoolArray:
    """Exchange groups as long as another class is held out for it, and none is lost."""
    images, trials = int(images_G[held_G].sum()), 0
    for label in range(len(pairs.images_C) - 1):
        for group in pairs.group_M[pairs.class_M == label].tolist():
            held_C = pairs.held_C(held_G)
            if held_C[label] or trials == MOST_TRIALS:
                break
            if not free_G[group]:
                continue
            trials += 1
            exchanged_G, others_G = held_G.copy(), free_G.copy()
            exchanged_G[group], others_G[group] = True, False
            exchanged_G = _to_number(exchanged_G, pairs, others_G, images_G, wanted)
            now_C = pairs.held_C(exchanged_G)
            gained = np.count_nonzero(now_C[:-1]) > np.count_nonzero(held_C[:-1])
            if gained and (now_C[:-1] < pairs.images_C[:-1]).all() and int(images_G[exchanged_G].sum()) == images:
                held_G = exchanged_G
    return held_G
