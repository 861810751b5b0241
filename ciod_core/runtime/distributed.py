"""The few places where training knows that it may be one process of several."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


def world_size() -> int:
    """How many processes train together; 1 without a process group."""
    return distributed.get_world_size() if _active() else 1


def rank() -> int:
    """This process's number, 0 without a process group."""
    return distributed.get_rank() if _active() else 0


def mean_across_processes(value: Tensor) -> Tensor:
    """The mean of a scalar tensor over all processes."""
    if not _active():
        return value
    value = value.clone()
    distributed.all_reduce(value)
    return value / world_size()


def union_across_processes(names: tuple[str, ...]) -> tuple[str, ...]:
    """The distinct names of all processes, those of the first process first."""
    if not _active():
        return names
    found: list[tuple[str, ...]] = [()] * world_size()
    distributed.all_gather_object(found, names)
    return tuple(dict.fromkeys(name for part in found for name in part))


def parallel(module: nn.Module, device: torch.device) -> nn.Module:
    """The module as the training loop calls it: wrapped when several processes share the work."""
    if world_size() == 1:
        return module
    return DistributedDataParallel(module, device_ids=[device.index] if device.type == "cuda" else None)


def _active() -> bool:
    return distributed.is_available() and distributed.is_initialized()
