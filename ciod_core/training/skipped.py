"""Images that could not be loaded while training and were replaced by others: counted, told and kept."""

from __future__ import annotations

import json
from collections.abc import Iterable

import torch

from ciod_core.training.resume import Tensors


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
        """Take note of names, some of which may be known."""
        self._names.update(dict.fromkeys(names))

    def __str__(self) -> str:
        if not self._names:
            return "every image could be loaded"
        count, first = len(self._names), next(iter(self._names))
        if count == 1:
            return f"1 image cannot be loaded and is replaced by another: {first}"
        return f"{count} images cannot be loaded and are replaced by others, the first is {first}"

    def tensors(self) -> Tensors:
        """The names as a tensor of bytes, for the state of an unfinished run; nothing when there are none."""
        if not self._names:
            return {}
        return {"names": torch.frombuffer(bytearray(json.dumps(self.names).encode()), dtype=torch.uint8)}

    @classmethod
    def from_tensors(cls, tensors: Tensors) -> SkippedImages:
        """Read what `tensors` gave."""
        return cls(json.loads(bytes(tensors["names"].tolist()))) if tensors else cls()
