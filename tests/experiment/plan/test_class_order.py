"""Class orders, those of the papers among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciod_core.classes import quoted
from ciod_core.data.annotations.table import Category
from ciod_core.data.formats.coco import read_coco
from ciod_core.errors import ConfigError
from ciod_core.experiment.plan.class_order import find_classes, order_categories
from ciod_core.experiment.plan.plan import plan_classes
from tests.helpers.class_names import CAFE, TWINS
from tests.helpers.known_classes import COCO, COCO_SEED123, VOC

CATEGORIES = (Category(7, "zebra"), Category(2, "apple"), Category(5, "mouse"), Category(1, "bus"))
COCO_BY_NAME_REVERSED = tuple(sorted(COCO, key=lambda category: category.name, reverse=True))


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


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_a_name_in_another_form(twin: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_classes([("`leave_out`", twin)], [Category(1, "tea"), Category(2, CAFE)])
    assert str(caught.value) == f"`leave_out`: {quoted(twin)} is not a class of the dataset; did you mean 'café'?"


class TestCoco:
    """The groups of the papers, from a file that lists the classes in an order of its own."""

    @staticmethod
    def ids(plan: str, order: str) -> list[list[int]]:
        groups = plan_classes(plan, COCO_BY_NAME_REVERSED, order).groups
        return [[category.id for category in group] for group in groups]

    @staticmethod
    def names(plan: str, order: str) -> list[list[str]]:
        groups = plan_classes(plan, COCO_BY_NAME_REVERSED, order).groups
        return [[category.name for category in group] for group in groups]

    def test_the_facts_are_those_of_the_dataset(self, real_data: Path) -> None:
        assert read_coco(real_data / "coco-tiny/annotations/instances_train2017.json").categories == COCO

    def test_there_are_80_ids_with_the_known_gaps(self) -> None:
        assert len(COCO) == 80
        assert set(range(1, 91)) - {category.id for category in COCO} == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}

    def test_id_40_40(self) -> None:
        first, second = self.names("40+40", "id")
        assert (first[0], first[-1]) == ("person", "bottle")
        assert (second[0], second[-1]) == ("wine glass", "toothbrush")
        assert self.ids("40+40", "id")[0][-1] == 44 and self.ids("40+40", "id")[1][0] == 46

    def test_id_70_10(self) -> None:
        assert self.ids("70+10", "id")[1] == [80, 81, 82, 84, 85, 86, 87, 88, 89, 90]
        assert self.names("70+10", "id")[1] == [
            *("toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier"),
            "toothbrush",
        ]

    @pytest.mark.parametrize("order", ["name", "id", "seed123", "file"])
    def test_last40_first40_swaps_the_groups_of_40_40(self, order: str) -> None:
        first, second = self.ids("40+40", order)
        assert self.ids("last40+first40", order) == [second, first]
        assert len(first) == len(second) == 40

    def test_seed123_is_the_order_of_cl_detr(self) -> None:
        assert self.ids("40+40", "seed123") == [list(COCO_SEED123[:40]), list(COCO_SEED123[40:])]
        assert self.ids("70+10", "seed123")[1] == [78, 41, 28, 52, 37, 84, 53, 63, 19, 76]

    def test_name_order_is_alphabetical(self) -> None:
        first, second = self.names("40+40", "name")
        assert (first[0], first[-1], second[0], second[-1]) == ("airplane", "keyboard", "kite", "zebra")
        assert self.names("70+10", "name")[1] == [
            *(
                "toilet",
                "toothbrush",
                "traffic light",
                "train",
                "truck",
                "tv",
                "umbrella",
                "vase",
                "wine glass",
                "zebra",
            ),
        ]

    def test_file_order_is_that_of_the_file(self) -> None:
        assert self.names("40+40", "file")[0][:3] == ["zebra", "wine glass", "vase"]
        assert self.names("70+10", "file")[1][-1] == "airplane"


@pytest.mark.parametrize(
    ("plan", "added"),
    [
        ("19+1", ["tvmonitor"]),
        ("15+5", ["pottedplant", "sheep", "sofa", "train", "tvmonitor"]),
        (
            "10+10",
            [
                *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
                "tvmonitor",
            ],
        ),
    ],
)
@pytest.mark.parametrize("order", ["name", "id"])
def test_voc(plan: str, order: str, added: list[str]) -> None:
    first, second = plan_classes(plan, VOC[::-1], order).groups
    assert [category.name for category in second] == added
    assert len(first) + len(second) == 20
