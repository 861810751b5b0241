"""The step splits of a class-incremental experiment.

A protocol decides which images a step trains on; the boxes of all other classes are removed from them.

Legend: I images, N boxes of all images, S steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from ciod_core.arrays import BoolArray
from ciod_core.classes import quoted
from ciod_core.data.annotations.protocols import Protocol, StepObjects, assign_images
from ciod_core.data.annotations.table import AnnotationTable, Category
from ciod_core.errors import DataError
from ciod_core.records import Record


class StepStatistics(Record):
    """Counts of a step's training images and their boxes, as the manifest records them. Crowd boxes are not counted."""

    images: int
    boxes_per_class: dict[str, int] = Field(description="labeled boxes of each class of the step")
    hidden_old_boxes: int = Field(0, description="boxes of earlier steps' classes, not labeled in this step")
    hidden_future_boxes: int = Field(0, description="boxes of later steps' classes, not labeled in this step")
    hidden_left_out_boxes: int = Field(0, description="boxes of classes that no step learns")
    shared_images: dict[int, int] = Field({}, description="images that also occur in another step, by that step")


@dataclass(frozen=True)
class StepData:
    """One step: its training images and labels, and its validation images and labels.

    Attributes:
        step: number of the step, from 1.
        train: images and boxes of the step's classes.
        val: the whole validation set with the boxes of all classes learned so far.
        statistics: counts of the training images and their boxes.
    """

    step: int
    train: AnnotationTable
    val: AnnotationTable
    statistics: StepStatistics


@dataclass(frozen=True)
class StepPartition:
    """All steps.

    Attributes:
        steps: the steps in the order of learning.
        unused_images: training images that no step trains on.
    """

    steps: tuple[StepData, ...]
    unused_images: int


def split_steps(
    train: AnnotationTable,
    val: AnnotationTable,
    groups: Sequence[Sequence[Category]],
    protocol: Protocol = "overlap",
    seed: int = 0,
) -> StepPartition:
    """Split a dataset into steps.

    Args:
        train: the training annotations of all classes.
        val: the validation annotations of all classes.
        groups: the classes of every step; classes in none of them are left out everywhere.
        protocol: which images a step trains on.
        seed: of the protocols that shuffle, `disjoint` and `loco`.

    Raises:
        ConfigError: a seed out of range.
        DataError: the two files disagree about a class, or a class has no training box.
    """
    _check_same_categories(train, val, groups)
    objects = StepObjects.of(train, groups)
    assigned_IS = assign_images(objects, protocol, seed)
    statistics = _statistics(objects, groups, assigned_IS)
    _check_every_class_has_boxes(objects, groups, statistics, f"`protocol` {protocol} and `seed` {seed}")
    steps = []
    for step, group in enumerate(groups, start=1):
        seen = tuple(category for earlier in groups[:step] for category in earlier)
        steps.append(
            StepData(
                step=step,
                train=train.select(objects.step_of_box_N == step, assigned_IS[:, step - 1], tuple(group)),
                val=val.select(val.with_category(tuple(category.id for category in seen)), categories=seen),
                statistics=statistics[step - 1],
            )
        )
    return StepPartition(steps=tuple(steps), unused_images=int(np.count_nonzero(~assigned_IS.any(axis=1))))


def _statistics(
    objects: StepObjects, groups: Sequence[Sequence[Category]], assigned_IS: BoolArray
) -> list[StepStatistics]:
    # Floating point: NumPy multiplies only such matrices fast, and counts below 2**53 stay exact.
    images_SI = assigned_IS.T.astype(np.float64)
    shared_SS = (images_SI @ images_SI.T).astype(np.int64)
    # Row: the step that sees the images; column: the step whose objects lie there, 0 for left-out classes.
    objects_on = (images_SI @ objects.objects_per_image).astype(np.int64)
    counts = iter(_labeled_per_class(objects, assigned_IS).tolist())
    return [
        StepStatistics(
            images=int(shared_SS[row, row]),
            boxes_per_class={category.name: next(counts) for category in group},
            hidden_old_boxes=int(objects_on[row, 1 : row + 1].sum()),
            hidden_future_boxes=int(objects_on[row, row + 2 :].sum()),
            hidden_left_out_boxes=int(objects_on[row, 0]),
            shared_images={other + 1: int(shared_SS[row, other]) for other in range(len(groups)) if other != row},
        )
        for row, group in enumerate(groups)
    ]


def _labeled_per_class(objects: StepObjects, assigned_IS: BoolArray) -> np.ndarray:
    """Shape (C,): objects of every class of the plan on the images of the step that learns it."""
    assigned = np.pad(assigned_IS, ((0, 0), (1, 0)))  # column 0: left-out classes are labeled nowhere
    labeled_N = assigned[objects.table.image_of_box_N, objects.step_of_box_N] & ~objects.table.crowd_N
    return np.bincount(objects.class_of_box_N[labeled_N], minlength=int(objects.classes_per_step_S.sum()))


def _check_every_class_has_boxes(
    objects: StepObjects, groups: Sequence[Sequence[Category]], statistics: Sequence[StepStatistics], settings: str
) -> None:
    empty = [
        (category, step)
        for step, group in enumerate(groups, start=1)
        for category in group
        if not statistics[step - 1].boxes_per_class[category.name]
    ]
    if not empty:
        return
    table = objects.table
    category, step = empty[0]
    others = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
    where = f"{table.path or 'training annotations'}: class '{category.name}' of step {step}{others}"
    if np.any((table.category_ids_N == category.id) & ~table.crowd_N):
        raise DataError(f"{where} lost all training boxes to {settings}; try another `seed`, or `protocol` overlap")
    raise DataError(f"{where} has no training box; add boxes, or name the class in `leave_out`")


def _check_same_categories(train: AnnotationTable, val: AnnotationTable, groups: Sequence[Sequence[Category]]) -> None:
    for category in (category for group in groups for category in group):
        for table, split in ((train, "training"), (val, "validation")):
            if category not in table.categories:
                where = table.path or f"{split} annotations"
                raise DataError(
                    f"{where}: categories has no class {quoted(category.name)} with id {category.id}; "
                    "training and validation files must list the same ids and names"
                )
