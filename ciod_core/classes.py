"""The class table: which output of the detector means which of the user's classes.

Class identity is the name. Labels (train indices) are contiguous and only ever appended along a
chain of steps; the dataset's own category ids are kept, because they are what every file speaks.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from typing import Literal, TypeVar

import numpy as np
from pydantic import Field, model_validator

from ciod_core.errors import CheckpointError
from ciod_core.records import Record

# Far beyond every dataset there is; a detector for more would not fit into memory.
MOST_CLASSES = 100_000
LONGEST_NAME = 1000


Value = TypeVar("Value", bound=Hashable)


class ClassEntry(Record):
    """One class.

    Attributes:
        name: of the class.
        category_id: the dataset's.
        step: from 1, the one that taught it.
        learned_from: what the weights that this table describes learned it from: labels, as far as the first of their
            chain goes, or nothing but the answers of a teacher.
    """

    name: str = Field(max_length=LONGEST_NAME)
    category_id: int
    step: int
    learned_from: Literal["labels", "knowledge"] = "labels"


class ClassTable(Record):
    """Ordered classes; the position of an entry is its label in the detector."""

    entries: tuple[ClassEntry, ...] = Field(max_length=MOST_CLASSES)

    @model_validator(mode="after")
    def _check_unique_and_ordered(self) -> ClassTable:
        names = [entry.name for entry in self.entries]
        ids = [entry.category_id for entry in self.entries]
        steps = [entry.step for entry in self.entries]
        if len(set(names)) != len(names):
            raise ValueError("class names repeat")
        if len(set(ids)) != len(ids):
            raise ValueError("category ids repeat")
        if steps != sorted(steps):
            raise ValueError("classes are not ordered by step")
        return self

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by label."""
        return tuple(entry.name for entry in self.entries)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The dataset's category ids by label."""
        return tuple(entry.category_id for entry in self.entries)

    @property
    def last_step(self) -> int:
        """The highest step in the table, 0 when it is empty."""
        return self.entries[-1].step if self.entries else 0

    def up_to(self, step: int) -> ClassTable:
        """The classes of steps 1..step."""
        return ClassTable(entries=tuple(entry for entry in self.entries if entry.step <= step))

    def from_knowledge(self) -> ClassTable:
        """The same classes, for weights that never saw a label of them."""
        return ClassTable(
            entries=tuple(entry.model_copy(update={"learned_from": "knowledge"}) for entry in self.entries)
        )

    def after(self, teacher: ClassTable) -> ClassTable:
        """The same classes, for weights that continue those of a teacher, which knows the first of them."""
        known = zip(self.entries, teacher.entries, strict=False)
        taught = tuple(own.model_copy(update={"learned_from": old.learned_from}) for own, old in known)
        return ClassTable(entries=(*taught, *self.entries[len(taught) :]))

    def of_step(self, step: int) -> ClassTable:
        """The classes that one step teaches."""
        return ClassTable(entries=tuple(entry for entry in self.entries if entry.step == step))

    def labels_of(self, category_ids: Iterable[int] | np.ndarray) -> np.ndarray:
        """Labels (int64) of category ids; −1 where an id is not in the table."""
        ids = np.asarray(category_ids, dtype=np.int64)
        known = np.asarray(self.category_ids, dtype=np.int64)
        if not len(known):
            return np.full(ids.shape, -1, dtype=np.int64)
        order = np.argsort(known)
        position = np.clip(np.searchsorted(known, ids, sorter=order), 0, len(known) - 1)
        labels = order[position]
        return np.where(known[labels] == ids, labels, -1).astype(np.int64)

    def require_prefix_of(self, other: ClassTable, *, where: str) -> None:
        """Refuse a teacher whose classes are not the first classes of `other`, in order.

        Raises:
            CheckpointError: naming the first class that differs.
        """
        for label, entry in enumerate(self.entries):
            expected = other.entries[label].name if label < len(other) else None
            if entry.name != expected:
                wanted = quoted(expected) if expected else "no class"
                raise CheckpointError(
                    f"{where}: its class {label + 1} is {quoted(entry.name)}, the experiment expects {wanted} there; "
                    "pass the teacher that was trained on the earlier steps of this experiment"
                )


def class_table(steps: Sequence[Sequence[tuple[str, int]]]) -> ClassTable:
    """Build a table from (name, category id) pairs listed step by step."""
    return ClassTable(
        entries=tuple(
            ClassEntry(name=name, category_id=category_id, step=number)
            for number, step in enumerate(steps, start=1)
            for name, category_id in step
        )
    )


def spelling(name: str) -> str:
    """A class name without what readers overlook, the same for look-alikes.

    Letters in their compatibility form (NFKC), in lower case; without spaces, `-`, `_` and characters that only format
    text (Unicode's category Cf: byte order marks, zero-width and soft hyphens and the like).
    """
    visible = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold())
    return re.sub(r"[\s_-]+", "", folded)


def quoted(name: str) -> str:
    """A class name for messages, with escapes where it looks like one that is written otherwise."""
    return repr(name) if unicodedata.is_normalized("NFKC", name) else ascii(name)


def first_repeated(values: Iterable[Value]) -> Value | None:
    """The first value that was there before; None where every value is there once."""
    seen = set[Value]()
    # `add` returns None.
    return next((value for value in values if value in seen or seen.add(value)), None)  # type: ignore[func-returns-value]


def refused_list(names: Sequence[str]) -> str | None:
    """Why a list of class names cannot be used: it is too long, or one of the names is; None where it can."""
    if len(names) > MOST_CLASSES:
        return f"{len(names):,} classes, more than {MOST_CLASSES:,}"
    long = next((name for name in names if len(name) > LONGEST_NAME), None)
    return long and f"a class name of {len(long):,} characters, more than {LONGEST_NAME:,} ({long[:20]!r}…)"


def closest_name(name: str, names: Iterable[str]) -> str | None:
    """The look-alike of a name among others, or else the one that is closest to it, or none."""
    by_spelling = {spelling(other): other for other in names}
    close = difflib.get_close_matches(spelling(name), by_spelling, n=1)
    return by_spelling[close[0]] if close else None


def look_alikes(names: Iterable[str]) -> list[str]:
    """A sentence about every name that looks like an earlier one of the same list: they may be one class."""
    first: dict[str, str] = {}
    pairs = ((first.setdefault(spelling(name), name), name) for name in names)
    return [
        f"class {quoted(name)} differs from {quoted(other)} by case, spacing or Unicode form alone; if they are the "
        "same class, call them the same"
        for other, name in pairs
        if other != name
    ]
