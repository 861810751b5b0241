"""The protocols, which choose the images that a step trains on.

`overlap`: every image that shows one of its classes; images recur across steps. `disjoint`: the step's own portion of
the shuffled images. `loco`: every image belongs to one of the steps whose classes it shows.

Legend: I images, N boxes of all images, S steps, C classes of all steps in the order of the plan, M pairs of an image
and a class that it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from ciod_core.arrays import BoolArray, Int64Array
from ciod_core.classes import ClassTable, class_table
from ciod_core.data.annotations.table import AnnotationTable, Category
from ciod_core.errors import ConfigError, did_you_mean

Protocol = Literal["overlap", "disjoint", "loco"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
SEEDED: tuple[Protocol, ...] = ("disjoint", "loco")
# NumPy's legacy generator takes no more.
MAX_SEED = 2**32 - 1
MAX_ID_RANGE = 2**16


@dataclass(frozen=True)
class StepObjects:
    """The boxes of a table by the step that learns their class. Crowd boxes are no objects.

    Attributes:
        table: the annotations of all classes.
        class_of_box_N: place of every box's class in the plan, from 0; −1 where the class is left out.
        classes_per_step_S: how many classes each step learns.
    """

    table: AnnotationTable
    class_of_box_N: Int64Array
    classes_per_step_S: Int64Array

    @classmethod
    def of(cls, table: AnnotationTable, groups: Sequence[Sequence[Category]]) -> StepObjects:
        """Sort the boxes of a table by the groups of a plan."""
        classes = class_table([[(category.name, category.id) for category in group] for group in groups])
        return cls(
            table=table,
            class_of_box_N=_labels_of_many(classes, table.category_ids_N),
            classes_per_step_S=np.array([len(group) for group in groups], dtype=np.int64),
        )

    @property
    def num_steps(self) -> int:
        """Steps of the plan."""
        return len(self.classes_per_step_S)

    @cached_property
    def step_of_class(self) -> Int64Array:
        """Shape (C+1,): the step (from 1) that learns each class; the last entry, 0, is that of class −1, left out."""
        return np.append(np.repeat(np.arange(1, self.num_steps + 1), self.classes_per_step_S), 0)

    @cached_property
    def step_of_box_N(self) -> Int64Array:
        """The step (from 1) that learns each box's class; 0 where none does."""
        return self.step_of_class[self.class_of_box_N]

    @cached_property
    def objects_per_image(self) -> Int64Array:
        """Shape (I, S+1): objects on each image of each step's classes; column 0 counts the left-out classes."""
        columns = self.num_steps + 1
        cell_N = self.table.image_of_box_N * columns + self.step_of_box_N
        counts = np.bincount(cell_N[~self.table.crowd_N], minlength=self.table.num_images * columns)
        return counts.reshape(-1, columns)

    @cached_property
    def shown_IS(self) -> BoolArray:
        """Shape (I, S): True where an image shows an object of a step's classes."""
        return self.objects_per_image[:, 1:] > 0


def parse_protocol(text: str) -> Protocol:
    """Read the name of a protocol.

    Raises:
        ConfigError: there is no protocol of that name.
    """
    for protocol in PROTOCOLS:
        if text == protocol:
            return protocol
    raise ConfigError(f"`protocol`: {text!r} is not a protocol; {did_you_mean(text, PROTOCOLS)}")


def assign_images(objects: StepObjects, protocol: Protocol, seed: int) -> BoolArray:
    """Decide which images each step trains on; all of them show an object of the step.

    Args:
        objects: the objects of the training annotations.
        protocol: the rule.
        seed: of the shuffle or draw of `disjoint` and `loco`; 0 to 2³² − 1.

    Returns:
        Shape (I, S), True where a step trains on an image.

    Raises:
        ConfigError: a seed out of range.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"`seed`: {seed} is out of range; pass a number from 0 to {MAX_SEED}")
    if protocol == "overlap":
        return objects.shown_IS
    step_of_image_I = _disjoint_steps(objects, seed) if protocol == "disjoint" else _loco_steps(objects, seed)
    return objects.shown_IS & (step_of_image_I[:, None] == np.arange(1, objects.num_steps + 1))


def _disjoint_steps(objects: StepObjects, seed: int) -> Int64Array:
    """The step whose portion holds each image, as CL-DETR divides them.

    The images, in the order of the file, are shuffled by NumPy's legacy generator and cut into one portion per step,
    as large as the step's share of the classes. An image without an object of its step is of no use to any.
    """
    num_images = objects.table.num_images
    shuffled_I = np.arange(num_images)
    np.random.RandomState(seed).shuffle(shuffled_I)
    classes_so_far_S = np.cumsum(objects.classes_per_step_S)
    ends_S = num_images * classes_so_far_S // classes_so_far_S[-1]
    step_of_image_I = np.empty(num_images, dtype=np.int64)
    step_of_image_I[shuffled_I] = 1 + np.searchsorted(ends_S, np.arange(num_images), side="right")
    return step_of_image_I


def _loco_steps(objects: StepObjects, seed: int) -> Int64Array:
    """One of the steps whose classes each image shows; 0 where it shows none.

    YOLO-IOD's exact rule is not published; this one draws, with the same chance for each, one of the classes that
    the image shows, and gives the image to the step that learns it. So every image with an object of the plan is used
    exactly once, a step gets an image the more likely the more of its classes are there, however many boxes they have,
    and plans that group the same class order differently divide the images alike: the images of 40+40 are those of
    20x4 taken two steps at a time.
    """
    num_images, num_classes = objects.table.num_images, len(objects.step_of_class) - 1
    planned_N = (objects.class_of_box_N >= 0) & ~objects.table.crowd_N
    cell_N = objects.table.image_of_box_N * num_classes + objects.class_of_box_N
    shown_IC = np.zeros((num_images, num_classes), dtype=np.bool_)
    shown_IC.ravel()[cell_N[planned_N]] = True
    pair_M = np.flatnonzero(shown_IC)
    pairs_I = np.count_nonzero(shown_IC, axis=1)
    # One number per image, drawn for images that show nothing too: then a draw depends on nothing but its image.
    chance_I = np.random.RandomState(seed).random_sample(num_images)
    drawn_I = np.cumsum(pairs_I) - pairs_I + (chance_I * pairs_I).astype(np.int64)
    step_of_image_I = np.zeros(num_images, dtype=np.int64)
    shows_I = pairs_I > 0
    step_of_image_I[shows_I] = objects.step_of_class[pair_M[drawn_I[shows_I]] % num_classes]
    return step_of_image_I


def _labels_of_many(classes: ClassTable, category_ids_N: Int64Array) -> Int64Array:
    """As `classes.labels_of`, a few times as fast where the ids lie close enough for a lookup table."""
    before, after = min(classes.category_ids) - 1, max(classes.category_ids) + 1
    if after - before > MAX_ID_RANGE:
        return classes.labels_of(category_ids_N)
    label_of_id = classes.labels_of(np.arange(before, after + 1))
    return label_of_id[np.clip(category_ids_N, before, after) - before]
