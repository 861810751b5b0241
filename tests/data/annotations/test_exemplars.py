"""Which images are kept: budgets, balance and draws, by hand and for any table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciod_core.classes import class_table
from ciod_core.data.annotations.exemplars import Choice, choose_exemplars
from ciod_core.data.annotations.table import AnnotationTable, Category
from tests.helpers.tables import make_table

CATEGORIES = tuple(Category(number, f"class{number}") for number in (3, 8, 1, 20))
OLD = class_table([[("class8", 8), ("class3", 3)], [("class1", 1)]])


def chosen(scenes: list[list[int]], /, **arguments: Any) -> list[list[int]]:
    """The boxes of the chosen images."""
    mask_I = choose_exemplars(make_table(scenes, CATEGORIES), OLD, **arguments)
    return [boxes for boxes, kept in zip(scenes, mask_I.tolist(), strict=True) if kept]


def counts_of(images: list[list[int]]) -> list[int]:
    """How many images show each old class, in its order."""
    return [sum(number in boxes for boxes in images) for number in OLD.category_ids]


@pytest.mark.parametrize("seed", range(5))
def test_the_scarce_class_is_served_too(seed: int) -> None:
    images = [[8]] * 50 + [[3]] * 2 + [[1]] * 50
    assert counts_of(chosen(images, images=6, seed=seed)) == [2, 2, 2]
    assert counts_of(chosen(images, images=12, seed=seed)) == [5, 2, 5]
    assert counts_of(chosen(images, images=13, seed=seed)) == [6, 2, 5], "ties go by the order of the classes"


def test_an_image_counts_for_every_class_that_it_shows() -> None:
    images = [[8, 3, 3]] * 4 + [[1]] * 4
    assert counts_of(chosen(images, images=4)) == [2, 2, 2]
    assert counts_of(chosen(images, images_per_class=3)) == [3, 3, 3]


def test_every_class_gets_its_images_or_all_there_are() -> None:
    images = [[8]] * 9 + [[3]] * 2 + [[1, 8]] * 9
    assert counts_of(chosen(images, images_per_class=4))[1:] == [2, 4]
    assert counts_of(chosen(images, images_per_class=4))[0] >= 4
    assert chosen(images, images_per_class=50) == images


@pytest.mark.parametrize("choice", ["random", "balanced"])
def test_crowds_and_other_classes_make_no_exemplar(choice: Choice) -> None:
    images = [[-8], [20], [], [8, -3], [20, 1]]
    assert chosen(images, images=5, choice=choice) == [[8, -3], [20, 1]]


def test_random_draws_from_all_images_alike() -> None:
    images = [[8]] * 90 + [[3]] * 10
    counts = [counts_of(chosen(images, images=20, choice="random", seed=seed))[1] for seed in range(60)]
    assert 1.3 < np.mean(counts) < 2.7, "10 % of the images are 10 % of the draws"


def test_a_random_budget_per_class_is_one_for_all_of_them() -> None:
    assert len(chosen([[8]] * 40, images_per_class=5, choice="random")) == 15


def test_another_seed_draws_other_images() -> None:
    table = make_table([[8]] * 30, CATEGORIES)
    for choice in ("random", "balanced"):
        masks = [choose_exemplars(table, OLD, images=5, choice=choice, seed=seed).tolist() for seed in (0, 0, 1)]
        assert masks[0] == masks[1] != masks[2]


old_boxes = st.lists(st.sampled_from([3, 8, 1, 20, -3, -8, -1]), max_size=3)


def shuffled(table: AnnotationTable, order: list[int]) -> AnnotationTable:
    """The same images and boxes in another order of the file."""
    rows = [row for image in order for row in range(*table.rows_of(image).indices(table.num_boxes))]
    counts = np.diff(table.offsets)[order]
    return replace(
        table,
        image_ids_I=table.image_ids_I[order],
        file_names_I=table.file_names_I[order],
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        category_ids_N=table.category_ids_N[rows],
        crowd_N=table.crowd_N[rows],
    )


@given(
    st.lists(old_boxes, max_size=15),
    st.integers(1, 20),
    st.sampled_from(["random", "balanced"]),
    st.integers(0, 2**32 - 1),
    st.data(),
)
def test_the_budget_is_spent_and_the_order_of_the_file_changes_nothing(
    images: list[list[int]], budget: int, choice: Choice, seed: int, data: st.DataObject
) -> None:
    table = make_table(images, CATEGORIES)
    arguments: dict[str, Any] = {"images": budget, "choice": choice, "seed": seed}
    mask_I = choose_exemplars(table, OLD, **arguments)
    candidates = sum(any(number in boxes for number in (3, 8, 1)) for boxes in images)
    assert mask_I.sum() == min(budget, candidates)

    other = shuffled(table, data.draw(st.permutations(range(len(images)))))
    again_I = choose_exemplars(other, OLD, **arguments)
    assert set(other.image_ids_I[again_I].tolist()) == set(table.image_ids_I[mask_I].tolist())


@given(st.lists(st.sampled_from([3, 8, 1]), max_size=30), st.integers(1, 30), st.integers(0, 99))
def test_no_class_waits_while_another_has_two_more(labels: list[int], budget: int, seed: int) -> None:
    images = [[label] for label in labels]
    kept, there = counts_of(chosen(images, images=budget, seed=seed)), counts_of(images)
    for mine, available in zip(kept, there, strict=True):
        assert mine == available or max(kept) - mine <= 1


@given(st.lists(old_boxes, max_size=15), st.integers(1, 5), st.integers(0, 99))
def test_per_class_every_class_has_its_quota_and_no_image_is_idle(
    images: list[list[int]], quota: int, seed: int
) -> None:
    kept = chosen(images, images_per_class=quota, seed=seed)
    for mine, available in zip(counts_of(kept), counts_of(images), strict=True):
        assert mine >= min(quota, available)
    assert len(kept) <= quota * len(OLD)
