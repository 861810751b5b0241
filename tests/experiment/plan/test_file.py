"""Plans that list classes in a YAML file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciod_core.data.annotations.table import Category
from ciod_core.errors import ConfigError
from ciod_core.experiment.plan.file import read_plan_file
from ciod_core.experiment.plan.plan import ClassSteps, load_plan, plan_classes

CATEGORIES = tuple(Category(10 * place, name) for place, name in enumerate(("person", "car", "dog", "cat"), start=1))


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return tmp_path / "mine.yaml"


def applied(plan: Path, text: str) -> ClassSteps:
    plan.write_text(text, encoding="utf-8")
    return plan_classes(str(plan), CATEGORIES)


def names(steps: ClassSteps) -> tuple[list[list[str]], list[str]]:
    groups = [[category.name for category in group] for group in steps.groups]
    return groups, [category.name for category in steps.left_out]


def test_classes_are_learned_as_listed(plan: Path) -> None:
    steps = applied(plan, "steps:\n  - [cat, car]\n  - [person]\n  - - dog\n")
    assert names(steps) == ([["cat", "car"], ["person"], ["dog"]], [])
    assert steps.groups[0] == (Category(40, "cat"), Category(20, "car"))
    assert (steps.text, steps.order, steps.file) == ("2+1x2", "listed", "mine.yaml")


@pytest.mark.parametrize("leave_out", ["rest", "[cat, person]"])
def test_left_out_classes_come_in_the_order_of_the_dataset(plan: Path, leave_out: str) -> None:
    steps = applied(plan, f"steps: [[dog], [car]]\nleave_out: {leave_out}\n")
    assert names(steps) == ([["dog"], ["car"]], ["person", "cat"])


@pytest.mark.parametrize("leave_out", ["rest", "[]", ""])
def test_nothing_may_be_left_out(plan: Path, leave_out: str) -> None:
    assert names(applied(plan, f"steps: [[dog, car], [cat, person]]\nleave_out: {leave_out}\n"))[1] == []


def test_numbers_keep_their_spelling(plan: Path) -> None:
    plan.write_text("steps: [[001, 0x1F], [12:30]]\nleave_out: [1_000]")
    read = read_plan_file(plan)
    assert (read.steps, read.leave_out) == ((("001", "0x1F"), ("12:30",)), ("1_000",))


def test_yml_is_a_plan_file_too(tmp_path: Path) -> None:
    assert len(applied(tmp_path / "mine.YML", "steps: [[dog], [car]]\nleave_out: rest").groups) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [[persn], [car]]", "steps[0][0]: 'persn' is not a class of the dataset; did you mean 'person'?"),
        ("steps: [[person], [car, person]]", "steps[1][1]: 'person' is listed twice"),
        ("steps: [[person]]\nleave_out: [car, person]", "leave_out[1]: 'person' is listed twice"),
        ("steps: [[person]]\nleave_out: [care]", "leave_out[0]: 'care' is not a class"),
        ("steps: [[person, dog]]\nleave_out: [cat]", "3 of 4 classes are named, 'car' is not; add it to steps"),
        ("steps: [[person, dog]]", "2 of 4 classes are named, 'car' is not"),
        ("steps: [[person], []]", "steps[1]: the step has no class"),
        ("steps: []", "steps: expected a list of lists of class names, got an empty list"),
        ("leave_out: rest", "steps: expected a list of lists of class names, got nothing"),
        ("steps: 70+10", "steps: expected a list of lists of class names, got '70+10'"),
        ("steps: [person, car]", "steps[0]: expected a list of class names, got 'person'; write it like [person, car]"),
        ("steps: [{person: car}]", "steps[0]: expected a list of class names, got a mapping"),
        ("steps: [[person, no]]", "steps[0][1]: expected a class name, got the truth value false; put names"),
        ("steps: [[1]]", "steps[0][0]: expected a class name, got 1; put names"),
        ("steps: [[[person]]]", "steps[0][0]: expected a class name, got a list"),
        ("steps: [[person]]\nleave_out: all", "leave_out: expected a list of class names or 'rest', got 'all'"),
        ("steps: [[person]]\nleave-out: rest", "there is no field 'leave-out'; did you mean 'leave_out'?"),
        ("steps: [[person]]\n1: rest", "there is no field '1'; the fields are steps, leave_out"),
        ("steps: [[person]]\nsteps: [[car]]", "not valid YAML: 'steps' is there twice"),
        ("steps: [[person]", "not valid YAML"),
        ("steps: [[2024-13-45]]", "not valid YAML: month must be in 1..12"),
        ("[person]", "expected 'steps:' with a list of class names per step, got a list"),
        ("", "expected 'steps:' with a list of class names per step, got nothing"),
        ('steps: [["per\\nson"]]', "is not a class of the dataset"),
    ],
)
def test_mistakes_name_file_and_field(plan: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        applied(plan, text)
    assert str(caught.value).startswith(f"`plan` {plan}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(plan: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml: No such file or directory; pass a readable YAML file"):
        load_plan(str(plan))


def test_a_file_that_is_no_text(plan: Path) -> None:
    plan.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a text file"):
        load_plan(str(plan))


@pytest.mark.parametrize(
    ("order", "leave_out", "message"),
    [("id", None, "`order`: .* leave `order` out"), (None, "rest", "`leave_out`: .* set leave_out in the plan file")],
)
def test_the_file_says_it_all(plan: Path, order: str | None, leave_out: str | None, message: str) -> None:
    plan.write_text("steps: [[person]]")
    with pytest.raises(ConfigError, match=message):
        load_plan(str(plan), order, leave_out)
