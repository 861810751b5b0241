"""The class table: which output of the detector means which of the user's classes.

Class identity is the name. Labels (train indices) are contiguous and only ever appended along a
chain of steps; the dataset's own category ids are kept, because they are what every file speaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from ciod_core.errors import CheckpointError


class ClassEntry(BaseModel):
    """One class: its name, the dataset's category id and the step (from 1) that taught it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    category_id: int
    step: int


class ClassTable(BaseModel):
    """Ordered classes; the position of an entry is its label in the detector."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entries: tuple[ClassEntry, ...]

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
                wanted = f"'{expected}'" if expected else "no class"
                raise CheckpointError(
                    f"{where}: its class {label + 1} is '{entry.name}', the experiment expects {wanted} there; "
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
