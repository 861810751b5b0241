"""The arithmetic of one process among several that compute together; with a single one, nothing changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

_alone = False


@contextmanager
def as_if_alone(alone: bool = True) -> Iterator[None]:
    """Inside, this process computes like a single one: all have the same images, and so the same gradients."""
    global _alone
    _alone = alone
    try:
        yield
    finally:
        _alone = False


def world_size() -> int:
    """How many processes work together; 1 without a process group."""
    return distributed.get_world_size() if _active() and not _alone else 1


def rank() -> int:
    """This process's number, 0 without a process group: 0 is the main one."""
    return distributed.get_rank() if _active() else 0


def mean_across_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    if world_size() == 1:
        return value
    value = value.clone()
    distributed.all_reduce(value)
    return value / world_size()


def largest_across_processes(*numbers: int) -> tuple[int, ...]:
    """The largest of each number that any process has."""
    if world_size() == 1:
        return numbers
    largest = torch.tensor(numbers)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return tuple(largest.tolist())


def union_across_processes(names: tuple[str, ...]) -> tuple[str, ...]:
    """The distinct names of all processes, those of the first process first."""
    if world_size() == 1:
        return names
    found: list[tuple[str, ...]] = [()] * world_size()
    distributed.all_gather_object(found, names)
    return tuple(dict.fromkeys(name for part in found for name in part))


def rows_of_all_processes(rows_KF: Tensor) -> Tensor:
    """The rows of all processes, one process after another; only this process's own carry a gradient."""
    if world_size() == 1:
        return rows_KF
    count = torch.tensor(len(rows_KF), device=rows_KF.device)
    counts = [torch.empty_like(count) for _ in range(world_size())]
    distributed.all_gather(counts, count)
    most = max(int(each) for each in counts)
    padded = rows_KF.new_zeros(most, *rows_KF.shape[1:])
    padded[: len(rows_KF)] = rows_KF.detach()
    found = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(found, padded)
    parts = [part[: int(each)] for part, each in zip(found, counts, strict=True)]
    parts[rank()] = rows_KF
    return torch.cat(parts)


def with_summed_gradient(loss: Tensor) -> Tensor:
    """A loss that every process computes of the rows of all, each with the gradient of its own rows alone.

    Gradients are averaged over processes, and these are to be added up: each counts as often as there are processes.
    """
    return loss if world_size() == 1 else loss.detach() + world_size() * (loss - loss.detach())


def share_of_images(count: int, device: torch.device) -> Tensor | float:
    """What the mean over this process's images counts in the mean over those of all; 1 where all have as many."""
    if world_size() == 1:
        return 1.0
    own = torch.tensor(float(count), device=device)
    return own / mean_across_processes(own)


def parallel(module: nn.Module, *, sync_batch_norm: bool = False) -> nn.Module:
    """The module as the training loop calls it: wrapped when several processes share the work.

    Args:
        module: on its device.
        sync_batch_norm: normalize by the statistics of all processes' images; on CUDA GPUs alone.
    """
    if world_size() == 1:
        return module
    if sync_batch_norm:
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    return DistributedDataParallel(module)


def without_exchange(model: nn.Module) -> AbstractContextManager[None]:
    """Gradients inside are those of this process, to be added to the next ones, which are exchanged with the others."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def _active() -> bool:
    return distributed.is_available() and distributed.is_initialized()
