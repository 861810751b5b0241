"""Counting what makes the host wait for a device: the same operations run on a CPU, where they cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# The size of what these give depends on values, or a value itself is read.
WAITING = (
    "aten::nonzero",
    "aten::masked_select",
    "aten::_local_scalar_dense",
    "aten::_unique2",
    "aten::unique_consecutive",
    "aten::bincount",
    "aten::repeat_interleave",
    "torchvision::nms",
)


class HostWaits(TorchDispatchMode):
    """While active, notes every operation that would make the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.name().partition(".")[0]
        by_mask = name in ("aten::index", "aten::index_put_", "aten::index_put") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1]
        )
        if name in WAITING or by_mask:
            self.operations.append(f"{name} by mask" if by_mask else name)
        return func(*args, **(kwargs or {}))


def host_waits(run: Callable[[], object]) -> list[str]:
    """The names of the operations that would have made the host wait, in order."""
    with HostWaits() as waits:
        run()
    return waits.operations
