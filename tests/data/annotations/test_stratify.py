"""Every class has its share of images in both parts, and groups stay together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ciod_core.arrays import BoolArray, Int64Array
from ciod_core.data.annotations.stratify import choose_held_out
from ciod_core.data.annotations.table import AnnotationTable, Category
from tests.helpers.tables import make_table

CLASSES = tuple(Category(number, f"class{number:02}") for number in range(1, 13))


def skewed(seed: int, images: int) -> AnnotationTable:
    """Images with three objects on average, twenty times as many of the first class as of the last."""
    generator = np.random.default_rng(seed)
    chance = 1 / np.arange(1, len(CLASSES) + 1) ** 1.2
    counts = generator.poisson(3, images)
    rows = [generator.choice(len(CLASSES), count, p=chance / chance.sum()) + 1 for count in counts.tolist()]
    return make_table([row.tolist() for row in rows], CLASSES)


def choose(table: AnnotationTable, wanted: int, group_I: Int64Array | None = None) -> BoolArray:
    group_I = np.arange(table.num_images) if group_I is None else np.unique(group_I, return_inverse=True)[1]
    return choose_held_out(table, group_I, np.zeros(group_I.max() + 1, dtype=np.int64), wanted)


def shown(table: AnnotationTable) -> np.ndarray:
    """Shape (images, classes): whether an image shows a class."""
    masks = [table.images_with(table.with_category((category.id,)) & ~table.crowd_N) for category in table.categories]
    return np.stack(masks, axis=1)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_the_share_of_every_class_is_that_of_all_images(seed: int, share: float) -> None:
    """Within one image or 3 % of the class, and within two boxes or 6 %, which come in clusters."""
    table = skewed(seed, 300)
    held_I = choose(table, round(share * 300))
    assert held_I.sum() == round(share * 300)
    images_C, held_C = shown(table).sum(axis=0), shown(table)[held_I].sum(axis=0)
    assert (abs(held_C - share * images_C) <= np.maximum(1, 0.03 * images_C)).all()
    for category in table.categories:
        of_class_N = table.category_ids_N == category.id
        held_boxes = int(held_I[table.image_of_box_N[of_class_N]].sum())
        assert abs(held_boxes - share * of_class_N.sum()) <= max(2, 0.06 * of_class_N.sum())
    empty_I = ~shown(table).any(axis=1)
    assert abs(held_I[empty_I].sum() - share * empty_I.sum()) <= 1, "images without objects are divided like a class"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.data())
def test_groups_are_not_torn_and_no_class_loses_its_training_images(
    seed: int, images: int, data: st.DataObject
) -> None:
    table = skewed(seed, images)
    group_I = np.random.default_rng(seed).integers(0, images, images)
    wanted = data.draw(st.integers(1, images - 1))
    held_I = choose(table, wanted, group_I)
    assert held_I.sum() < wanted + np.bincount(group_I).max()
    assert all(len(set(held_I[group_I == group].tolist())) == 1 for group in set(group_I.tolist()))
    known_C = shown(table).any(axis=0)
    assert shown(table)[~held_I].any(axis=0)[known_C].all()


@pytest.mark.parametrize("seed", range(5))
def test_a_class_on_two_images_is_in_both_parts(seed: int) -> None:
    rare = [[number] * 2 for number in range(2, 8) for _ in range(2)]
    table = make_table([[1]] * 80 + rare, CLASSES)
    order = np.random.default_rng(seed).permutation(table.num_images)
    held_I = choose(table, 18, order)
    assert held_I.sum() == 18
    assert shown(table)[held_I].sum(axis=0)[1:7].tolist() == [1] * 6


def test_one_image_can_hold_out_several_classes() -> None:
    """The one image that is to be held out is the one that shows both."""
    table = make_table([[1], [1], [2], [2], [1, 2], [], []], CLASSES[:2])
    for seed in range(10):
        assert np.flatnonzero(choose(table, 1, np.random.default_rng(seed).permutation(7))).tolist() == [4]


def test_the_class_of_a_single_group_stays() -> None:
    table = make_table([[1], [1], [2, -1], [2], *[[3]] * 6], CLASSES[:3])
    group_I = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    held_I = choose(table, 3, group_I)
    assert held_I.sum() == 3 and not held_I[:2].any()
    assert held_I[2:4].sum() == 1, "a crowd is no object"


def test_pinned_groups_stay_where_they_are() -> None:
    table = make_table([[1]] * 10, CLASSES[:1])
    pinned_G = np.array([1, -1, 1, 0, 0, -1, 0, 0, 0, 0])
    for wanted in (1, 4):
        held_I = choose_held_out(table, np.arange(10), pinned_G, wanted)
        assert held_I[[0, 2]].all() and not held_I[[1, 5]].any()
        assert held_I.sum() == max(2, wanted)
