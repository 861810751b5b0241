"""The step splits of a class-incremental experiment.

The `overlap` protocol: a step trains on every image that shows at least one object of its classes, with the
boxes of all other classes removed; images recur across steps.

Legend: N boxes of all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ciod_core.data.annotations import AnnotationTable, BoolArray, Category
from ciod_core.errors import DataError


@dataclass(frozen=True)
class StepStatistics:
    """What a step's training images hold. Crowd boxes are counted nowhere.

    Attributes:
        images: training images of the step.
        boxes_per_class: labelled boxes of each class of the step.
        hidden_old_boxes: boxes of earlier steps' classes on these images, not labelled in this step.
        hidden_future_boxes: boxes of later steps' classes on these images, not labelled in this step.
        shared_images: for every other step, how many of these images it trains on too.
    """

    images: int
    boxes_per_class: dict[str, int]
    hidden_old_boxes: int
    hidden_future_boxes: int
    shared_images: dict[int, int]


@dataclass(frozen=True)
class StepSplit:
    """One step: its training images and labels, and what it is evaluated on.

    Attributes:
        step: number of the step, from 1.
        train: images and boxes of the step's classes.
        val: the whole validation set with the boxes of all classes learnt so far.
        statistics: what the training images hold.
    """

    step: int
    train: AnnotationTable
    val: AnnotationTable
    statistics: StepStatistics


def split_steps(
    train: AnnotationTable, val: AnnotationTable, groups: Sequence[Sequence[Category]]
) -> tuple[StepSplit, ...]:
    """Split a dataset into steps by the `overlap` protocol.

    Args:
        train: the training annotations of all classes.
        val: the validation annotations of all classes.
        groups: the classes of every step.

    Raises:
        DataError: the two files disagree about a class, or a class has no training box.
    """
    _check_same_categories(train, val, groups)
    step_of_box_N = _step_of_boxes(train, groups)
    objects_N = ~train.crowd_N
    image_masks = [train.images_with((step_of_box_N == step) & objects_N) for step in range(1, len(groups) + 1)]
    splits = []
    for step, group in enumerate(groups, start=1):
        image_mask_I = image_masks[step - 1]
        seen = tuple(category for earlier in groups[:step] for category in earlier)
        splits.append(
            StepSplit(
                step=step,
                train=train.select(step_of_box_N == step, image_mask_I, tuple(group)),
                val=val.select(val.with_category(tuple(category.id for category in seen)), categories=seen),
                statistics=_statistics(train, step, group, step_of_box_N, image_masks),
            )
        )
    return tuple(splits)


def _statistics(
    train: AnnotationTable,
    step: int,
    group: Sequence[Category],
    step_of_box_N: np.ndarray,
    image_masks: Sequence[BoolArray],
) -> StepStatistics:
    image_mask_I = image_masks[step - 1]
    visible_N = image_mask_I[train.image_of_box_N] & ~train.crowd_N
    counts = {
        category.name: int(np.count_nonzero(visible_N & (train.category_ids_N == category.id))) for category in group
    }
    for name, count in counts.items():
        if count == 0:
            raise DataError(
                f"{train.path or 'training annotations'}: class '{name}' of step {step} has no training box; "
                "remove the class from categories or add boxes"
            )
    return StepStatistics(
        images=int(np.count_nonzero(image_mask_I)),
        boxes_per_class=counts,
        hidden_old_boxes=int(np.count_nonzero(visible_N & (step_of_box_N >= 1) & (step_of_box_N < step))),
        hidden_future_boxes=int(np.count_nonzero(visible_N & (step_of_box_N > step))),
        shared_images={
            other: int(np.count_nonzero(image_mask_I & other_mask_I))
            for other, other_mask_I in enumerate(image_masks, start=1)
            if other != step
        },
    )


def _step_of_boxes(table: AnnotationTable, groups: Sequence[Sequence[Category]]) -> np.ndarray:
    """The step (from 1) that learns each box's class; 0 where none does."""
    step_of_box_N = np.zeros(table.num_boxes, dtype=np.int64)
    for step, group in enumerate(groups, start=1):
        step_of_box_N[table.with_category(tuple(category.id for category in group))] = step
    return step_of_box_N


def _check_same_categories(train: AnnotationTable, val: AnnotationTable, groups: Sequence[Sequence[Category]]) -> None:
    for category in (category for group in groups for category in group):
        for table, half in ((train, "training"), (val, "validation")):
            if category not in table.categories:
                where = table.path or f"{half} annotations"
                raise DataError(
                    f"{where}: categories has no class '{category.name}' with id {category.id}; "
                    "training and validation files must list the same ids and names"
                )
