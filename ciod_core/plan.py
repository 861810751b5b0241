"""Plans: how the classes of a dataset are divided into steps.

`70+10` learns 70 classes, then 10; `40+10x4` learns 40, then four times 10; `last40+first40` learns the
last 40 classes of the order before the first 40.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ciod_core.data.annotations import Category
from ciod_core.errors import ConfigError

EXAMPLES = "70+10, 40+10x4, 20x4 or last40+first40"
ORDERS = "name, id, file, seedN (such as seed123) or a comma-separated list of all class names"


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
                raise ConfigError(f"--plan: '{text}' is not a plan at '{term}'; write it like {EXAMPLES}")
            sizes += [int(match[1])] * int(match[2] or 1)
    if not sizes or 0 in sizes:
        raise ConfigError(f"--plan: '{text}' has a step of no classes; every number must be at least 1")
    return Plan(text=plan, group_sizes=tuple(sizes), reorder="last-first" if swapped else "none")


def order_categories(categories: Sequence[Category], order: str) -> tuple[Category, ...]:
    """Put the classes of a dataset into the order in which a plan counts them.

    Args:
        categories: the classes as the annotation file lists them.
        order: `name` alphabetical (ILYOLOX), `id` ascending category id (ERD), `file` as listed, `seedN` NumPy's
            legacy shuffle of the ascending ids with seed N (CL-DETR uses seed123), or all names separated by commas.

    Raises:
        ConfigError: the order is unknown or its list is not exactly the dataset's classes.
    """
    if order == "file":
        return tuple(categories)
    if order == "name":
        return tuple(sorted(categories, key=lambda category: category.name))
    by_id = sorted(categories, key=lambda category: category.id)
    if order == "id":
        return tuple(by_id)
    seed = re.fullmatch(r"seed([0-9]{1,9})", order)
    if seed:
        positions = list(range(len(by_id)))
        np.random.RandomState(int(seed[1])).shuffle(positions)
        return tuple(by_id[position] for position in positions)
    return _order_by_list(categories, order)


def class_groups(plan: Plan, ordered: Sequence[Category]) -> tuple[tuple[Category, ...], ...]:
    """Divide ordered classes into the groups that the steps learn.

    Raises:
        ConfigError: the plan counts more or fewer classes than there are.
    """
    if plan.num_classes != len(ordered):
        raise ConfigError(
            f"--plan: '{plan.text}' counts {plan.num_classes} classes, the dataset has {len(ordered)}; "
            f"a plan that fits is {_fitting_plan(plan, len(ordered))}"
        )
    classes = list(ordered)
    if plan.reorder == "last-first":
        first_size = plan.group_sizes[1]
        classes = classes[first_size:] + classes[:first_size]
    ends = np.cumsum(plan.group_sizes).tolist()
    return tuple(tuple(classes[end - size : end]) for size, end in zip(plan.group_sizes, ends, strict=True))


def _order_by_list(categories: Sequence[Category], order: str) -> tuple[Category, ...]:
    by_name = {category.name: category for category in categories}
    names = [name.strip() for name in order.split(",")]
    if len(names) == 1 and len(by_name) > 1:
        raise ConfigError(f"--order: '{order}' is not an order; choose {ORDERS}")
    for position, name in enumerate(names):
        if name not in by_name:
            close = difflib.get_close_matches(name, by_name, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"the classes are {', '.join(by_name)}"
            raise ConfigError(f"--order: '{name}' is not a class of the dataset; {hint}")
        if name in names[:position]:
            raise ConfigError(f"--order: '{name}' is listed twice; list every class once")
    missing = [name for name in by_name if name not in names]
    if missing:
        raise ConfigError(
            f"--order: {len(names)} of {len(by_name)} classes are listed, '{missing[0]}' is not; list every class once"
        )
    return tuple(by_name[name] for name in names)


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
    runs = [(size, len(list(run))) for size, run in itertools.groupby(sizes)]
    return "+".join(f"{size}x{count}" if count > 1 else str(size) for size, count in runs)
