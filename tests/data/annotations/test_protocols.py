"""The rules by which protocols give images to steps."""

from __future__ import annotations

import numpy as np
import pytest

from ciod_core.data.annotations.protocols import MAX_ID_RANGE, Protocol, StepObjects, assign_images, parse_protocol
from ciod_core.data.annotations.table import Category
from ciod_core.errors import ConfigError
from tests.helpers.tables import make_table

A, B, C, D = (Category(number, name) for number, name in ((1, "a"), (2, "b"), (5, "c"), (9, "d")))
EVERYTHING = [[1, 2, 5, 9]] * 20


def images_of(
    images: list[list[int]], groups: list[tuple[Category, ...]], protocol: Protocol, seed: int = 0
) -> list[list[int]]:
    """Indices of the images of each step."""
    assigned_IS = assign_images(StepObjects.of(make_table(images, (A, B, C, D)), groups), protocol, seed)
    return [np.flatnonzero(assigned_IS[:, step]).tolist() for step in range(len(groups))]


class TestDisjoint:
    def test_the_shuffled_images_are_cut_in_proportion_to_the_classes(self) -> None:
        # As CL-DETR does it: np.random.seed(0); order = np.arange(20); np.random.shuffle(order)
        order = [18, 1, 19, 8, 10, 17, 6, 13, 4, 2, 5, 14, 9, 7, 16, 11, 3, 0, 15, 12]
        assert images_of(EVERYTHING, [(A, B, C), (D,)], "disjoint") == [sorted(order[:15]), sorted(order[15:])]
        assert images_of(EVERYTHING, [(A,), (B, C, D)], "disjoint") == [sorted(order[:5]), sorted(order[5:])]

    @pytest.mark.parametrize("count", [1, 2, 3, 10, 11, 20])
    def test_portions_sum_to_all_images(self, count: int) -> None:
        steps = images_of(EVERYTHING[:count], [(A,), (B,), (C,)], "disjoint")
        assert sorted(image for step in steps for image in step) == list(range(count))
        assert max(map(len, steps)) - min(map(len, steps)) <= 1

    def test_an_odd_image_goes_to_the_later_step(self) -> None:
        assert [len(step) for step in images_of(EVERYTHING[:11], [(A, B), (C, D)], "disjoint")] == [5, 6]

    def test_left_out_classes_claim_no_portion(self) -> None:
        assert [len(step) for step in images_of(EVERYTHING, [(A,), (B,)], "disjoint")] == [10, 10]

    def test_an_image_without_an_object_of_its_step_is_unused(self) -> None:
        images = [[1]] * 10 + [[2]] * 10
        first, second = images_of(images, [(A,), (B,)], "disjoint")
        order = [18, 1, 19, 8, 10, 17, 6, 13, 4, 2, 5, 14, 9, 7, 16, 11, 3, 0, 15, 12]
        assert first == sorted(image for image in order[:10] if image < 10)
        assert second == sorted(image for image in order[10:] if image >= 10)

    def test_crowds_and_empty_images_do_not_shift_the_portions(self) -> None:
        images = [[-1], [], *EVERYTHING[:18]]
        kept = images_of(images, [(A, B), (C, D)], "disjoint")
        full = images_of(EVERYTHING, [(A, B), (C, D)], "disjoint")
        assert kept == [[image for image in step if image > 1] for step in full]


class TestLoco:
    def test_an_image_goes_to_the_only_step_it_shows(self) -> None:
        assert images_of([[1], [5, 5], [1, -5], [2], [-1], []], [(A, B), (C,)], "loco") == [[0, 2, 3], [1]]

    def test_every_class_of_an_image_has_the_same_chance(self) -> None:
        images = [[1, 1, 1, 1, 1, 1, 2, 5]] * 9000  # six boxes of a count no more than one of c
        first, second = images_of(images, [(A, B), (C, D)], "loco")
        assert sorted(first + second) == list(range(9000))
        # A third of them, and a standard deviation of 45 images.
        assert abs(len(second) - 3000) < 4 * 45

    def test_plans_that_group_the_same_order_differently_agree(self) -> None:
        pairs = images_of(EVERYTHING, [(A, B), (C, D)], "loco", seed=4)
        singles = images_of(EVERYTHING, [(A,), (B,), (C,), (D,)], "loco", seed=4)
        assert pairs == [sorted(singles[0] + singles[1]), sorted(singles[2] + singles[3])]

    def test_an_image_keeps_its_step_whatever_the_others_show(self) -> None:
        before = images_of(EVERYTHING, [(A, B), (C, D)], "loco")
        after = images_of([[], *EVERYTHING[1:]], [(A, B), (C, D)], "loco")
        assert after == [[image for image in step if image] for step in before]


@pytest.mark.parametrize("protocol", ["disjoint", "loco"])
def test_another_seed_gives_another_split(protocol: Protocol) -> None:
    splits = [images_of(EVERYTHING, [(A, B), (C, D)], protocol, seed) for seed in (0, 1, 0)]
    assert splits[0] == splits[2] != splits[1]


def test_overlap_is_not_random() -> None:
    assert images_of(EVERYTHING, [(A, B), (C, D)], "overlap", 0) == images_of(
        EVERYTHING, [(A, B), (C, D)], "overlap", 1
    )


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range(seed: int) -> None:
    with pytest.raises(ConfigError, match=f"`seed`: {seed} is out of range"):
        images_of(EVERYTHING, [(A,)], "loco", seed)


@pytest.mark.parametrize("far", [10, MAX_ID_RANGE, 2**53])
def test_ids_may_lie_far_apart(far: int) -> None:
    last = Category(far, "far")
    table = make_table([[2, far, far - 1, 3, -far]], (B, C, last))
    objects = StepObjects.of(table, [(last,), (B,)])
    assert objects.class_of_box_N.tolist() == [1, 0, -1, -1, 0]
    assert objects.step_of_box_N.tolist() == [2, 1, 0, 0, 1]
    assert objects.objects_per_image.tolist() == [[2, 1, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("overlp", "`protocol`: 'overlp' is not a protocol; did you mean 'overlap'?"),
        ("x", "`protocol`: 'x' is not a protocol; choose from overlap, disjoint, loco"),
    ],
)
def test_unknown_protocols(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_protocol(text)
    assert str(caught.value) == message
