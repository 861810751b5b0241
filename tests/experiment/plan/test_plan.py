"""Plans that count classes, and classes left out of them."""

from __future__ import annotations

import pytest

from ciod_core.data.annotations.table import Category
from ciod_core.errors import ConfigError
from ciod_core.experiment.plan.plan import Plan, class_groups, load_plan, parse_plan, plan_classes


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
    with pytest.raises(ConfigError, match=r"`plan`: .* is not a plan at .*; write it like 70\+10"):
        parse_plan(text)


@pytest.mark.parametrize("text", ["0+80", "80+0", "20x0", "last0+first4"])
def test_steps_without_classes_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="has a step of no classes"):
        parse_plan(text)


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
    assert f"counts {plan.num_classes} classes, there are {classes} to learn" in message
    offered = message.split("a plan that fits is ")[1].split(",")[0]
    assert sum(parse_plan(offered).group_sizes) == classes
    assert offered == suggestion
    fewer = classes - plan.num_classes
    assert (f"leave the last {fewer} out with `leave_out` rest" in message) == (fewer > 0)


class TestLeaveOut:
    @staticmethod
    def names(plan: str, leave_out: str, order: str = "id") -> tuple[list[list[str]], list[str]]:
        steps = plan_classes(plan, numbered(6), order, leave_out)
        groups = [[category.name for category in group] for group in steps.groups]
        return groups, [category.name for category in steps.left_out]

    def test_rest_are_the_classes_after_those_counted(self) -> None:
        groups, left_out = self.names("2+1", "rest")
        assert groups == [["class1", "class2"], ["class3"]]
        assert left_out == ["class4", "class5", "class6"]

    def test_rest_goes_before_last_first_swaps(self) -> None:
        groups, left_out = self.names("last1+first2", "rest")
        assert groups == [["class3"], ["class1", "class2"]]
        assert left_out == ["class4", "class5", "class6"]

    def test_rest_may_be_nothing(self) -> None:
        assert self.names("3+3", "rest")[1] == []

    def test_named_classes_are_removed_before_counting(self) -> None:
        groups, left_out = self.names("2+2", "class2, class5")
        assert groups == [["class1", "class3"], ["class4", "class6"]]
        assert left_out == ["class2", "class5"]

    def test_the_others_keep_their_shuffled_order(self) -> None:
        everything = [category for group in plan_classes("3+3", numbered(6), "seed5").groups for category in group]
        kept = [category for group in plan_classes("3+2", numbered(6), "seed5", "class4").groups for category in group]
        assert kept == [category for category in everything if category.name != "class4"]

    @pytest.mark.parametrize(
        ("plan", "leave_out", "message"),
        [
            ("3+3", "class7", "`leave_out`: 'class7' is not a class of the dataset; did you mean 'class6'?"),
            ("3+2", "class1,class1", "`leave_out`: 'class1' is listed twice"),
            ("3+3", "", "`leave_out`: '' is not a class of the dataset"),
            ("3+3", "class1,class2,class3,class4,class5,class6", "names every class"),
            ("3+3", "class1", "counts 6 classes, there are 5 to learn"),
            ("3+1", "class1", "counts 4 classes, there are 5 to learn"),
            ("7+1", "rest", "counts 8 classes, there are 6 to learn"),
        ],
    )
    def test_mistakes(self, plan: str, leave_out: str, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            self.names(plan, leave_out)
        assert message in str(caught.value)

    def test_without_it_every_class_must_be_counted(self) -> None:
        with pytest.raises(ConfigError, match="leave the last 3 out with `leave_out` rest"):
            plan_classes("2+1", numbered(6))


def test_what_was_planned_is_kept() -> None:
    steps = plan_classes("1 + 1", numbered(3), leave_out="class1")
    assert (steps.text, steps.order, steps.file) == ("1+1", "name", None)


def test_a_broken_plan_needs_no_dataset_to_be_refused() -> None:
    with pytest.raises(ConfigError, match=r"write it like .* or plan\.yaml"):
        load_plan("plan.json")
