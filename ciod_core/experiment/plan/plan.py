"""Plans: how the classes of a dataset are divided into steps.

`70+10` learns 70 classes, then 10; `40+10x4` learns 40, then four times 10; `last40+first40` learns the
last 40 classes of the order before the first 40; `plan.yaml` lists the classes of every step.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ciod_core.data.annotations.table import Category
from ciod_core.errors import ConfigError
from ciod_core.experiment.plan.class_order import find_classes, order_categories, split_names
from ciod_core.experiment.plan.file import REST, PlanFile, is_plan_file, read_plan_file

EXAMPLES = "70+10, 40+10x4, 20x4, last40+first40 or plan.yaml"
DEFAULT_ORDER = "name"


@dataclass(frozen=True)
class Plan:
    """The number of classes of each step.

    Attributes:
        text: the plan as the user wrote it.
        group_sizes: classes per step, in the order of learning.
        reorder: `last-first` takes the first group from the end of the class order.
    """

    text: str
    group_sizes: tuple[int, ...]
    reorder: Literal["none", "last-first"] = "none"

    @property
    def num_classes(self) -> int:
        """Classes of all steps together."""
        return sum(self.group_sizes)


@dataclass(frozen=True)
class ClassSteps:
    """A plan applied to the classes of a dataset.

    Attributes:
        text: the sizes of the groups, such as `70+10`.
        order: how the classes were ordered; `listed` where a plan file names them.
        groups: the classes of every step.
        left_out: classes that no step learns and no evaluation measures.
        file: name of the plan file, None for a plan that counts.
    """

    text: str
    order: str
    groups: tuple[tuple[Category, ...], ...]
    left_out: tuple[Category, ...] = ()
    file: str | None = None


def load_plan(plan: str, order: str | None = None, leave_out: str | None = None) -> Plan | PlanFile:
    """Read `plan`, and refuse what is wrong with it whatever the dataset; see `plan_classes` for the arguments.

    Raises:
        ConfigError: no plan, a broken plan file, or a plan file together with an order or left-out classes.
    """
    if not is_plan_file(plan):
        return parse_plan(plan)
    if order is not None:
        raise ConfigError(f"`order`: {plan} lists the classes in their order; leave `order` out")
    if leave_out is not None:
        raise ConfigError(f"`leave_out`: {plan} lists the classes; set leave_out in the plan file")
    return read_plan_file(Path(plan).expanduser())


def plan_classes(
    plan: str, categories: Sequence[Category], order: str | None = None, leave_out: str | None = None
) -> ClassSteps:
    """Divide the classes of a dataset into steps.

    Args:
        plan: a plan that counts, or the path of a `.yaml` file.
        categories: the classes as the annotation file lists them.
        order: see `order_categories`; None is `name`. It orders the left-out classes too, so that leaving a class
            out does not shuffle the others anew.
        leave_out: names separated by commas, or `rest` for the classes after those that the plan counts.

    Raises:
        ConfigError: a plan, order or left-out class that does not fit the dataset.
    """
    loaded = load_plan(plan, order, leave_out)
    if isinstance(loaded, PlanFile):
        groups, left_out = loaded.divide(categories)
        return ClassSteps(_sizes_text([len(group) for group in groups]), "listed", groups, left_out, loaded.path.name)
    order = order or DEFAULT_ORDER
    ordered = order_categories(categories, order)
    kept = _keep(ordered, loaded, leave_out)
    left_out = tuple(category for category in ordered if category not in kept)
    return ClassSteps(loaded.text, order, class_groups(loaded, kept), left_out)


def parse_plan(text: str) -> Plan:
    """Read a plan such as `70+10`, `40+10x4`, `20x4` or `last40+first40`.

    Raises:
        ConfigError: the text is no plan.
    """
    plan = text.replace(" ", "").lower()
    swapped = re.fullmatch(r"last([0-9]{1,6})\+first([0-9]{1,6})", plan)
    if swapped:
        sizes = [int(swapped[1]), int(swapped[2])]
    else:
        sizes = []
        for term in plan.split("+"):
            match = re.fullmatch(r"([0-9]{1,6})(?:x([0-9]{1,4}))?", term)
            if match is None:
                raise ConfigError(f"`plan`: '{text}' is not a plan at '{term}'; write it like {EXAMPLES}")
            sizes += [int(match[1])] * int(match[2] or 1)
    if not sizes or 0 in sizes:
        raise ConfigError(f"`plan`: '{text}' has a step of no classes; every number must be at least 1")
    return Plan(text=plan, group_sizes=tuple(sizes), reorder="last-first" if swapped else "none")


def class_groups(plan: Plan, ordered: Sequence[Category]) -> tuple[tuple[Category, ...], ...]:
    """Divide ordered classes into the groups that the steps learn.

    Raises:
        ConfigError: the plan counts more or fewer classes than there are.
    """
    surplus = len(ordered) - plan.num_classes
    if surplus:
        rest = f", or leave the last {surplus} out with `leave_out` {REST}" if surplus > 0 else ""
        raise ConfigError(
            f"`plan`: '{plan.text}' counts {plan.num_classes} classes, there are {len(ordered)} to learn; "
            f"a plan that fits is {_fitting_plan(plan, len(ordered))}{rest}"
        )
    classes = list(ordered)
    if plan.reorder == "last-first":
        first_size = plan.group_sizes[1]
        classes = classes[first_size:] + classes[:first_size]
    ends = np.cumsum(plan.group_sizes).tolist()
    return tuple(tuple(classes[end - size : end]) for size, end in zip(plan.group_sizes, ends, strict=True))


def _keep(ordered: Sequence[Category], plan: Plan, leave_out: str | None) -> Sequence[Category]:
    if leave_out is None:
        return ordered
    if leave_out == REST:
        return ordered[: plan.num_classes]
    dropped = find_classes((("`leave_out`", name) for name in split_names(leave_out)), ordered)
    if len(dropped) == len(ordered):
        raise ConfigError("`leave_out`: it names every class of the dataset; keep at least one")
    return [category for category in ordered if category not in dropped]


def _fitting_plan(plan: Plan, num_classes: int) -> str:
    """The same number of steps in about the same proportions, or one class per step where there are too few."""
    steps = len(plan.group_sizes)
    if num_classes <= steps:
        return f"1x{num_classes}"
    shares = [size * num_classes / plan.num_classes for size in plan.group_sizes]
    sizes = [max(1, int(share)) for share in shares]
    while sum(sizes) != num_classes:
        change = 1 if sum(sizes) < num_classes else -1
        candidates = [step for step in range(steps) if sizes[step] + change >= 1]
        step = max(candidates, key=lambda index: change * (shares[index] - sizes[index]))
        sizes[step] += change
    if plan.reorder == "last-first":
        return f"last{sizes[0]}+first{sizes[1]}"
    return _sizes_text(sizes)


def _sizes_text(sizes: Sequence[int]) -> str:
    runs = [(size, len(list(run))) for size, run in itertools.groupby(sizes)]
    return "+".join(f"{size}x{count}" if count > 1 else str(size) for size, count in runs)
