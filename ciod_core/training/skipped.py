"""Images that could not be loaded while training and were replaced by others."""

from __future__ import annotations

from collections.abc import Iterable


class SkippedImages:
    """The distinct file names, in the order in which they were met."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = dict.fromkeys(names)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name once."""
        return tuple(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def add(self, names: Iterable[str]) -> None:
        """Add names, some of which may be known."""
        self._names.update(dict.fromkeys(names))

    def __str__(self) -> str:
        if not self._names:
            return "every image could be loaded"
        count, first = len(self._names), next(iter(self._names))
        if count == 1:
            return f"1 image cannot be loaded and is replaced by another: {first}"
        return f"{count} images cannot be loaded and are replaced by others, the first is {first}"
