"""Which images and boxes a step sees, by the protocol overlap unless said otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciod_core.data.annotations.protocols import Protocol
from ciod_core.data.annotations.split import StepData, split_steps
from ciod_core.data.annotations.table import AnnotationTable, Category
from ciod_core.data.formats.coco import read_coco
from ciod_core.errors import DataError
from ciod_core.experiment.plan.plan import plan_classes

A, B, C = Category(1, "a"), Category(2, "b"), Category(5, "c")
# image id -> category ids of its boxes; a negative id is a crowd box
LAYOUT = {1: [1, 2], 2: [2, 2, 5], 3: [5], 4: [], 5: [-1], 6: [1, -5, 5]}


def edit_layout(content: dict[str, Any]) -> None:
    content["images"] = [{"id": number, "file_name": f"{number}.jpg", "width": 64, "height": 64} for number in LAYOUT]
    boxes = [(image, category) for image, found in LAYOUT.items() for category in found]
    content["annotations"] = [
        {"id": row, "image_id": image, "category_id": abs(category), "bbox": [1, 1, 9, 9], "iscrowd": int(category < 0)}
        for row, (image, category) in enumerate(boxes, start=1)
    ]
    content["categories"] = [{"id": category.id, "name": category.name} for category in (A, B, C)]


@pytest.fixture
def table(coco_file: Callable[..., Path]) -> AnnotationTable:
    return read_coco(coco_file(edit_layout))


@pytest.fixture
def steps(table: AnnotationTable) -> tuple[StepData, ...]:
    return split_steps(table, table, [(A,), (B,), (C,)]).steps


def test_a_step_has_every_image_with_one_of_its_objects(steps: tuple[StepData, ...]) -> None:
    assert [step.train.image_ids_I.tolist() for step in steps] == [[1, 6], [1, 2], [2, 3, 6]]


def test_an_image_with_only_a_crowd_box_does_not_count(steps: tuple[StepData, ...]) -> None:
    assert 5 not in steps[0].train.image_ids_I


def test_boxes_of_other_classes_are_removed_and_crowd_boxes_stay(steps: tuple[StepData, ...]) -> None:
    assert [step.train.category_ids_N.tolist() for step in steps] == [[1, 1], [2, 2, 2], [5, 5, 5, 5]]
    assert steps[2].train.crowd_N.tolist() == [False, False, True, False]
    assert [step.train.categories for step in steps] == [(A,), (B,), (C,)]


def test_validation_keeps_all_images_and_the_classes_so_far(steps: tuple[StepData, ...]) -> None:
    assert [step.val.num_images for step in steps] == [6, 6, 6]
    assert [step.val.categories for step in steps] == [(A,), (A, B), (A, B, C)]
    assert sorted(set(steps[1].val.category_ids_N.tolist())) == [1, 2]
    assert steps[2].val.num_boxes == sum(len(boxes) for boxes in LAYOUT.values())


def test_statistics_count_what_is_hidden_and_shared(steps: tuple[StepData, ...]) -> None:
    first, second, third = (step.statistics for step in steps)
    assert (first.images, second.images, third.images) == (2, 2, 3)
    assert (first.boxes_per_class, second.boxes_per_class, third.boxes_per_class) == ({"a": 2}, {"b": 3}, {"c": 3})
    assert [s.hidden_old_boxes for s in (first, second, third)] == [0, 1, 3]
    assert [s.hidden_future_boxes for s in (first, second, third)] == [2, 1, 0]
    assert first.shared_images == {2: 1, 3: 1}
    assert third.shared_images == {1: 1, 2: 1}


def test_classes_outside_every_group_are_left_out(table: AnnotationTable) -> None:
    (step,) = split_steps(table, table, [(C, A)]).steps
    assert set(step.train.category_ids_N.tolist()) == set(step.val.category_ids_N.tolist()) == {1, 5}
    assert step.statistics.hidden_old_boxes == step.statistics.hidden_future_boxes == 0
    assert step.statistics.hidden_left_out_boxes == 3


def test_images_that_no_step_uses_are_counted(table: AnnotationTable) -> None:
    assert split_steps(table, table, [(A,), (B,), (C,)]).unused_images == 2  # 4 is empty, 5 shows a crowd
    assert split_steps(table, table, [(A,), (B,)]).unused_images == 3


def test_a_class_without_training_boxes_is_refused(table: AnnotationTable) -> None:
    without_b = table.select(~table.with_category((2,)))
    with pytest.raises(
        DataError, match=r"instances\.json: class 'b' of step 2 has no training box; add boxes, or name"
    ):
        split_steps(without_b, table, [(A,), (B,), (C,)])


def test_a_class_with_only_crowd_boxes_is_refused(table: AnnotationTable) -> None:
    only_crowd = table.select(table.crowd_N | ~table.with_category((1,)))
    with pytest.raises(DataError, match="class 'a' of step 1 has no training box"):
        split_steps(only_crowd, table, [(A,), (B, C)])


@pytest.mark.parametrize("protocol", ["disjoint", "loco"])
def test_a_class_that_the_protocol_leaves_without_boxes_is_refused(table: AnnotationTable, protocol: Protocol) -> None:
    only = table.select(table.with_category((1, 2)), table.image_ids_I == 1)
    with pytest.raises(DataError) as caught:
        split_steps(only, table, [(A,), (B,)], protocol, seed=3)
    message = str(caught.value)
    assert message.count("class '") == 1 and " and 1 more" not in message
    assert f"lost all training boxes to `protocol` {protocol} and `seed` 3; try another `seed`" in message


def test_further_classes_without_boxes_are_counted(table: AnnotationTable) -> None:
    with pytest.raises(DataError, match="class 'a' of step 1 and 2 more has no training box"):
        split_steps(table.select(table.crowd_N), table, [(A,), (B, C)])


def test_files_that_disagree_about_ids_are_refused(table: AnnotationTable, coco_file: Callable[..., Path]) -> None:
    def renumber(content: dict[str, Any]) -> None:
        edit_layout(content)
        content["categories"][1]["id"] = 22
        content["annotations"] = []

    val = read_coco(coco_file(renumber, "val.json"))
    with pytest.raises(DataError, match=r"val\.json: categories has no class 'b' with id 2"):
        split_steps(table, val, [(A,), (B,), (C,)])


@pytest.mark.parametrize(("name", "suffix", "plan"), [("bccd", "", "2+1"), ("coco-tiny", "2017", "40+10x4")])
def test_every_real_box_is_labeled_in_exactly_one_step(real_data: Path, name: str, suffix: str, plan: str) -> None:
    folder = real_data / name / "annotations"
    train = read_coco(folder / f"instances_train{suffix}.json")
    val = read_coco(folder / f"instances_val{suffix}.json")
    present = set(train.category_ids_N[~train.crowd_N].tolist())
    if len(present) < len(train.categories):
        kept = tuple(category for category in train.categories if category.id in present)
        train = train.select(train.with_category(tuple(present)), categories=kept)
        plan = f"{len(present) // 2}+{len(present) - len(present) // 2}"
    steps = split_steps(train, val, plan_classes(plan, train.categories).groups).steps
    labeled = np.concatenate([step.train.annotation_ids_N[~step.train.crowd_N] for step in steps])
    assert sorted(labeled.tolist()) == sorted(train.annotation_ids_N[~train.crowd_N].tolist())
    for step in steps:
        others = {number: set(other.train.image_ids_I.tolist()) for number, other in enumerate(steps, start=1)}
        own = others.pop(step.step)
        assert step.statistics.shared_images == {number: len(own & ids) for number, ids in others.items()}
