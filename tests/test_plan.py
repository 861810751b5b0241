"""Plans and class orders."""

from __future__ import annotations

import pytest

from ciod_core.data.annotations import Category
from ciod_core.errors import ConfigError
from ciod_core.plan import Plan, class_groups, order_categories, parse_plan

CATEGORIES = (Category(7, "zebra"), Category(2, "apple"), Category(5, "mouse"), Category(1, "bus"))
COCO_IDS = [
    *(*range(1, 12), *range(13, 26), 27, 28, *range(31, 45), *range(46, 66), 67, 70),
    *(*range(72, 83), *range(84, 91)),
]


def numbered(count: int) -> tuple[Category, ...]:
    return tuple(Category(number, f"class{number}") for number in range(1, count + 1))


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("70+10", (70, 10)),
        ("40+20+20", (40, 20, 20)),
        ("40+10x4", (40, 10, 10, 10, 10)),
        ("20x4", (20, 20, 20, 20)),
        (" 40 + 40 ", (40, 40)),
        ("8", (8,)),
    ],
)
def test_plans_are_read(text: str, sizes: tuple[int, ...]) -> None:
    plan = parse_plan(text)
    assert plan.group_sizes == sizes
    assert plan.reorder == "none"
    assert plan.num_classes == sum(sizes)


def test_last_first_plan_is_read() -> None:
    assert parse_plan("last40+first40") == Plan("last40+first40", (40, 40), "last-first")


@pytest.mark.parametrize(
    "text", ["", "70-10", "70+", "+10", "x4", "70+10x", "first40+last40", "last40", "7.5+1", "٣+1"]
)
def test_other_texts_are_refused_with_examples(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--plan: .* is not a plan at .*; write it like 70\+10"):
        parse_plan(text)


@pytest.mark.parametrize("text", ["0+80", "80+0", "20x0", "last0+first4"])
def test_steps_without_classes_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="has a step of no classes"):
        parse_plan(text)


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("name", ["apple", "bus", "mouse", "zebra"]),
        ("id", ["bus", "apple", "mouse", "zebra"]),
        ("file", ["zebra", "apple", "mouse", "bus"]),
        ("mouse, bus,zebra,apple", ["mouse", "bus", "zebra", "apple"]),
    ],
)
def test_orders(order: str, names: list[str]) -> None:
    assert [category.name for category in order_categories(CATEGORIES, order)] == names


def test_seed123_is_the_order_of_cl_detr() -> None:
    """CL-DETR shuffles the ascending COCO ids with NumPy's legacy generator, seeded 123.

    The expected ids were made with `np.random.seed(123); np.random.shuffle(ids)` on a list.
    """
    assert len(COCO_IDS) == 80
    categories = tuple(Category(number, f"class{number}") for number in reversed(COCO_IDS))
    ordered = [category.id for category in order_categories(categories, "seed123")]
    assert ordered[:10] == [74, 64, 65, 5, 79, 59, 36, 88, 9, 49]
    assert sorted(ordered) == COCO_IDS


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("names", "'names' is not an order; choose name, id, file"),
        ("zebra,aple,mouse,bus", "'aple' is not a class of the dataset; did you mean 'apple'?"),
        ("zebra,apple,mouse", "3 of 4 classes are listed, 'bus' is not; list every class once"),
        ("zebra,apple,mouse,bus,bus", "'bus' is listed twice"),
        ("zebra,apple,,bus", "'' is not a class of the dataset; the classes are zebra, apple, mouse, bus"),
    ],
)
def test_wrong_orders_are_explained(order: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        order_categories(CATEGORIES, order)
    assert message in str(caught.value)


def test_groups_follow_the_order() -> None:
    groups = class_groups(parse_plan("2+1x2"), numbered(4))
    assert [[category.id for category in group] for group in groups] == [[1, 2], [3], [4]]


def test_last_first_learns_the_end_of_the_order_before_its_start() -> None:
    groups = class_groups(parse_plan("last3+first5"), numbered(8))
    assert [[category.id for category in group] for group in groups] == [[6, 7, 8], [1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("text", "classes", "suggestion"),
    [
        ("70+10", 8, "7+1"),
        ("40+40", 3, "2+1"),
        ("20x4", 8, "2x4"),
        ("40+10x4", 20, "10+3x2+2x2"),
        ("40+10x4", 3, "1x3"),
        ("last40+first40", 6, "last3+first3"),
        ("2+2", 80, "40x2"),
    ],
)
def test_a_plan_that_does_not_fit_comes_with_one_that_does(text: str, classes: int, suggestion: str) -> None:
    plan = parse_plan(text)
    with pytest.raises(ConfigError) as caught:
        class_groups(plan, numbered(classes))
    message = str(caught.value)
    assert f"counts {plan.num_classes} classes, the dataset has {classes}" in message
    offered = message.rsplit(" ", 1)[1]
    assert sum(parse_plan(offered).group_sizes) == classes
    assert offered == suggestion
