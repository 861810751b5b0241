"""Plans that list the classes of every step in a YAML file.

steps:
  - [person, car]
  - [dog]
leave_out: rest
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ciod_core.config.yaml import read_yaml
from ciod_core.data.annotations.table import Category
from ciod_core.errors import ConfigError, did_you_mean
from ciod_core.experiment.plan.class_order import find_classes

SUFFIXES = (".yaml", ".yml")
FIELDS = ("steps", "leave_out")
REST: Literal["rest"] = "rest"


@dataclass(frozen=True)
class PlanFile:
    """The class names of every step.

    Attributes:
        path: the file they were read from.
        steps: class names by step, in the order of learning.
        leave_out: names that no step learns, or `rest` for all that no step names.
    """

    path: Path
    steps: tuple[tuple[str, ...], ...]
    leave_out: tuple[str, ...] | Literal["rest"] = ()

    def divide(self, categories: Sequence[Category]) -> tuple[tuple[tuple[Category, ...], ...], tuple[Category, ...]]:
        """The classes of every step, and those left out in the order of the dataset.

        Raises:
            ConfigError: a class that the dataset does not know, that is named twice, or that is missing.
        """
        found = iter(find_classes(self._named(), categories))
        groups = tuple(tuple(itertools.islice(found, len(names))) for names in self.steps)
        in_steps = {category for group in groups for category in group}
        left_out = tuple(category for category in categories if category not in in_steps)
        unnamed = set(left_out) - set(found)
        if unnamed and self.leave_out != REST:
            first = next(category.name for category in left_out if category in unnamed)
            raise ConfigError(
                f"{_where(self.path)}: {len(categories) - len(unnamed)} of {len(categories)} classes are named, "
                f"'{first}' is not; add it to steps or leave_out, or write leave_out: rest"
            )
        return groups, left_out

    def _named(self) -> Iterator[tuple[str, str]]:
        where = _where(self.path)
        for step, names in enumerate(self.steps):
            for position, name in enumerate(names):
                yield f"{where}: steps[{step}][{position}]", name
        if self.leave_out != REST:
            for position, name in enumerate(self.leave_out):
                yield f"{where}: leave_out[{position}]", name


def is_plan_file(text: str) -> bool:
    """True when `plan` names a file instead of counting classes."""
    return Path(text).suffix.lower() in SUFFIXES


def read_plan_file(path: Path) -> PlanFile:
    """Read a plan that lists classes.

    Raises:
        ConfigError: the file cannot be read, or holds something other than `steps` and `leave_out`.
    """
    where = _where(path)
    document = read_yaml(path, where)
    if not isinstance(document, dict):
        raise ConfigError(f"{where}: expected 'steps:' with a list of class names per step, got {_kind(document)}")
    for field in document:
        if field not in FIELDS:
            hint = did_you_mean(field, FIELDS, otherwise=f"the fields are {', '.join(FIELDS)}")
            raise ConfigError(f"{where}: there is no field {str(field)!r}; {hint}")
    steps = document.get("steps")
    if not isinstance(steps, list) or not steps:
        raise ConfigError(f"{where}: steps: expected a list of lists of class names, got {_kind(steps)}")
    leave_out = document.get("leave_out")
    return PlanFile(
        path=path,
        steps=tuple(_read_step(names, f"{where}: steps[{step}]") for step, names in enumerate(steps)),
        leave_out=_read_leave_out(leave_out, f"{where}: leave_out"),
    )


def _read_step(names: Any, where: str) -> tuple[str, ...]:
    if names == []:
        raise ConfigError(f"{where}: the step has no class; name at least one or remove the step")
    return _read_names(names, where, "a list of class names")


def _read_leave_out(value: Any, where: str) -> tuple[str, ...] | Literal["rest"]:
    if value == REST:
        return REST
    return () if value is None else _read_names(value, where, f"a list of class names or '{REST}'")


def _read_names(names: Any, where: str, expected: str) -> tuple[str, ...]:
    if not isinstance(names, list):
        raise ConfigError(f"{where}: expected {expected}, got {_kind(names)}; write it like [person, car]")
    for position, name in enumerate(names):
        if not isinstance(name, str):
            raise ConfigError(
                f"{where}[{position}]: expected a class name, got {_kind(name)}; put names that YAML reads as "
                "something else in quotes"
            )
    return tuple(names)


def _kind(value: Any) -> str:
    """What a value is, in the words of YAML rather than Python."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return "a mapping" if isinstance(value, dict) else repr(value)


def _where(path: Path) -> str:
    return f"`plan` {path}"
